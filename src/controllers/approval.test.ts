import { beforeEach, describe, expect, it } from 'vitest';
import { approvalRequired } from '../admission/index.ts';
import type { Approval } from '../api/approval.ts';
import { policyInForceName } from '../api/guardrail-policy.ts';
import { timestamp } from '../api/conditions.ts';
import { annotation, approvalGate, label } from '../api/names.ts';
import type { KubeObject, Pod } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import { projectWorkload, type Workload } from '../api/workload.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { podIdentity } from '../guardrails/kill-switch/pods.ts';
import { silentLogger } from '../observability/logger.ts';
import type { JsonPatchOperation, ObjectKey } from '../runtime/client.ts';
import { ApiError } from '../runtime/errors.ts';
import type { ReconcileResult } from '../runtime/controller.ts';
import { ApprovalController } from './approval.ts';
import { PolicyInForce } from './policy-in-force.ts';
import {
  mayCount,
  projectApproval,
  WorkflowApprovals,
  workflowOfApproval,
  workflowOfRevision,
} from './workflow-approval.ts';

const namespace = 'finance';
const name = 'poster';
const key = `${namespace}/${name}`;
const { workflows, pods, approvals, killSwitches, namespaces, automationIdentities } = resources;
const { guardrailPolicies } = resources;
/** What the pods of the target run. */
const code = 'c'.repeat(64);

/** Knows of JSON Patch what takes a gate away. */
class GateClient extends MemoryClient {
  /** Names of pods whose gate was taken. */
  readonly lifted: string[] = [];
  /** Called before and after a gate is taken. */
  before: () => void = () => undefined;
  after: () => void = () => undefined;

  override async jsonPatch<T extends KubeObject>(
    _resource: Resource<T>,
    at: ObjectKey,
    patch: JsonPatchOperation[],
  ): Promise<T> {
    this.before();
    const pod = this.find(pods, at);
    const [ofUid, ofGate] = patch;
    const index = Number(ofGate?.path.split('/').at(-1));
    const gates = pod?.spec?.schedulingGates ?? [];
    if (pod?.metadata.uid !== ofUid?.value || gates[index]?.name !== approvalGate) {
      throw new ApiError('test failed', { status: 422, reason: 'Invalid' });
    }
    const { codeDigest: _, ...rest } = pod ?? { metadata: { name: '' } };
    const schedulingGates = gates.filter((gate) => gate.name !== approvalGate);
    const stored = this.put(pods, { ...rest, spec: { ...pod?.spec, schedulingGates } });
    this.lifted.push(at.name);
    this.after();
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it is asked for pods alone
    return stored as KubeObject as T;
  }
}

let now: number;
let client: GateClient;
let events: string[];
let state: WorkflowApprovals;
let controller: ApprovalController;
/** Those that run as the Workflow. */
let jobs: Workload[];
/** Decisions that the cache has, where it lags. */
let cached: (() => Approval[]) | undefined;

beforeEach(() => {
  now = Date.UTC(2030, 0, 1);
  client = new GateClient(() => now);
  events = [];
  jobs = [];
  cached = undefined;
  const upToDate = client.storeOf(approvals, { workflow: workflowOfApproval });
  const byWorkflow = {
    byIndex: (index: string, value: string) => cached?.() ?? upToDate.byIndex(index, value),
  };
  const target = {
    kind: 'Deployment',
    metadata: { namespace, name, uid: 'd' },
    codeDigest: code,
    serviceAccountName: name,
  };
  state = new WorkflowApprovals({
    policy: new PolicyInForce({
      guardrailPolicies: client.storeOf(guardrailPolicies),
      namespaces: client.storeOf(namespaces),
      clock: () => now,
    }),
    workflows: client.storeOf(workflows),
    identities: client.storeOf(automationIdentities),
    approvals: byWorkflow,
    revisions: client.storeOf(resources.workflowRevisions, { workflow: workflowOfRevision }),
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as much as is looked at
    workloads: { list: () => [], byIndex: () => [target as Workload] },
    clock: () => now,
  });
  controller = new ApprovalController({
    client,
    events: {
      normal: ({ metadata }, reason) => events.push(`${metadata.name} ${reason}`),
      warning: ({ metadata }, reason) => events.push(`${metadata.name} ${reason}`),
    },
    state,
    workflows: client.storeOf(workflows),
    namespaces: client.storeOf(namespaces),
    killSwitches: client.storeOf(killSwitches),
    clusterKillSwitches: client.storeOf(resources.clusterKillSwitches),
    operatorNamespace: 'automation-guardrails',
    approvals: byWorkflow,
    pods: client.storeOf(pods, { identity: (pod) => [podIdentity(pod)] }),
    workloads: { byIndex: () => jobs },
    clock: () => now,
  });
  client.put(namespaces, {
    metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
  });
  client.put(workflows, workflow());
});

