import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Approval } from '../../src/api/approval.ts';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { conditionOf } from '../../src/api/conditions.ts';
import { approvalGate, label } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import { resources } from '../../src/api/resources.ts';
import type { Workflow } from '../../src/api/workflow.ts';
import type { WorkflowRevision } from '../../src/api/workflow-revision.ts';
import { run as guardrails } from '../../src/cli/run.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { ApiProxy, type Cut, type ProxiedWrite } from '../fault/api-proxy.ts';
import { Api } from '../integration/admission/api.ts';
import { getObject, installGuardrails, kubectlOk, listObjects } from '../operator/cluster.ts';
import { endStateOf, isWhole } from '../operator/end-state.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const name = 'poster';
const { workflows, deployments, approvals, automationIdentities } = resources;
const args = ['--leader-elect=false', '--evidence=false'];

let controlPlane: ControlPlane;
let kubeconfigPath: string;
/** Who changes, and who decides; they may do all that people may: what is tried is the operator. */
let alice: Api;
let bob: Api;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  for (const user of ['alice', 'bob']) {
    const binding = ['create', 'clusterrolebinding', `test-${user}`, `--user=${user}`];
    await kubectlOk(controlPlane, [...binding, '--clusterrole=cluster-admin']);
  }
  const admin = Api.asAdmin(controlPlane);
  alice = admin.as('alice');
  bob = admin.as('bob');
});

afterAll(async () => {
  await Promise.all([alice?.close(), bob?.close()]);
  await controlPlane?.stop();
});

const owner = { team: 'payments', contact: 'p@example.com', escalation: '#p' };

async function provision(namespace: string): Promise<void> {
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
    },
  ]);
  const metadata = { namespace, name };
  const labels = { component: name };
  const template = {
    metadata: { labels },
    spec: {
      serviceAccountName: name,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', image: 'v1' }],
    },
  };
  const targets = [{ group: 'apps', kind: 'Deployment', name }];
  const answers = [
    await alice.create(workflows, {
      metadata,
      spec: { owner, risk: 'Medium', targets },
    } as KubeObject),
    await alice.create(automationIdentities, {
      metadata,
      spec: { purpose: 'posts', owner },
    } as KubeObject),
    await alice.create(deployments, {
      metadata,
      spec: { replicas: 1, selector: { matchLabels: labels }, template },
    } as KubeObject),
  ];
  expect(answers.map(({ message }) => message).join('')).toBe('');
}

async function deploy(namespace: string, image: string): Promise<void> {
  const patch = { spec: { template: { spec: { containers: [{ name: 'main', image }] } } } };
  expect((await alice.merge(deployments, { namespace, name }, patch)).message).toBe('');
}

async function decide(
  namespace: string,
  as: string,
  decision: Approval['spec']['decision'],
): Promise<void> {
  const workflow = await getObject<Workflow>(controlPlane, 'awf', name, namespace);
  const approval: Approval = {
    metadata: { namespace, name: as },
    spec: {
      workflow: name,
      digest: workflow?.status?.revision?.digest ?? '',
      decision,
      reason: 'a test',
    },
  };
  expect((await bob.create(approvals, approval)).message).toBe('');
}

async function rollback(kubeconfig: string, namespace: string): Promise<string> {
  const lines: string[] = [];
  const print = (line: string): void => {
    lines.push(line);
  };
  const access = [`--kubeconfig=${kubeconfig}`, '--as=alice', '-n', namespace];
  const argv = [...access, 'rollback', name, '--to', '1', '--timeout', '1'];
  await guardrails({ argv, stdout: print, stderr: print });
  return lines.join('\n');
}

interface PodView extends KubeObject {
  spec: { containers: { image: string }[]; schedulingGates?: { name: string }[] };
}

/** The image of each pod that isn't about to go, in parentheses where it waits; by name. */
async function podsOf(namespace: string): Promise<Map<string, string>> {
  const list = await listObjects<PodView>(controlPlane, 'pods', namespace);
  return new Map(
    list
      .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
      .map(({ metadata, spec }) => {
        const isGated = spec.schedulingGates?.some((gate) => gate.name === approvalGate) === true;
        const image = spec.containers[0]?.image ?? '';
        return [metadata.name, isGated ? `(${image})` : image];
      }),
  );
}

async function revisionsOf(namespace: string): Promise<WorkflowRevision[]> {
  const list = await listObjects<WorkflowRevision>(controlPlane, 'awr', namespace);
  return list.toSorted((a, b) => a.spec.revision - b.spec.revision);
}

