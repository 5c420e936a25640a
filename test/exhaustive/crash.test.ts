import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { conditionOf } from '../../src/api/conditions.ts';
import { annotation, API_VERSION, secretNameOf } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { ApiProxy, type Cut } from '../fault/api-proxy.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
} from '../operator/cluster.ts';
import { endStateOf, isWhole } from '../operator/end-state.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const annotationKey = 'automationguardrails.dev/kill-switch';
const operatorArgs = ['--leader-elect=false'];

/** What a person does, and how to see that the operator is done with it. */
interface Act {
  name: string;
  begin(controlPlane: ControlPlane, namespace: string): Promise<void>;
  isDone(controlPlane: ControlPlane, namespace: string): Promise<unknown>;
}

/** One for each story at a time: beside another operator, that would do what a killed one left. */
interface Cluster {
  controlPlane: ControlPlane;
  operatorKubeconfig: string;
}

const atOnce = 3;
const controlPlanes: ControlPlane[] = [];
/** Those in which no story is told. */
const clusters: Cluster[] = [];

beforeAll(async () => {
  const started = await forEachBounded([...Array(atOnce).keys()], atOnce, async () => {
    const controlPlane = await startControlPlane({ controllerManagerQps: 500 });
    controlPlanes.push(controlPlane);
    clusters.push({ controlPlane, operatorKubeconfig: await installGuardrails(controlPlane) });
  });
  assertAllDone(started, 'start control planes');
});

afterAll(async () => {
  await Promise.all(controlPlanes.map((controlPlane) => controlPlane.stop()));
});

const kill: Act = {
  name: 'kill',
  begin: async (controlPlane, namespace) => {
    await kubectlOk(controlPlane, [
      'annotate',
      'awf/invoice',
      `-n=${namespace}`,
      `${annotationKey}=runaway`,
    ]);
  },
  isDone: async (controlPlane, namespace) => {
    const ref = { kind: 'ksw', name: 'invoice', namespace };
    await waitForCondition(controlPlane, ref, 'Ready');
    await waitForCondition(controlPlane, { ...ref, kind: 'awf' }, 'Stopped');
  },
};

const release: Act = {
  name: 'release',
  begin: async (controlPlane, namespace) => {
    await kubectlOk(controlPlane, [
      'annotate',
      'awf/invoice',
      `-n=${namespace}`,
      `${annotationKey}-`,
    ]);
    // Refused until the API server's own watch has seen the annotation go.
    await waitFor('the release to be accepted', async () => {
      const { code } = await controlPlane.kubectl(
        ['annotate', 'ksw/invoice', `-n=${namespace}`, 'automationguardrails.dev/release=fixed'],
        { as: 'bob', asGroups: ['system:masters'] },
      );
      return code === 0;
    });
  },
  isDone: async (controlPlane, namespace) => {
    await waitFor(
      'the KillSwitch to be gone',
      async () => (await getObject(controlPlane, 'ksw', 'invoice', namespace)) === undefined,
      { timeoutMs: 120_000 },
    );
    await allPodsRun(controlPlane, namespace);
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
  },
};

const rotate: Act = {
  name: 'rotate',
  begin: async (controlPlane, namespace) => {
    await kubectlOk(controlPlane, [
      'annotate',
      'aid/invoice',
      `-n=${namespace}`,
      'automationguardrails.dev/rotate=once',
    ]);
  },
  isDone: async (controlPlane, namespace) => {
    await waitFor(
      'the rotation to be reported',
      async () => {
        const identity = await getObject<{ status?: { lastHandledRotation?: string } }>(
          controlPlane,
          'aid',
          'invoice',
          namespace,
        );
        const secret = await getObject<{ metadata: { annotations?: Record<string, string> } }>(
          controlPlane,
          'secret',
          secretNameOf('invoice', 'database'),
          namespace,
        );
        const annotations = secret?.metadata.annotations ?? {};
        return (
          identity?.status?.lastHandledRotation === 'once' &&
          annotations['automationguardrails.dev/consumers-restarted'] ===
            annotations['automationguardrails.dev/rotation']
        );
      },
      { timeoutMs: 120_000 },
    );
    await allPodsRun(controlPlane, namespace);
  },
};