function workflow(spec: Partial<Workflow['spec']> = {}): Workflow {
  return {
    metadata: {
      namespace,
      name,
      labels: { [label.approval]: approvalRequired },
      annotations: { [annotation.changedBy]: 'alice' },
    },
    spec: {
      risk: 'Medium',
      targets: [{ group: 'apps', kind: 'Deployment', name }],
      ...spec,
    },
  };
}

function wait(podName: string, codeDigest = code): void {
  const waiting: Pod = {
    metadata: { namespace, name: podName },
    spec: {
      serviceAccountName: name,
      schedulingGates: [{ name: 'example.com/quota' }, { name: approvalGate }],
    },
    codeDigest,
  };
  client.put(pods, waiting);
}

let made = 0;

function approve(fields: Partial<Approval['spec']> = {}, createdAt = now): void {
  const digest = state.of(key)?.revision?.digest ?? '';
  client.put(approvals, {
    metadata: { namespace, name: `a${made++}`, creationTimestamp: timestamp(createdAt) },
    spec: { workflow: name, digest, decision: 'Approve', reason: 'x', approver: 'bob', ...fields },
  });
}

function reconcile(): Promise<ReconcileResult> {
  return controller.reconcile(key, {
    signal: new AbortController().signal,
    correlationId: '1',
    log: silentLogger(),
  });
}

describe('decisions that count no more', () => {
  const total = 10_000;
  const kept = 20;

  beforeEach(() => {
    for (let index = 0; index < total; index++) {
      const digest = index.toString(16).padStart(64, 'a');
      client.put(approvals, {
        metadata: { namespace, name: `many-${index}`, uid: `many-${index}` },
        spec: { workflow: name, digest, decision: 'Approve', reason: 'x', approver: 'bob' },
      });
    }
    approve();
  });

  const untilDone = async (): Promise<number> => {
    let looks = 1;
    while (looks < 30 && (await reconcile()).requeueAfterMs === 0) looks++;
    return looks;
  };
  const deletions = (): number => client.writes.filter(({ verb }) => verb === 'delete').length;

  it('go by the ten thousand in few looks, each by one request', async () => {
    expect(await untilDone()).toBeLessThanOrEqual(20);
    expect(deletions()).toBe(total - kept);
    expect(client.all(approvals)).toHaveLength(kept + 1);
  });

  it('are asked for once, however late the cache hears of it', async () => {
    const before = client.all(approvals);
    cached = () => before;
    expect(await untilDone()).toBeLessThanOrEqual(20);
    expect(deletions()).toBe(total - kept);
    await reconcile();
    expect(deletions()).toBe(total - kept);
  });

  it('are asked for again when one was not deleted', async () => {
    client.beforeWrite = ({ name: of }) => {
      if (of === 'many-0') throw new ApiError('no', { status: 500, reason: 'InternalError' });
    };
    await expect(untilDone()).rejects.toThrow('no');
    client.beforeWrite = () => undefined;
    await untilDone();
    expect(client.all(approvals)).toHaveLength(kept + 1);
  });
});

describe('a decision', () => {
  const of = (digest: string, run?: Approval['spec']['run']): Approval => ({
    metadata: { namespace, name: 'a' },
    spec: { workflow: name, digest, decision: 'Approve', reason: 'x', ...(run && { run }) },
  });
  const revision = { digest: 'now', parts: [], approved: { digest: 'last', parts: [] } };
  const standing: Workflow = { ...workflow(), status: { revision } };

  it('may count of what stands, of what was approved last, of a run, or as long as nobody knows', () => {
    expect(mayCount(of('now'), standing)).toBe(true);
    expect(mayCount(of('last'), standing)).toBe(true);
    expect(mayCount(of('old', { kind: 'Job', name: 'j', uid: 'u' }), standing)).toBe(true);
    expect(mayCount(of('old'), workflow())).toBe(true);
    expect(mayCount(of('old'), standing)).toBe(false);
    expect(mayCount(of('now'), undefined)).toBe(false);
  });

  it('is cached without annotations, which may be as long as its author likes', () => {
    const { metadata, spec } = of('now');
    const annotations = { long: 'x'.repeat(100_000) };
    const labels = { short: 'y' };
    const stored = {
      metadata: { ...metadata, uid: 'u', generation: 1, annotations, labels },
      spec,
    };
    expect(projectApproval(stored)).toEqual({
      metadata: { ...metadata, uid: 'u', generation: 1 },
      spec,
    });
  });
});