/** What is recorded: number, image, what became of it, and who can't approve it. */
function historyOf(revisions: readonly WorkflowRevision[]): string[] {
  return revisions.map(({ spec, status }) => {
    const template = spec.parts.find((part) => part.name.startsWith('Deployment'))?.content;
    const image = /"image":"(\w+)"/.exec(template ?? '')?.[1] ?? '-';
    const approved = status?.approved?.by.join() ?? '-';
    const state = status?.active === true ? 'active' : 'idle';
    return `${spec.revision} ${image} ${state}, approved by ${approved}, not by ${spec.changers.join()}`;
  });
}

/** Everything that two stories have to agree on. */
async function stateOf(namespace: string): Promise<Record<string, unknown>> {
  const workflow = await getObject<Workflow>(controlPlane, 'awf', name, namespace);
  const decisions = await listObjects<Approval>(controlPlane, 'approvals', namespace);
  return {
    ...(await endStateOf(controlPlane, namespace)),
    images: [...(await podsOf(namespace)).values()].toSorted(),
    history: historyOf(await revisionsOf(namespace)),
    revision: workflow?.status?.revision,
    holds: workflow?.status?.holds?.map(({ reason }) => reason),
    decisions: decisions.map(({ metadata }) => metadata.name).toSorted(),
  };
}

const fates = ['cut-before', 'cut-after'] as const satisfies readonly Cut[];

interface Act {
  name: string;
  begin(namespace: string): Promise<unknown>;
  /** What the operator has to come to: the pods, the reasons of `Approved` and `Ready`, the history. */
  pods: string[];
  approved: string;
  ready: string;
  history: string[];
  /** The images that it may start. */
  starts: string[];
}

const byNobody = 'approved by -, not by alice';
const byBob = 'approved by bob, not by alice';

const acts: Act[] = [
  {
    name: 'provision',
    begin: provision,
    pods: ['(v1)'],
    approved: 'NotApproved',
    ready: 'NotApproved',
    history: [`1 v1 idle, ${byNobody}`],
    starts: [],
  },
  {
    name: 'approve',
    begin: (of) => decide(of, 'first', 'Approve'),
    pods: ['v1'],
    approved: 'Approved',
    ready: 'Provisioned',
    history: [`1 v1 active, ${byBob}`],
    starts: ['v1'],
  },
  {
    name: 'revise',
    begin: (of) => deploy(of, 'v2'),
    pods: ['(v2)', 'v1'],
    approved: 'NotApproved',
    ready: 'NotApproved',
    history: [`1 v1 active, ${byBob}`, `2 v2 idle, ${byNobody}`],
    starts: [],
  },
  {
    name: 'reject',
    begin: (of) => decide(of, 'rejection', 'Reject'),
    pods: ['(v2)', 'v1'],
    approved: 'Rejected',
    ready: 'NotApproved',
    history: [`1 v1 active, ${byBob}`, `2 v2 idle, ${byNobody}`],
    starts: [],
  },
  {
    name: 'approve what was rejected',
    begin: async (of) => {
      const rejection = await getObject<Approval>(controlPlane, 'awa', 'rejection', of);
      const at = Date.parse(rejection?.metadata.creationTimestamp ?? '');
      // Of decisions of one second, a rejection counts.
      await waitFor('the next second', () => Date.now() >= at + 1000);
      await decide(of, 'second', 'Approve');
    },
    pods: ['v2'],
    approved: 'Approved',
    ready: 'Provisioned',
    history: [`1 v1 idle, ${byBob}`, `2 v2 active, ${byBob}`],
    starts: ['v2'],
  },
  {
    name: 'roll back',
    begin: async (of) => {
      expect(await rollback(controlPlane.kubeconfigPath, of)).toContain('written back');
    },
    pods: ['v1'],
    approved: 'Approved',
    ready: 'Provisioned',
    history: [`1 v1 idle, ${byBob}`, `2 v2 idle, ${byBob}`, `3 v1 active, ${byBob}`],
    starts: ['v1'],
  },
];

/** How far the operator is, as far as an act says it. */
interface Progress extends Pick<Act, 'pods' | 'history'> {
  approved: string | undefined;
  /** Of the Workflow, and of its AutomationIdentity. */
  ready: (string | undefined)[];
  /** Both statuses speak of what stands, and of what is recorded. */
  isCurrent: boolean;
}

async function progressOf(namespace: string, pods: Iterable<string>): Promise<Progress> {
  const workflow = await getObject<Workflow>(controlPlane, 'awf', name, namespace);
  const identity = await getObject<AutomationIdentity>(controlPlane, 'aid', name, namespace);
  const revisions = await revisionsOf(namespace);
  const { conditions, revision } = workflow?.status ?? {};
  const active = revisions.find(({ status }) => status?.active === true);
  return {
    pods: [...pods].toSorted(),
    approved: conditionOf(conditions, 'Approved')?.reason,
    ready: [conditions, identity?.status?.conditions].map((of) => conditionOf(of, 'Ready')?.reason),
    history: historyOf(revisions),
    isCurrent:
      [workflow, identity].every(
        (one) => one?.status?.observedGeneration === one?.metadata.generation,
      ) &&
      revision?.digest === revisions.at(-1)?.spec.digest &&
      revision?.approved?.digest === active?.spec.digest,
  };
}