/** Records a review as somebody else than who changed the identity. */
async function review(
  controlPlane: ControlPlane,
  namespace: string,
  decision: 'Keep' | 'Revoke',
): Promise<void> {
  await waitFor(`the review to be accepted: ${decision}`, async () => {
    const identity = await identityIn(controlPlane, namespace);
    const digest = identity?.status?.accessReview?.digest ?? `sha256:${'0'.repeat(64)}`;
    const { code } = await controlPlane.kubectl(['create', '-f', '-'], {
      as: 'bob',
      asGroups: ['system:masters'],
      input: JSON.stringify({
        apiVersion: API_VERSION,
        kind: 'AccessReview',
        metadata: { name: decision.toLowerCase(), namespace },
        spec: { identity: 'invoice', decision, reason: 'a test', digest },
      }),
    });
    return code === 0;
  });
}

function identityIn(
  controlPlane: ControlPlane,
  namespace: string,
): Promise<AutomationIdentity | undefined> {
  return getObject<AutomationIdentity>(controlPlane, 'aid', 'invoice', namespace);
}

const revoke: Act = {
  name: 'revoke',
  begin: (controlPlane, namespace) => review(controlPlane, namespace, 'Revoke'),
  isDone: async (controlPlane, namespace) => {
    await waitFor(
      'nothing to be left of the identity but its mark',
      async () => {
        const held = conditionOf(
          (await identityIn(controlPlane, namespace))?.status?.conditions,
          'Held',
        );
        const kinds = 'serviceaccounts,roles,rolebindings,secrets';
        const left = await listObjects<KubeObject>(controlPlane, kinds, namespace);
        const names = left
          .map(({ metadata }) => metadata.name)
          .filter((name) => name !== 'default');
        return held?.reason === 'AccessRevoked' && names.join() === 'invoice.identity';
      },
      { timeoutMs: 120_000 },
    );
  },
};

const giveBack: Act = {
  name: 'give back',
  begin: (controlPlane, namespace) => review(controlPlane, namespace, 'Keep'),
  isDone: async (controlPlane, namespace) => {
    await waitForCondition(controlPlane, { kind: 'aid', name: 'invoice', namespace }, 'Ready');
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    await waitFor(
      'the consumers to be restarted',
      async () => {
        const name = secretNameOf('invoice', 'database');
        const secret = await getObject<KubeObject>(controlPlane, 'secret', name, namespace);
        const { annotations = {} } = secret?.metadata ?? {};
        return (
          annotations[annotation.rotation] !== undefined &&
          annotations[annotation.consumersRestarted] === annotations[annotation.rotation]
        );
      },
      { timeoutMs: 120_000 },
    );
    await allPodsRun(controlPlane, namespace);
  },
};

const acts = [rotate, kill, release, revoke, giveBack];

async function allPodsRun(controlPlane: ControlPlane, namespace: string): Promise<void> {
  await waitFor(
    'all pods to run',
    async () => {
      const pods = await listObjects<{
        status?: { phase?: string };
        metadata: { deletionTimestamp?: string };
      }>(controlPlane, 'pods', namespace);
      const running = pods.filter(
        ({ status, metadata }) =>
          status?.phase === 'Running' && metadata.deletionTimestamp === undefined,
      );
      return running.length === automationPods && pods.length === automationPods;
    },
    { timeoutMs: 120_000 },
  );
}

/**
 * Provisions an automation, then does each of the acts told while the operator is killed at its write number
 * `at` (0: never), and starts it again.
 *
 * @param expected end state after each act, which the story has to converge to
 * @returns the end state after each act, how many writes it took, and how often it was killed
 */