describe('pods that wait', () => {
  it('start when what they run is approved, once, and no others', async () => {
    wait('own');
    wait('other', 'd'.repeat(64));
    expect(await reconcile()).toEqual({});
    expect(client.lifted).toEqual([]);
    approve();
    await reconcile();
    expect(client.lifted).toEqual(['own']);
    expect(client.find(pods, { namespace, name: 'own' })?.spec?.schedulingGates).toEqual([
      { name: 'example.com/quota' },
    ]);
    await reconcile();
    expect(client.lifted).toEqual(['own']);
    expect(events.toSorted()).toEqual(['other PodNotApproved', 'poster PodsStarted']);
  });

  it('go on waiting when it has changed since, or was rejected', async () => {
    approve();
    client.put(workflows, workflow({ description: 'else' }));
    wait('own');
    await reconcile();
    approve();
    approve({ decision: 'Reject', approver: 'carol' });
    await reconcile();
    expect(client.lifted).toEqual([]);
  });

  it('start of what was approved last, while a change waits', async () => {
    approve();
    const { revision } = state.of(key) ?? {};
    const approved = { digest: revision?.digest ?? '', parts: [...(revision?.parts ?? [])] };
    client.put(workflows, {
      ...workflow({ description: 'else' }),
      status: { revision: { digest: 'next', approved } },
    });
    wait('own');
    wait('new', 'e'.repeat(64));
    await reconcile();
    expect(client.lifted).toEqual(['own']);
  });

  it('start by whoever lowers the need, and not while a kill switch holds', async () => {
    wait('own', 'd'.repeat(64));
    client.put(workflows, workflow({ risk: 'Low' }));
    client.put(killSwitches, {
      metadata: { namespace, name },
      spec: { workflow: name, reason: 'x' },
    });
    expect(await reconcile()).toEqual({ requeueAfterMs: 5_000 });
    expect(client.lifted).toEqual([]);
    client.remove(killSwitches, { namespace, name });
    await reconcile();
    expect(client.lifted).toEqual(['own']);
  });

  it.each(['before', 'after'] as const)(
    'start once each, also when the operator dies %s it has started one',
    async (when) => {
      for (const podName of ['a', 'b', 'c']) wait(podName);
      approve();
      let isDying = true;
      client[when] = () => {
        if (isDying) throw new Error('killed');
      };
      await expect(reconcile()).rejects.toThrow();
      isDying = false;
      await reconcile();
      await reconcile();
      expect(client.lifted.toSorted()).toEqual(['a', 'b', 'c']);
    },
  );

  it('are looked at again when an approval ends, within what a timer can hold', async () => {
    approve({ expires: timestamp(now + 60_000) });
    expect(await reconcile()).toEqual({ requeueAfterMs: 60_000 });
    approve({ expires: timestamp(now + 90 * 86_400_000) }, now + 1000);
    expect(await reconcile()).toEqual({ requeueAfterMs: 3_600_000 });
  });
});

