import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EvidenceSegment } from '../../src/api/evidence-segment.ts';
import { annotation } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import type { EvidenceRecord } from '../../src/evidence/record.ts';
import { verifyChain } from '../../src/evidence/verify.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { levels, runs, tellAll } from '../evidence/teller.ts';
import { ApiProxy, type WriteFate } from '../fault/api-proxy.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  bob,
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitForPods,
} from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

let controlPlane: ControlPlane;
let operatorKubeconfig: string;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  operatorKubeconfig = await installGuardrails(controlPlane);
});

afterAll(async () => {
  await controlPlane?.stop();
});

/** Of one chain, which must prove itself: no gap, no fork, no sequence twice. */
async function recordsOf(namespace: string, chain: string): Promise<EvidenceRecord[]> {
  const segments = await listObjects<EvidenceSegment>(controlPlane, 'evs', namespace);
  const own = segments.map(({ spec }) => spec).filter((spec) => spec.chain === chain);
  const { records, problems } = verifyChain(`${namespace}/${chain}`, own);
  expect(problems).toEqual([]);
  return records;
}

function doubled(texts: readonly string[]): string[] {
  return texts.filter((text, index) => texts.indexOf(text) !== index);
}

function isEvidence({ path: written }: { path: string }): boolean {
  return written.includes('/evidencesegments');
}

const teller = path.join(import.meta.dirname, '..', 'evidence', 'teller.ts');