/** What comes of `acts`, whose writes all meet the same fate the first time that they are tried. */
interface Story {
  /** What stood after each. */
  states: Record<string, unknown>[];
  /** How often the operator was killed. */
  kills: number;
  /** `act: image` of each pod whose gate was taken away, as often as the API server said that it did. */
  lifted: string[];
  /** The same of each that it was asked for: whoever is killed meanwhile gets no answer. */
  asked: string[];
}

/** @param expected states that the story has to converge to */
async function story(
  namespace: string,
  fate: Cut | 'pass',
  expected: readonly Record<string, unknown>[] = [],
): Promise<Story> {
  let operator: OperatorProcess | undefined;
  let isCut = false;
  let kills = 0;
  let current = '';
  const proxy = new ApiProxy({
    controlPlane,
    kubeconfigPath,
    onCut: () => {
      isCut = true;
      kills += 1;
      operator?.kill();
    },
  });
  const through = await proxy.start();
  const seen = new Set<string>();
  const ofPods: { act: string; write: ProxiedWrite }[] = [];
  proxy.onWrite = (write) => {
    const { method, path } = write;
    // Of the cluster as a whole: what was reported once is the same in each story.
    if (!path.includes(`/${namespace}/`)) return 'pass';
    if (method === 'PATCH' && path.includes('/pods/')) ofPods.push({ act: current, write });
    const key = `${current} ${method} ${path}`;
    if (fate === 'pass' || current === 'provision' || isCut || seen.has(key)) return 'pass';
    seen.add(key);
    return fate;
  };
  const start = async (): Promise<void> => {
    await operator?.exited;
    isCut = false;
    // Its first writes may be cut before it is ready.
    operator = await startOperator({ kubeconfigPath: through, args, waitUntilReady: false });
  };
  const images = new Map<string, string>();
  const states: Record<string, unknown>[] = [];
  try {
    for (const [index, act] of acts.entries()) {
      current = act.name;
      await act.begin(namespace);
      // What stands already is one revision; what comes bit by bit may be several.
      if (index === 0) await start();
      const { pods, approved, ready, history } = act;
      const awaited = { pods, approved, ready: [ready, ready], history, isCurrent: true };
      let isDone = false;
      await waitFor(
        `${act.name} to be done with`,
        async () => {
          if (isCut) await start();
          const seenPods = await podsOf(namespace);
          for (const [pod, image] of seenPods) images.set(pod, image.replaceAll(/[()]/g, ''));
          const progress = await progressOf(namespace, seenPods.values());
          isDone = isDeepStrictEqual(progress, awaited);
          if (!isDone) throw new Error(JSON.stringify(progress));
          if (isCut) return false;
          const state = await stateOf(namespace);
          const reference = expected[index];
          return reference === undefined ? isWhole(state) : isDeepStrictEqual(state, reference);
        },
        { timeoutMs: 300_000, intervalMs: 100 },
      ).catch((error: unknown) => {
        // What differs from what is expected is said by who compares.
        if (!isDone || expected[index] === undefined) throw error;
      });
      states.push(await stateOf(namespace));
    }
    const asked = ofPods.map(({ act, write }) => ({
      isDone: write.status === 200,
      what: `${act}: ${images.get(write.path.split('/').at(-1) ?? '')}`,
    }));
    const lifted = asked.filter(({ isDone }) => isDone).map(({ what }) => what);
    return { states, kills, lifted, asked: asked.map(({ what }) => what) };
  } finally {
    operator?.kill();
    await operator?.exited;
    await proxy.stop();
  }
}

describe('SIGKILL before and after each write of approve, revise, reject and roll back', () => {
  it('ends as an undisturbed run does, and lifts each gate once, for what is approved', async () => {
    const may = acts.flatMap(({ name: act, starts }) => starts.map((image) => `${act}: ${image}`));
    const reference = await story('undisturbed', 'pass');
    expect(reference.lifted).toEqual(may);
    // One after the other: an operator would do what another one didn't come to.
    for (const fate of fates) {
      const { states, kills, lifted, asked } = await story(fate, fate, reference.states);
      console.log(`${fate}: killed ${kills} times`);
      for (const [index, act] of acts.entries()) {
        expect(states[index], `${act.name}, ${fate}`).toEqual(reference.states[index]);
      }
      // That each is lifted, the pods say.
      expect(lifted, fate).toEqual([...new Set(lifted)]);
      expect(new Set(asked), fate).toEqual(new Set(may));
      // A status, a revision and a gate at least, of most of them.
      expect(kills).toBeGreaterThan(2 * acts.length);
    }
  });
});