async function story(
  { controlPlane, operatorKubeconfig }: Cluster,
  namespace: string,
  told: readonly Act[],
  at: number,
  fate: Cut,
  expected: readonly Record<string, unknown>[] = [],
): Promise<{ states: Record<string, unknown>[]; writes: number[]; kills: number }> {
  let operator: OperatorProcess | undefined;
  let isCut = false;
  let kills = 0;
  const proxy = new ApiProxy({
    controlPlane,
    kubeconfigPath: operatorKubeconfig,
    onCut: () => {
      isCut = true;
      kills += 1;
      operator?.kill();
    },
  });
  const kubeconfigPath = await proxy.start();
  const revived = async (cut: OperatorProcess): Promise<OperatorProcess> => {
    if (!isCut) return cut;
    isCut = false;
    await cut.exited;
    return startOperator({ kubeconfigPath, args: operatorArgs });
  };
  const states: Record<string, unknown>[] = [];
  const writes: number[] = [];
  try {
    operator = await startOperator({ kubeconfigPath, args: operatorArgs });
    await controlPlane.apply(automation({ namespace }));
    await waitForCondition(controlPlane, { kind: 'aid', name: 'invoice', namespace }, 'Ready');
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    await allPodsRun(controlPlane, namespace);

    for (const [index, act] of told.entries()) {
      const before = proxy.writes.length;
      proxy.onWrite = (write) => (at > 0 && write.index === before + at ? fate : 'pass');
      await act.begin(controlPlane, namespace);
      const done = act.isDone(controlPlane, namespace);
      await Promise.race([done, operator.exited]);
      proxy.onWrite = () => 'pass';
      operator = await revived(operator);
      await done;
      writes.push(proxy.writes.length - before);
      states.push(await settledState(controlPlane, namespace, expected[index]));
      // A write of later than the act may have been under way, and cut.
      operator = await revived(operator);
    }
    expect(await operator.stop()).toBe(0);
    return { states, writes, kills };
  } finally {
    operator?.kill();
    await proxy.stop();
    await controlPlane.kubectl(['delete', 'namespace', namespace, '--wait=false']);
  }
}

/** Up to the last act that has a write of that number: what comes after it would be undisturbed. */
function actsWith(at: number, writes: readonly number[]): readonly Act[] {
  // One that is killed may need a few more than the undisturbed one.
  const last = writes.findLastIndex((count) => count + 3 >= at);
  return acts.slice(0, last + 1);
}

/**
 * The end state once it is the expected one, or, of the undisturbed run, once the cluster's own
 * controllers are done; whatever it is, when that takes too long.
 */
async function settledState(
  controlPlane: ControlPlane,
  namespace: string,
  expected: Record<string, unknown> | undefined,
): Promise<Record<string, unknown>> {
  await waitFor(
    'the end state of the undisturbed run',
    async () => {
      const state = await endStateOf(controlPlane, namespace);
      return expected === undefined ? isWhole(state) : isDeepStrictEqual(state, expected);
    },
    { timeoutMs: 120_000, intervalMs: 250 },
  ).catch(() => undefined);
  return endStateOf(controlPlane, namespace);
}

describe('SIGKILL before and after each write of a rotation, a kill, a release and a revocation', () => {
  it('ends as an undisturbed run does', async () => {
    const [first] = clusters;
    if (first === undefined) throw new Error('There is no control plane.');
    const reference = await story(first, 'crash-reference', acts, 0, 'cut-before');
    const points = Math.max(...reference.writes);
    console.log(
      `writes of ${acts.map(({ name }) => name).join(', ')}: ${reference.writes.join(', ')}`,
    );
    expect(points).toBeGreaterThan(5);
    const crashes = Array.from({ length: points }, (_, index) => index + 1).flatMap((at) =>
      (['cut-before', 'cut-after'] as const).map((fate) => ({ at, fate })),
    );
    const outcomes = await forEachBounded(crashes, atOnce, async ({ at, fate }) => {
      const cluster = clusters.pop();
      if (cluster === undefined) throw new Error('No control plane is free.');
      try {
        const name = `crash-${at}-${fate}`;
        const due = actsWith(at, reference.writes);
        const { states, kills } = await story(cluster, name, due, at, fate, reference.states);
        console.log(`write ${at} of ${points}, ${fate}: done, killed ${kills} times`);
        return { states, kills };
      } finally {
        clusters.push(cluster);
      }
    });
    assertAllDone(outcomes, 'stories with a crash');
    const kills = outcomes.map((outcome) => ('result' in outcome ? outcome.result.kills : 0));
    // Shorter acts have no such write, and the longest may need one less; the others make up for it.
    expect(kills.reduce((sum, of) => sum + of, 0)).toBeGreaterThanOrEqual(crashes.length);
    for (const outcome of outcomes) {
      const { at, fate } = outcome.item;
      const states = 'result' in outcome ? outcome.result.states : [];
      for (const [index, act] of actsWith(at, reference.writes).entries()) {
        expect(states[index], `${act.name}, write ${at}, ${fate}`).toEqual(reference.states[index]);
      }
    }
  });
});
