import { Agent } from 'undici';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { forEachBounded } from '../../src/runtime/parallel.ts';
import {
  answerOf,
  attackers,
  threats,
  threatsOf,
  type Attacker,
  type CellOutcome,
  type Threat,
  type ThreatId,
} from '../../src/threat-model/table.ts';
import { waitFor } from '../control-plane/wait.ts';
import { Arena, attackersManifests, fenceModes, type FenceMode } from '../threat-model/arena.ts';
import { generated, handWritten, type Attempt } from '../threat-model/attempts.ts';
import { PodWatch } from '../threat-model/pod-watch.ts';
import { podMakers, Refusals } from '../threat-model/refusals.ts';
import { actingPaths, servedResources, type ServedResource } from '../threat-model/served.ts';
import type { Answer } from '../integration/admission/api.ts';
import { AdmissionCluster } from '../integration/admission/cluster.ts';

let cluster: AdmissionCluster;
let dispatcher: Agent;
let watch: PodWatch;
let refusals: Refusals;
let served: ServedResource[];

beforeAll(async () => {
  cluster = await AdmissionCluster.start({ audit: true });
  const { controlPlane, admin } = cluster;
  refusals = new Refusals(controlPlane.auditLogPath);
  dispatcher = new Agent({ connect: { ca: controlPlane.certificateAuthority } });
  await controlPlane.apply(attackersManifests());
  watch = await PodWatch.start(controlPlane, dispatcher, admin);
  served = await servedResources(controlPlane, dispatcher);
});

afterAll(async () => {
  await watch?.stop();
  await dispatcher?.close();
  await cluster?.stop();
});

describe('the threat model', () => {
  it('knows every path of the API server that changes or reaches something', () => {
    const paths = actingPaths(served);
    expect(paths.length).toBeGreaterThan(200);
    const unknown = paths.filter((path) => threatsOf(path).length === 0);
    expect(unknown).toEqual([]);
  });

  it('speaks of nothing that the API server does not serve', () => {
    const known = new Set(served.map(({ group, resource }) => `${resource}.${group}`));
    const gone = threats.flatMap(({ paths }: Threat) =>
      paths.flatMap(({ group, resources }) =>
        resources.map((resource) => `${resource}.${group}`).filter((path) => !known.has(path)),
      ),
    );
    expect(gone).toEqual([]);
  });
});

/** Attackers who share a namespace: the last three can hardly write anything. */
const parties: readonly Attacker[][] = [
  ['controllers'],
  ['gitops'],
  ['editor'],
  ['admin'],
  ['automation', 'releaser', 'killer'],
];

type Row = Threat & { id: ThreatId };

interface Tried {
  arena: Arena;
  attacker: Attacker;
  threat: Threat;
  attempt: Attempt;
}

describe.each(fenceModes)('with no operator running, engaged by $name', (mode) => {
  let arenas: Arena[];
  const attempted: Tried[] = [];
  const answers = new Map<Tried, Answer>();

  beforeAll(async () => {
    arenas = await Promise.all(
      parties.map(([first]) => Arena.open(cluster, watch, mode, `${mode.name}-${first}`)),
    );
    attempted.push(...arenas.flatMap((arena, index) => attemptsIn(arena, parties[index] ?? [])));
    for (const stage of [0, 1, 2] as const) {
      const now = attempted.filter(({ attempt }) => (attempt.stage ?? 0) === stage);
      const outcomes = await forEachBounded(now, 24, (tried) =>
        tried.attempt.run(tried.arena.api(tried.attacker)),
      );
      for (const outcome of outcomes) {
        if ('error' in outcome) throw outcome.error;
        answers.set(outcome.item, outcome.result);
      }
      if (stage === 1) await Promise.all(arenas.map(controllersTried));
    }
  }, 1_800_000);

  it('answers at least 1,000 attempts as the table says', () => {
    expect(answers.size).toBeGreaterThan(1000);
    const wrong = [...answers].flatMap(([tried, answer]) => verdict(tried, answer, mode) ?? []);
    expect(wrong).toEqual([]);
  });

  it('tries every row of the table by everybody who has the right, and does not deny in vain', () => {
    const idle = threats.flatMap((threat: Threat) =>
      attackers.flatMap(({ name: attacker }) => {
        const outcome = outcomeOf(threat, attacker, mode);
        if (outcome === 'NoRight') return [];
        const own = [...answers].filter(
          ([tried]) => tried.threat.id === threat.id && tried.attacker === attacker,
        );
        const got = own.some(([{ attempt }, answer]) =>
          outcome === 'Denied' ? isDenied(attempt, answer) : !isForbiddenByRbac(answer),
        );
        return got ? [] : [`${threat.id} by ${attacker}: ${outcome}`];
      }),
    );
    expect(idle).toEqual([]);
  });

  it('starts nothing, and stays engaged', async () => {
    for (const arena of arenas) {
      const { namespace } = arena;
      expect({ namespace, started: await watch.violations(namespace) }).toEqual({
        namespace,
        started: [],
      });
      expect(await arena.tokenSecrets()).toEqual([]);
      await waitFor(`the fence of ${namespace} to answer`, () =>
        mode.isStanding(cluster, namespace),
      );
    }
  });
});

