import { credentialFacts } from './credential-facts.ts';
import { describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { annotation, label } from '../api/names.ts';
import type { Condition, Pod } from '../api/objects.ts';
import type { WorkflowRevision } from '../api/workflow-revision.ts';
import { projectWorkload } from '../api/workload.ts';
import { projectPod } from '../guardrails/kill-switch/pods.ts';
import {
  approvalFact,
  decisionFacts,
  findingFacts,
  reviewFact,
  specFacts,
  specGone,
} from './facts.ts';
import { killFacts, killGone, killsFacts } from './kill-facts.ts';
import { permissionFacts } from './right-facts.ts';
import { revisionFacts } from './revision-facts.ts';
import { allRuns, hasNews, runFacts, runGone, type Run, type RunContext } from './run-facts.ts';
import { toldFact } from './operator-facts.ts';
import { pendingRecords, type ChainState, type Observation } from './observation.ts';

const now = Date.UTC(2026, 0, 1);

/** What the log would record, one observation after another. */
async function recordsOf(
  state: ChainState,
  ...observations: Observation[]
): Promise<{ action: string; by: string }[]> {
  const records = await pendingRecords(state, observations, new Map(), now);
  return records.map(({ draft }) => ({
    action: draft.action,
    by: `${draft.actor.name} ${draft.actor.basis}`,
  }));
}

async function actionsOf(state: ChainState, ...observations: Observation[]): Promise<string[]> {
  return (await recordsOf(state, ...observations)).map(({ action }) => action);
}

function condition(type: string, status: Condition['status'], at = 1, message = 'm'): Condition {
  return {
    type,
    status,
    reason: 'Because',
    message,
    lastTransitionTime: `2026-01-01T00:00:0${at}Z`,
  };
}

const killSwitch: KillSwitch = {
  metadata: { name: 'invoice', namespace: 'finance', uid: 'kkkkkkkk-1', resourceVersion: '7' },
  spec: { workflow: 'invoice', reason: 'posts twice', engagedBy: 'alice' },
};

describe('decisions', () => {
  const approval = {
    metadata: { name: 'yes', namespace: 'finance', uid: 'aaaaaaaa-1' },
    spec: {
      workflow: 'invoice',
      digest: 'd'.repeat(64),
      decision: 'Approve' as const,
      reason: 'tested',
      approver: 'alice',
    },
  };
  const review = {
    metadata: { name: 'enough', namespace: 'finance', uid: 'rrrrrrrr-1' },
    spec: {
      identity: 'invoice',
      digest: `sha256:${'d'.repeat(64)}`,
      decision: 'Keep' as const,
      reason: 'needed',
    },
  };

  it('are told once each, by who is stamped, and when they are gone', async () => {
    const state: ChainState = new Map();
    const facts = [approvalFact(approval, {}), reviewFact(review, {})];
    expect(await recordsOf(state, decisionFacts(facts, {}), decisionFacts(facts, {}))).toEqual([
      { action: 'Approved', by: 'alice authenticated' },
      { action: 'AccessReviewed', by: 'unknown unknown' },
    ]);
    expect(await recordsOf(state, decisionFacts(facts.slice(1), {}))).toEqual([
      { action: 'DecisionGone', by: 'unknown unknown' },
    ]);
    expect(await actionsOf(state, decisionFacts([], {}, facts[1]?.subject))).toEqual([
      'DecisionGone',
    ]);
  });

  it('of which one has the name of another are another', async () => {
    const again = { ...approval, metadata: { ...approval.metadata, uid: 'bbbbbbbb-1' } };
    const state: ChainState = new Map();
    await recordsOf(state, decisionFacts([approvalFact(approval, {})], {}));
    expect(await actionsOf(state, decisionFacts([approvalFact(again, {})], {}))).toEqual([
      'Approved',
      'DecisionGone',
    ]);
  });
});

describe('a kill', () => {
  const fenced: KillSwitch = {
    ...killSwitch,
    status: { conditions: [condition('Fenced', 'True')] },
  };
  const asked: KillSwitch = {
    ...fenced,
    metadata: {
      ...fenced.metadata,
      annotations: { [annotation.release]: 'fixed', [annotation.releasedBy]: 'bob' },
    },
  };
  const lifted: KillSwitch = {
    ...asked,
    metadata: { ...asked.metadata, labels: { [label.releasing]: 'true' } },
  };

  it('is told from the request to the end, each step once, by whom it was', async () => {
    const state: ChainState = new Map();
    const all = [killSwitch, fenced, fenced, asked, lifted].map((one) => killFacts(one, {}));
    expect(await recordsOf(state, ...all, killGone(lifted, {}))).toEqual([
      { action: 'KillEngaged', by: 'alice authenticated' },
      { action: 'KillFenced', by: 'automation-guardrails operator' },
      { action: 'ReleaseRequested', by: 'bob authenticated' },
      { action: 'KillLifted', by: 'automation-guardrails operator' },
      { action: 'KillReleased', by: 'automation-guardrails operator' },
    ]);
    expect(state.size).toBe(0);
  });

  it('is told whole by its last state alone, and its end by what is missing', async () => {
    const state: ChainState = new Map();
    expect(await actionsOf(state, killsFacts([lifted], {}))).toEqual([
      'KillEngaged',
      'KillFenced',
      'ReleaseRequested',
      'KillLifted',
    ]);
    expect(await actionsOf(state, killsFacts([], {}))).toEqual(['KillReleased']);
    expect(await actionsOf(state, killsFacts([], {}))).toEqual([]);
  });

  it('of many namespaces says which', async () => {
    const all: ClusterKillSwitch = {
      metadata: { name: 'incident-7', uid: 'c' },
      spec: { environments: ['prod'], reason: 'a key leaked', engagedBy: 'carol' },
    };
    const [engaged] = await pendingRecords(new Map(), [killFacts(all, {})], new Map(), now);
    expect(engaged?.draft).toMatchObject({
      action: 'KillEngaged',
      actor: { name: 'carol', basis: 'authenticated' },
      objects: [{ kind: 'ClusterKillSwitch' }],
      details: { scope: '{"environments":["prod"]}' },
    });
  });

  it('that vanishes without a release says so', async () => {
    const state: ChainState = new Map();
    await actionsOf(state, killFacts(fenced, {}));
    expect(await actionsOf(state, killGone(fenced, {}))).toEqual(['KillGone']);
  });

  it('tells a rung that is lost, and a release that is withdrawn', async () => {
    const state: ChainState = new Map();
    await actionsOf(state, killFacts(asked, {}));
    const open = { ...killSwitch, status: { conditions: [condition('Fenced', 'False', 2)] } };
    expect(await actionsOf(state, killFacts(open, {}))).toEqual([
      'KillFencedLost',
      'ReleaseWithdrawn',
    ]);
  });
});

describe('what is found', () => {
  const workflow = (...conditions: Condition[]): Observation =>
    findingFacts('Workflow', { metadata: { name: 'invoice' }, status: { conditions } }, {});

  it('is told when it begins, when it is another, and when it ends', async () => {
    const state: ChainState = new Map();
    expect(
      await actionsOf(
        state,
        workflow(condition('Held', 'False')),
        workflow(condition('Held', 'True', 2)),
        workflow(condition('Held', 'True', 2)),
        workflow(condition('Held', 'True', 2, 'something else')),
        workflow(condition('Held', 'False', 3)),
      ),
    ).toEqual(['Held', 'Held', 'NoLongerHeld']);
  });
});

it('who knows of a hold is told once, and again of the next hold', async () => {
  const known = (since: string, time: string): Observation =>
    findingFacts(
      'Workflow',
      {
        metadata: { name: 'invoice' },
        status: {
          holds: [
            {
              reason: 'OwnerMissing',
              message: '',
              since,
              acknowledged: { by: 'eve', reason: 'asked', time },
            },
          ],
        },
      },
      {},
    );
  const first = known('2026-01-01T00:00:00Z', '2026-01-01T01:00:00Z');
  const next = known('2026-01-02T00:00:00Z', '2026-01-02T01:00:00Z');
  expect(await actionsOf(new Map(), first, first, next)).toEqual([
    'HoldAcknowledged',
    'HoldAcknowledged',
  ]);
  expect(await first.facts[0]?.draft(undefined)).toMatchObject({
    actor: { name: 'eve', basis: 'authenticated' },
    reason: 'OwnerMissing',
    message: 'asked',
  });
});

it('who ended the hold of a limit is told, and that nobody had to', async () => {
  const breach = (status: Condition['status'], at: number, by?: string): Observation =>
    findingFacts(
      'Workflow',
      {
        metadata: { name: 'invoice' },
        status: {
          conditions: [condition('LimitBreached', status, at)],
          ...(by !== undefined && {
            runs: { acknowledged: { by, reason: 'repaired', time: '2026-01-01T01:00:00Z' } },
          }),
        },
      },
      {},
    );
  const state: ChainState = new Map();
  const all = [
    breach('True', 1),
    breach('False', 2, 'dave'),
    breach('True', 3),
    breach('False', 4),
  ];
  const records = await pendingRecords(state, all, new Map(), now);
  expect(records.map(({ draft: { action, actor, message } }) => [action, actor, message])).toEqual([
    ['LimitBreached', { name: 'automation-guardrails', basis: 'operator' }, 'm'],
    ['LimitHoldEnded', { name: 'dave', basis: 'authenticated' }, 'repaired'],
    ['LimitBreached', { name: 'automation-guardrails', basis: 'operator' }, 'm'],
    ['LimitHoldEnded', { name: 'automation-guardrails', basis: 'operator' }, 'm'],
  ]);
});

describe('what is asked for', () => {
  const author = (): Promise<{ name: string; basis: 'asserted' }> =>
    Promise.resolve({ name: 'kubectl', basis: 'asserted' });
  const at = (generation: number, uid = 'u'): Observation =>
    specFacts(
      'Workflow',
      { metadata: { name: 'invoice', uid, generation }, spec: { description: `${generation}` } },
      {},
      author,
    );

  it('is told when it is made, changed, deleted, and made anew', async () => {
    const state: ChainState = new Map();
    expect(
      await actionsOf(state, at(1), at(1), at(2), specGone('Workflow', {}), at(1, 'v')),
    ).toEqual(['WorkflowCreated', 'WorkflowChanged', 'WorkflowDeleted', 'WorkflowCreated']);
  });
});

describe('credentials', () => {
  it('are told by their times, and when they are withdrawn', async () => {
    const identity = (status: AutomationIdentity['status']): AutomationIdentity => ({
      metadata: { name: 'invoice', namespace: 'finance' },
      spec: {},
      ...(status !== undefined && { status }),
    });
    const secret = (lastRotationTime: string): AutomationIdentity =>
      identity({ secrets: [{ name: 'db', secretName: 'aid.invoice.db', lastRotationTime }] });
    const token = (issuedAt?: string): AutomationIdentity =>
      identity({
        tokens: [
          {
            name: 'ci',
            secretName: 'aid.invoice.ci',
            audience: 'ci',
            ...(issuedAt !== undefined && { issuedAt }),
          },
        ],
      });
    const state: ChainState = new Map();
    const told = (...of: AutomationIdentity[]): Promise<string[]> =>
      actionsOf(state, ...of.flatMap((one) => credentialFacts(one, {})));
    expect(await told(secret('t1'), secret('t1'), secret('t2'), identity(undefined))).toEqual([
      'SecretIssued',
      'SecretRotated',
      'SecretWithdrawn',
    ]);
    const copied: AutomationIdentity = identity({
      secrets: [{ name: 'db', secretName: 'aid.invoice.db', store: 'Vault' }],
    });
    expect(await told(copied, copied, identity(undefined))).toEqual([
      'SecretCopied',
      'CopyWithdrawn',
    ]);
    expect(await told(token('t1'), token('t2'), token())).toEqual([
      'TokenIssued',
      'TokenRenewed',
      'TokenRevoked',
    ]);
  });
});

describe('permissions', () => {
  it('are told when they are given, changed and taken', async () => {
    const role = (verb: string) => ({ metadata: { name: 'invoice' }, rules: [{ verbs: [verb] }] });
    const binding = {
      metadata: { name: 'invoice' },
      roleRef: { apiGroup: '', kind: 'Role', name: 'invoice' },
    };
    const state: ChainState = new Map();
    expect(
      await actionsOf(
        state,
        permissionFacts(role('get'), undefined, {}),
        permissionFacts(role('get'), binding, {}),
        permissionFacts(role('list'), binding, {}),
        permissionFacts(role('list'), undefined, {}),
      ),
    ).toEqual(['PermissionsGranted', 'PermissionsChanged', 'PermissionsRevoked']);
  });
});

describe('a run', () => {
  const jobOf = (spec: object, status: object, annotations: object = {}): Run =>
    projectWorkload('Job', {
      metadata: {
        name: 'import-1',
        namespace: 'finance',
        uid: 'j1',
        annotations,
        ownerReferences: [
          { apiVersion: 'batch/v1', kind: 'CronJob', name: 'import', uid: 'c1', controller: true },
        ],
      },
      spec,
      status,
    } as never);
  const startTime = '2026-01-01T09:50:00Z';
  const job = (type: string, reason: string): Run =>
    jobOf(
      {},
      {
        startTime,
        conditions: [{ type, status: 'True', reason, lastTransitionTime: '2026-01-01T10:20:30Z' }],
      },
    );
  const context = (init: Partial<RunContext> = {}): RunContext => ({
    pods: () => [],
    place: {},
    isPerRun: false,
    isRejected: () => false,
    ...init,
  });
  const pod = (exitCode: number): Pod =>
    projectPod({
      metadata: {
        name: 'import-1-x',
        namespace: 'finance',
        uid: 'p1',
        ownerReferences: [
          { apiVersion: 'batch/v1', kind: 'Job', name: 'import-1', uid: 'j1', controller: true },
        ],
      },
      status: {
        phase: 'Failed',
        containerStatuses: [
          {
            state: {
              terminated: { exitCode, reason: 'OOMKilled', finishedAt: '2026-01-01T10:20:29Z' },
            },
          },
        ],
      },
    } as never);

  it('that succeeds is counted in its hour, and in that in which it started', () => {
    expect(runFacts(job('Complete', 'CompletionsReached'), context())).toMatchObject([
      { state: startTime, foldInto: '2026-01-01T09:00:00Z' },
      { state: '2026-01-01T10:20:30Z', foldInto: '2026-01-01T10:00:00Z' },
    ]);
  });

  it('is told by itself where each is approved by itself', async () => {
    const run = job('Complete', 'CompletionsReached');
    const records = await pendingRecords(
      new Map(),
      allRuns([run], context({ isPerRun: true })),
      new Map(),
      now,
    );
    expect(records.map(({ draft }) => draft)).toMatchObject([
      { action: 'RunStarted', happened: startTime, objects: [{ kind: 'Job', uid: 'j1' }] },
      { action: 'RunSucceeded', details: { cronJob: 'import', started: startTime } },
    ]);
  });

  it('is told from its start to its end, once, whatever else changes of it', async () => {
    const state: ChainState = new Map();
    const each = context({ isPerRun: true });
    const [waiting, running] = [jobOf({}, {}), jobOf({}, { startTime })];
    const ended = job('Failed', 'BackoffLimitExceeded');
    expect(hasNews(waiting, undefined)).toBe(false);
    expect(hasNews(running, waiting)).toBe(true);
    expect(hasNews(running, running)).toBe(false);
    expect(hasNews(ended, running)).toBe(true);
    const all = [waiting, running, running, ended, ended].flatMap((run) => allRuns([run], each));
    expect(await actionsOf(state, ...all)).toEqual(['RunStarted', 'RunFailed']);
    expect(await actionsOf(state, runGone(ended))).toEqual([]);
    expect(state.size).toBe(0);
  });

  it.each([
    [false, 'GateTimedOut'],
    [true, 'RunRejected'],
  ])('that is not approved is told, rejected: %s', async (isRejected, action) => {
    const of = context({ isPerRun: true, isRejected: () => isRejected });
    const stopped = jobOf({ suspend: true }, {}, { [annotation.runRejected]: 'job/import-1 …' });
    const resumed = jobOf({ suspend: false }, {}, { [annotation.runRejected]: 'job/import-1 …' });
    const state: ChainState = new Map();
    const told = (...runs: Run[]): Promise<string[]> =>
      actionsOf(state, ...runs.flatMap((run) => allRuns([run], of)));
    expect(hasNews(stopped, resumed)).toBe(true);
    expect(await told(stopped, stopped)).toEqual([action]);
    const ofOthers = allRuns([stopped], context({ isRejected: () => isRejected }));
    expect(await recordsOf(new Map(), ...ofOthers)).toEqual([]);
    const [, , { facts } = { facts: [] }] = allRuns([stopped], of);
    // Anybody could have written it who may change the Job.
    expect(await facts[0]?.draft(undefined)).toMatchObject({ actor: { basis: 'asserted' } });
    // Who resumes it asks again.
    expect(await told(resumed, stopped)).toEqual([action]);
  });

  it.each([
    ['BackoffLimitExceeded', 'RunFailed'],
    ['DeadlineExceeded', 'RunTimedOut'],
  ])('that fails is told by itself, with the exit codes: %s', async (reason, action) => {
    const pods = (): Pod[] => [pod(137), pod(0)];
    const [, fact] = runFacts(job('Failed', reason), context({ pods }));
    expect(fact?.foldInto).toBeUndefined();
    expect(await fact?.draft(undefined)).toMatchObject({
      action,
      outcome: 'Failed',
      reason,
      actor: { name: 'import' },
      details: { exitCodes: '137', podReasons: 'OOMKilled', started: startTime },
    });
  });

  it('of a pod that something controls is that one’s', () => {
    expect(runFacts(pod(1), context())).toEqual([]);
    expect(hasNews(pod(1), undefined)).toBe(false);
  });

  it('of a pod that belongs to nothing is its own, also when it was evicted', async () => {
    const evicted = projectPod({
      metadata: { name: 'alone', namespace: 'finance', uid: 'p2' },
      status: {
        phase: 'Failed',
        reason: 'Evicted',
        startTime,
        conditions: [
          { type: 'PodScheduled', status: 'True', lastTransitionTime: startTime },
          { type: 'Ready', status: 'False', lastTransitionTime: '2026-01-01T10:20:30Z' },
        ],
      },
    } as never);
    const [started, failed] = runFacts(evicted, context());
    expect(started).toMatchObject({ state: startTime, foldInto: '2026-01-01T09:00:00Z' });
    expect(await failed?.draft(undefined)).toMatchObject({
      action: 'RunFailed',
      happened: '2026-01-01T10:20:30Z',
      reason: 'Evicted',
      details: { started: startTime },
      objects: [{ kind: 'Pod', name: 'alone' }],
    });
  });
});

describe('an event', () => {
  it('is recorded where no object keeps it, once for both replicas', async () => {
    const about = { kind: 'KillSwitch', metadata: { name: 'invoice', namespace: 'f', uid: 'k' } };
    const told = (reason: string): Observation[] => {
      const observation = toldFact({ about, reason, message: 'Pod x' }, now);
      return observation === undefined ? [] : [observation];
    };
    const state: ChainState = new Map();
    const all = [...told('NotRestored'), ...told('NotRestored'), ...told('Fenced')];
    expect(await actionsOf(state, ...all)).toEqual(['NotRestored']);
  });
});

describe('the revision that is in force', () => {
  const revision = (number: number, active: boolean, sameAs?: number): WorkflowRevision => ({
    metadata: { name: `invoice.${number}`, namespace: 'finance' },
    spec: {
      workflow: 'invoice',
      revision: number,
      digest: 'd'.repeat(64),
      authenticated: number === 1 ? [] : ['alice', 'bob'],
      changers: [],
      ...(sameAs !== undefined && { sameAs }),
      parts: [],
    },
    status: { active, ...(active && { activated: '2026-01-01T00:00:01Z' }) },
  });

  it('is told when another one comes into force, and when it is one of before', async () => {
    const state: ChainState = new Map();
    const told = (...revisions: WorkflowRevision[]): Promise<{ action: string; by: string }[]> =>
      recordsOf(state, revisionFacts(revisions, {}));
    expect(await told(revision(1, false))).toEqual([]);
    expect(await told(revision(1, true))).toEqual([
      { action: 'RevisionActivated', by: 'unknown unknown' },
    ]);
    // The new one is marked before the old one is not any more.
    expect(await told(revision(1, true), revision(2, true))).toEqual([
      { action: 'RevisionActivated', by: 'alice, bob authenticated' },
    ]);
    expect(await told(revision(1, false), revision(2, true))).toEqual([]);
    expect(await told(revision(2, false), revision(3, true, 1))).toEqual([
      { action: 'RevisionRolledBack', by: 'alice, bob authenticated' },
    ]);
  });
});