describe('a run that is asked for by itself', () => {
  const perRun = (): void => {
    client.put(workflows, workflow({ approval: { per: 'Run', timeout: '1h' } }));
    approve();
  };
  const job = (uid: string, fields: object = {}, codeDigest = code): void => {
    const annotations = { [annotation.changedBy]: 'erin' };
    const metadata = { namespace, name: uid, uid, annotations };
    const object = { metadata, ...fields };
    jobs = [
      ...jobs.filter((one) => one.metadata.uid !== uid),
      { ...projectWorkload('Job', object), codeDigest },
    ];
    client.put(resources.jobs, object);
  };
  const waits = (podName: string, uid: string): void => {
    wait(podName);
    const pod = client.find(pods, { namespace, name: podName });
    const owner = { apiVersion: 'batch/v1', kind: 'Job', name: uid, uid, controller: true };
    client.put(pods, {
      ...pod,
      metadata: {
        ...pod?.metadata,
        name: podName,
        namespace,
        creationTimestamp: timestamp(now),
        ownerReferences: [owner],
      },
    });
  };
  const ofRun = (uid: string) => ({ run: { kind: 'Job' as const, name: uid, uid } });

  it('starts when this one is approved, and its retries with it', async () => {
    perRun();
    for (const uid of ['a', 'b']) job(uid);
    waits('a-1', 'a');
    waits('b-1', 'b');
    expect(await reconcile()).toEqual({ requeueAfterMs: 3_600_000 });
    await reconcile();
    expect(client.lifted).toEqual([]);
    expect(events).toEqual(['poster RunAwaitsApproval', 'poster RunAwaitsApproval']);
    approve({ ...ofRun('a'), approver: 'erin' });
    await reconcile();
    expect(client.lifted).toEqual([]);
    approve(ofRun('a'));
    await reconcile();
    expect(client.lifted).toEqual(['a-1']);
    waits('a-2', 'a');
    await reconcile();
    expect(client.lifted).toEqual(['a-1', 'a-2']);
  });

  it('starts by the approvals of the groups that the policy names, and by no others', async () => {
    const approvers = [{ risk: 'Medium' as const, groups: ['leads'] }];
    const spec = { tiers: [{ name: 'prod' as const, approvers }] };
    client.put(guardrailPolicies, { metadata: { name: policyInForceName }, spec });
    client.put(workflows, workflow({ approval: { per: 'Run', timeout: '1h' } }));
    const lead = { approver: 'carol', approverGroups: ['leads'] };
    approve(lead);
    job('a');
    waits('a-1', 'a');
    approve(ofRun('a'));
    await reconcile();
    expect(client.lifted).toEqual([]);
    approve({ ...ofRun('a'), ...lead });
    await reconcile();
    expect(client.lifted).toEqual(['a-1']);
  });

  it('starts no pod that runs another approved template than its Job', async () => {
    perRun();
    job('a', {}, 'd'.repeat(64));
    waits('a-1', 'a');
    approve(ofRun('a'));
    await reconcile();
    await reconcile();
    expect(client.lifted).toEqual([]);
    expect(events).toEqual(['a-1 PodNotApproved']);
  });

  it('does not start where what it runs is not approved', async () => {
    perRun();
    job('a');
    waits('a-1', 'a');
    approve(ofRun('a'));
    client.put(
      workflows,
      workflow({ approval: { per: 'Run', timeout: '1h' }, description: 'else' }),
    );
    await reconcile();
    expect(client.lifted).toEqual([]);
  });

  it.each(['in time', 'at all'])('is suspended where it is not approved %s, once', async (when) => {
    perRun();
    job('a');
    waits('a-1', 'a');
    if (when === 'in time') now += 3_600_000;
    else approve({ ...ofRun('a'), decision: 'Reject', approver: 'carol' });
    await reconcile();
    expect(client.find(resources.jobs, { namespace, name: 'a' })).toMatchObject({
      metadata: { annotations: { [annotation.runRejected]: expect.stringContaining('job/a') } },
      spec: { suspend: true },
    });
    const reason = when === 'in time' ? 'JobApprovalTimedOut' : 'RunRejected';
    expect(events).toEqual([`poster ${reason}`]);
    job('a', { spec: { suspend: true } });
    client.writes.length = 0;
    await reconcile();
    expect(client.writes).toEqual([]);
    expect(client.lifted).toEqual([]);
  });

  it('is deleted where it is a pod alone', async () => {
    perRun();
    wait('alone');
    now += 3_600_000;
    await reconcile();
    expect(client.lifted).toEqual([]);
    expect(client.find(pods, { namespace, name: 'alone' })).toBeUndefined();
  });
});

describe('what stands', () => {
  it('is left alone when nothing changed', async () => {
    approve();
    await reconcile();
    expect(client.writes).toEqual([]);
  });

  it('gets the mark that admission was not there to set', async () => {
    const { metadata, spec } = workflow();
    client.put(workflows, { metadata: { ...metadata, labels: {} }, spec });
    await reconcile();
    expect(client.find(workflows, { namespace, name })?.metadata.labels).toEqual({
      [label.approval]: approvalRequired,
    });
  });

  it('loses the oldest of the decisions that count no more, five hundred at a time', async () => {
    for (let index = 0; index < 530; index++)
      approve({ digest: '0'.repeat(64) }, now - index * 1000);
    approve();
    expect(await reconcile()).toEqual({ requeueAfterMs: 0 });
    await reconcile();
    expect(client.all(approvals)).toHaveLength(21);
    client.remove(workflows, { namespace, name });
    await reconcile();
    expect(client.all(approvals)).toHaveLength(20);
  });

  it('is bounded and clear with ten thousand decisions, of one person or of as many', async () => {
    const digest = state.of(key)?.revision?.digest ?? '';
    const approveAs = (index: number, approver: string): void => {
      client.put(approvals, {
        metadata: { namespace, name: `m${approver}${index}`, creationTimestamp: timestamp(now) },
        spec: { workflow: name, digest, decision: 'Approve', reason: 'x', approver },
      });
    };
    const many = Array.from({ length: 10_000 }, (_, index) => index);
    for (const index of many) approveAs(index, 'bob');
    wait('own');
    const { message } = state.of(key)?.finding ?? {};
    expect(message).toBe('What runs is approved by bob.');
    expect(await reconcile()).toEqual({ requeueAfterMs: 0 });
    expect(client.lifted).toEqual(['own']);
    expect(client.all(approvals)).toHaveLength(9_500);
    for (const index of many) approveAs(index, `user${index}`);
    expect(state.of(key)?.finding.message.length).toBeLessThan(200);
  });
});