function attemptsIn(arena: Arena, party: readonly Attacker[]): Tried[] {
  return party.flatMap((attacker) => {
    const byHand = threats.flatMap((threat: Row) => {
      const attempts = handWritten(threat.id, arena, attacker);
      // RBAC looks at the path alone: more of the same would tell nothing.
      const enough = threat.reach.includes(attacker) ? attempts : attempts.slice(0, 2);
      return enough.map((attempt) => ({ threat, attempt }));
    });
    const others = generated(served, arena, attacker).flatMap(({ id, attempt }) => {
      const threat = threats.find((row) => row.id === id);
      return threat === undefined ? [] : [{ threat, attempt }];
    });
    return [...byHand, ...others].map((tried) => ({ arena, attacker, ...tried }));
  });
}

/**
 * The real controllers tried to make the pods that are missing, and were refused; but for what an
 * attacker's write froze before its pods were ended, so that there is nothing to try.
 */
async function controllersTried(arena: Arena): Promise<void> {
  const { namespace } = arena;
  // Nobody ended pods where nobody may.
  if (namespace.endsWith('automation')) return;
  await waitFor(
    `the controllers to try in ${namespace}`,
    async () => {
      const [refused, frozen] = await Promise.all([
        refusals.fencedMakers(namespace),
        arena.frozenMakers(),
      ]);
      const missing = podMakers
        .filter((kind) => !refused.has(kind) && !frozen.has(kind))
        .map((kind) => `${kind}: ${refusals.lastAnswer(namespace, kind)}`);
      if (missing.length > 0) throw new Error(missing.join('; '));
      return true;
    },
    // Whoever was refused before waits ever longer.
    { timeoutMs: 600_000 },
  );
}

function outcomeOf(threat: Threat, attacker: Attacker, mode: FenceMode): CellOutcome {
  return threat.reach.includes(attacker) ? answerOf(threat, mode).outcome : 'NoRight';
}

/** What is wrong with an answer, or nothing. */
function verdict(
  { threat, attacker, attempt, arena }: Tried,
  answer: Answer,
  mode: FenceMode,
): string | undefined {
  const outcome = outcomeOf(threat, attacker, mode);
  const told = `${threat.id} by ${attacker} in ${arena.namespace}: ${outcome} expected of ${attempt.what}, got ${answer.status} ${answer.message}`;
  const isExpected = {
    NoRight: () => isForbiddenByRbac(answer),
    Denied: () => isForbiddenByRbac(answer) || isDenied(attempt, answer),
    Rewritten: () =>
      isForbiddenByRbac(answer) ||
      (answer.status < 300 && attempt.isHarmless?.(answer) !== false) ||
      isDenied(attempt, answer),
    StartsNothing: () => true,
    Detected: () => true,
    OutOfScope: () => true,
  }[outcome]();
  return isExpected ? undefined : told;
}

function isDenied({ schema }: Attempt, { status, message }: Answer): boolean {
  if (schema !== undefined && status === 422) return message.includes(schema);
  return (
    status === 403 &&
    /ValidatingAdmissionPolicy '(automation-guardrails-[a-z-]+)' with binding '\1' denied request/.test(
      message,
    )
  );
}

function isForbiddenByRbac({ status, message }: Answer): boolean {
  return (
    status === 403 &&
    (/ cannot [a-z]+ (resource|path) /.test(message) ||
      message.includes('attempting to grant RBAC permissions not currently held'))
  );
}
