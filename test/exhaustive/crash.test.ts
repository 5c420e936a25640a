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
  begin(namespace: string): Promise<void>;
  isDone(namespace: string): Promise<unknown>;
}

let controlPlane: ControlPlane;
let operatorKubeconfig: string;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  operatorKubeconfig = await installGuardrails(controlPlane);
});

afterAll(async () => {
  await controlPlane?.stop();
});

const kill: Act = {
  name: 'kill',
  begin: async (namespace) => {
    await kubectlOk(controlPlane, [
      'annotate',
      'awf/invoice',
      `-n=${namespace}`,
      `${annotationKey}=runaway`,
    ]);
  },
  isDone: async (namespace) => {
    const ref = { kind: 'ksw', name: 'invoice', namespace };
    await waitForCondition(controlPlane, ref, 'Ready');
    await waitForCondition(controlPlane, { ...ref, kind: 'awf' }, 'Stopped');
  },
};

const release: Act = {
  name: 'release',
  begin: async (namespace) => {
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
  isDone: async (namespace) => {
    await waitFor(
      'the KillSwitch to be gone',
      async () => (await getObject(controlPlane, 'ksw', 'invoice', namespace)) === undefined,
      { timeoutMs: 120_000 },
    );
    await allPodsRun(namespace);
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
  },
};

const rotate: Act = {
  name: 'rotate',
  begin: async (namespace) => {
    await kubectlOk(controlPlane, [
      'annotate',
      'aid/invoice',
      `-n=${namespace}`,
      'automationguardrails.dev/rotate=once',
    ]);
  },
  isDone: async (namespace) => {
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
    await allPodsRun(namespace);
  },
};

/** Records a review as somebody else than who changed the identity. */
async function review(namespace: string, decision: 'Keep' | 'Revoke'): Promise<void> {
  await waitFor(`the review to be accepted: ${decision}`, async () => {
    const identity = await identityIn(namespace);
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

function identityIn(namespace: string): Promise<AutomationIdentity | undefined> {
  return getObject<AutomationIdentity>(controlPlane, 'aid', 'invoice', namespace);
}

const revoke: Act = {
  name: 'revoke',
  begin: (namespace) => review(namespace, 'Revoke'),
  isDone: async (namespace) => {
    await waitFor(
      'nothing to be left of the identity but its mark',
      async () => {
        const held = conditionOf((await identityIn(namespace))?.status?.conditions, 'Held');
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
  begin: (namespace) => review(namespace, 'Keep'),
  isDone: async (namespace) => {
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
    await allPodsRun(namespace);
  },
};

const acts = [rotate, kill, release, revoke, giveBack];

async function allPodsRun(namespace: string): Promise<void> {
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
 * Provisions an automation, then does each act while the operator is killed at its write number
 * `at` (0: never), and starts it again.
 *
 * @param expected end state after each act, which the story has to converge to
 * @returns the end state after each act, and how many writes it took
 */
async function story(
  namespace: string,
  at: number,
  fate: Cut,
  expected: readonly Record<string, unknown>[] = [],
): Promise<{ states: Record<string, unknown>[]; writes: number[] }> {
  let operator: OperatorProcess | undefined;
  let isCut = false;
  const proxy = new ApiProxy({
    controlPlane,
    kubeconfigPath: operatorKubeconfig,
    onCut: () => {
      isCut = true;
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
    await allPodsRun(namespace);

    for (const [index, act] of acts.entries()) {
      const before = proxy.writes.length;
      proxy.onWrite = (write) => (at > 0 && write.index === before + at ? fate : 'pass');
      await act.begin(namespace);
      const done = act.isDone(namespace);
      await Promise.race([done, operator.exited]);
      proxy.onWrite = () => 'pass';
      operator = await revived(operator);
      await done;
      writes.push(proxy.writes.length - before);
      states.push(await settledState(namespace, expected[index]));
      // A write of later than the act may have been under way, and cut.
      operator = await revived(operator);
    }
    expect(await operator.stop()).toBe(0);
    return { states, writes };
  } finally {
    operator?.kill();
    await proxy.stop();
    await controlPlane.kubectl(['delete', 'namespace', namespace, '--wait=false']);
  }
}

/**
 * The end state once it is the expected one, or, of the undisturbed run, once the cluster's own
 * controllers are done; whatever it is, when that takes too long.
 */
async function settledState(
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
    const reference = await story('crash-reference', 0, 'cut-before');
    const points = Math.max(...reference.writes);
    console.log(
      `writes of ${acts.map(({ name }) => name).join(', ')}: ${reference.writes.join(', ')}`,
    );
    expect(points).toBeGreaterThan(5);
    const crashes = Array.from({ length: points }, (_, index) => index + 1).flatMap((at) =>
      (['cut-before', 'cut-after'] as const).map((fate) => ({ at, fate })),
    );
    const outcomes = await forEachBounded(crashes, 3, async ({ at, fate }) => {
      const { states } = await story(`crash-${at}-${fate}`, at, fate, reference.states);
      console.log(`write ${at} of ${points}, ${fate}: done`);
      return states;
    });
    assertAllDone(outcomes, 'stories with a crash');
    for (const outcome of outcomes) {
      const { at, fate } = outcome.item;
      const states = 'result' in outcome ? outcome.result : [];
      for (const [index, act] of acts.entries()) {
        expect(states[index], `${act.name}, write ${at}, ${fate}`).toEqual(reference.states[index]);
      }
    }
  });
});