/** A process that tells a chain, each of whose writes has its fate. Killed where one is cut. */
async function tell(
  chain: string,
  segments: number,
  fateOf: (write: number) => WriteFate,
): Promise<{ isKilled: boolean; writes: number }> {
  let kill = (): void => undefined;
  const proxy = new ApiProxy({
    controlPlane,
    kubeconfigPath: operatorKubeconfig,
    onWrite: ({ index }) => fateOf(index),
    onCut: () => kill(),
  });
  const child = spawn(process.execPath, [teller, await proxy.start(), chain, String(segments)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const errors: string[] = [];
  child.stderr.on('data', (text) => errors.push(String(text)));
  kill = () => child.kill('SIGKILL');
  const [code, signal] = await once(child, 'exit');
  await proxy.stop();
  expect(code === 0 || signal === 'SIGKILL', errors.join('')).toBe(true);
  return { isKilled: signal === 'SIGKILL', writes: proxy.writes.length };
}

function levelsIn(records: readonly EvidenceRecord[]): string[] {
  return records.flatMap(({ action }) => (action.startsWith('level-') ? [action] : []));
}

function countOf(records: readonly EvidenceRecord[], counted: string): number {
  return records
    .filter(({ action }) => action === counted)
    .reduce((sum, { details }) => sum + Number(details?.['count']), 0);
}

/** What a chain has to say in the end, whatever happened meanwhile. */
function expectWhole(records: readonly EvidenceRecord[]): void {
  expect(levelsIn(records).toSorted()).toEqual(
    Array.from({ length: levels }, (_, level) => `level-${level}`).toSorted(),
  );
  expect(countOf(records, 'RunsSucceeded')).toBe(runs);
}

const fates = ['cut-before', 'cut-after', 'fail-after'] as const;

describe.each([
  ['that keeps all', 'kept', 100],
  ['that lets old segments go', 'expiring', 2],
])('a chain %s', (_, namespace, segments) => {
  beforeAll(async () => {
    await kubectlOk(controlPlane, ['create', 'namespace', namespace]);
  });

  afterAll(async () => {
    await controlPlane.kubectl(['delete', 'namespace', namespace, '--wait=false']);
  });

  it('loses nothing, doubles nothing and forks nothing, at whichever write it is struck', async () => {
    const { writes } = await tell(`${namespace}/undisturbed`, segments, () => 'pass');
    const all = await recordsOf(namespace, 'undisturbed');
    const hasExpired = all.some(({ action }) => action === 'SegmentsExpired');
    expect(hasExpired).toBe(segments < levels);
    // Besides the appends, at least one segment was completed and another begun.
    expect(writes).toBeGreaterThan(levels / 2 + 1);
    const blows = Array.from({ length: writes }, (_one, index) =>
      fates.map((fate) => ({ at: index + 1, fate })),
    ).flat();
    const outcomes = await forEachBounded(blows, 3, async ({ at, fate }) => {
      const chain = `${fate}-${at}`;
      const life = await tell(`${namespace}/${chain}`, segments, (write) =>
        write === at ? fate : 'pass',
      );
      expect(life.isKilled).toBe(fate !== 'fail-after');
      await tellAll(operatorKubeconfig, `${namespace}/${chain}`, segments);
      const records = await recordsOf(namespace, chain);
      // Of what went, the states were taken over: told once more, it gives no record.
      await tellAll(operatorKubeconfig, `${namespace}/${chain}`, segments);
      expect(await recordsOf(namespace, chain)).toEqual(records);
      if (segments > levels) expectWhole(records);
      expect(doubled(levelsIn(records))).toEqual([]);
    });
    assertAllDone(outcomes, 'chains that were struck');
  });
});

it('two processes at once, one of which is killed, and whose writes fail when they are stored', async () => {
  const namespace = 'at-once';
  await kubectlOk(controlPlane, ['create', 'namespace', namespace]);
  const rounds = await forEachBounded([3, 6, 9, 12], 2, async (at) => {
    const chain = `killed-at-${at}`;
    const failing = (write: number): WriteFate => (write % 3 === 0 ? 'fail-after' : 'pass');
    await Promise.all([
      tell(`${namespace}/${chain}`, 100, (write) => (write === at ? 'cut-after' : failing(write))),
      tell(`${namespace}/${chain}`, 100, failing),
    ]);
    expectWhole(await recordsOf(namespace, chain));
  });
  assertAllDone(rounds, 'chains of two');
});

describe('the operator, killed before and after writes of evidence all the way', () => {
  const namespace = 'struck';
  const jobs = Array.from({ length: 5 }, (_, index) => ({
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: `counted-${index}`, namespace },
    spec: {
      template: {
        metadata: { annotations: { 'test.automationguardrails.dev/completes': 'true' } },
        spec: {
          serviceAccountName: 'invoice',
          automountServiceAccountToken: false,
          restartPolicy: 'Never',
          containers: [{ name: 'main', image: 'registry.example/automation:1' }],
        },
      },
    },
  }));
  const blows: readonly WriteFate[] = [
    'pass',
    'cut-before',
    'fail-after',
    'pass',
    'cut-after',
    'fail-after',
  ];
  const maxKills = 10;

  let operator: OperatorProcess;
  let proxy: ApiProxy;
  let kills = 0;
  let isOver = false;
  let supervised: Promise<void>;

  beforeAll(async () => {
    let seen = 0;
    proxy = new ApiProxy({
      controlPlane,
      kubeconfigPath: operatorKubeconfig,
      onWrite: (write) => {
        if (!isEvidence(write)) return 'pass';
        seen += 1;
        const fate = blows[seen % blows.length] ?? 'pass';
        return kills >= maxKills && fate.startsWith('cut') ? 'pass' : fate;
      },
      onCut: () => {
        kills += 1;
        operator.kill();
      },
    });
    const kubeconfigPath = await proxy.start();
    const start = (): Promise<OperatorProcess> =>
      startOperator({ kubeconfigPath, args: ['--leader-elect=false'], waitUntilReady: false });
    operator = await start();
    supervised = (async () => {
      for (;;) {
        await operator.exited;
        if (isOver) return;
        operator = await start();
      }
    })();
  });

  afterAll(async () => {
    isOver = true;
    operator?.kill();
    await supervised;
    await proxy?.stop();
  });

  it('has all of an automation in its chain, each once: runs, a kill, its release', async () => {
    await controlPlane.apply(automation({ namespace }));
    const of = { name: 'invoice', namespace };
    await waitForCondition(controlPlane, { kind: 'awf', ...of }, 'Ready');
    await waitForPods(controlPlane, namespace, automationPods);
    await controlPlane.apply(jobs);
    await kubectlOk(controlPlane, [
      'wait',
      '--for=condition=Complete',
      '--timeout=120s',
      `-n=${namespace}`,
      ...jobs.map(({ metadata }) => `job/${metadata.name}`),
    ]);
    await kubectlOk(controlPlane, ['create', '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'KillSwitch',
        metadata: of,
        spec: { workflow: 'invoice', reason: 'posts twice' },
      }),
      as: 'alice',
      asGroups: ['system:masters'],
    });
    // What it says by now has to be recorded, however soon its release comes.
    await waitForCondition(controlPlane, { kind: 'ksw', ...of }, 'Effective');
    const release = ['annotate', 'ksw', 'invoice', `-n=${namespace}`];
    await kubectlOk(controlPlane, [...release, `${annotation.release}=fixed`], bob);
    const standing = (): Promise<unknown> => getObject(controlPlane, 'ksw', of.name, namespace);
    await waitFor('the kill to be over', async () => (await standing()) === undefined, {
      timeoutMs: 300_000,
    });

    const started = await waitFor('all Jobs to have started', async () => {
      const all = await listObjects<KubeObject & { status?: { startTime?: string } }>(
        controlPlane,
        'jobs',
        namespace,
      );
      return all.every(({ status }) => status?.startTime !== undefined) && all.length;
    });
    // What is only counted waits for more to count, and is written when the operator ends.
    const records = await waitFor(
      'all runs to be counted',
      async () => {
        const current = operator;
        await waitFor(
          'it to be ready',
          async () => (await fetch(`${current.healthUrl()}/readyz`)).ok,
        );
        await current.stop();
        const all = await recordsOf(namespace, 'invoice');
        return countOf(all, 'RunsStarted') >= started &&
          countOf(all, 'RunsSucceeded') >= jobs.length &&
          all.some(({ action }) => action === 'KillReleased')
          ? all
          : undefined;
      },
      { timeoutMs: 300_000, intervalMs: 5_000 },
    );
    // How many writes there are to strike depends on how many records each takes: on the machine.
    expect(kills).toBeGreaterThan(2);
    expect(countOf(records, 'RunsStarted')).toBe(started);
    expect(countOf(records, 'RunsSucceeded')).toBe(jobs.length);
    const actions = records.map(({ action }) => action);
    expect(actions).toEqual(
      expect.arrayContaining([
        'WorkflowCreated',
        'AutomationIdentityCreated',
        'PermissionsGranted',
        'EgressGranted',
        'SecretIssued',
        'KillEngaged',
        'KillFenced',
        'KillPaused',
        'KillPermissionsRevoked',
        'KillPodsGone',
        'KillTokensRevoked',
        'KillSecretsWithdrawn',
        'KillIdentityRevoked',
        'KillEgressClosed',
        'KillEffective',
        'ReleaseRequested',
        'KillLifted',
        'KillReleased',
      ]),
    );
    const ofKill = actions.filter((action) => /^(Kill|Release)/.test(action));
    expect(doubled(ofKill)).toEqual([]);
    // A record tells another state than the one before it of the same subject.
    const said = records.filter(({ before, after }) => after !== undefined && before === after);
    expect(said).toEqual([]);
    await recordsOf('automation-guardrails', 'operator.cluster');
  });
});
