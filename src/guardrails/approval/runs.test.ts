import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Approval } from '../../api/approval.ts';
import { timestamp } from '../../api/conditions.ts';
import { annotation } from '../../api/names.ts';
import type { Pod } from '../../api/objects.ts';
import type { Workflow } from '../../api/workflow.ts';
import { projectWorkload, type Workload } from '../../api/workload.ts';
import { decide, superseded } from './plan.ts';
import { decideRun, sentenceOf, waitingRuns, type WaitingRun } from './runs.ts';

const start = Date.UTC(2030, 0, 1);
const hour = 3_600_000;

function workflow(spec: Partial<Workflow['spec']> = {}): Workflow {
  return {
    metadata: { name: 'poster', namespace: 'finance' },
    spec: {
      risk: 'Medium',
      approval: { per: 'Run', timeout: '1h' },
      targets: [{ group: 'batch', kind: 'CronJob', name: 'poster' }],
      ...spec,
    },
  };
}

function pod(name: string, fields: Partial<Pod['metadata']> = {}, at = start): Pod {
  return {
    metadata: { name, uid: `uid-${name}`, creationTimestamp: timestamp(at), ...fields },
    codeDigest: 'c',
  };
}

const ofJob = (name: string): Partial<Pod['metadata']> => ({
  ownerReferences: [
    { apiVersion: 'batch/v1', kind: 'Job', name, uid: `uid-${name}`, controller: true },
  ],
});

function job(name: string, askedBy?: string, scheduledBy?: string): Workload {
  const annotations = {
    ...(askedBy !== undefined && { [annotation.changedBy]: askedBy }),
    ...(scheduledBy !== undefined && { [annotation.scheduledBy]: scheduledBy }),
  };
  return projectWorkload('Job', { metadata: { name, uid: `uid-${name}`, annotations } });
}

let made = 0;

function approval(approver: string, uid: string, fields: Partial<Approval['spec']> = {}): Approval {
  return {
    metadata: { name: `a${made++}`, creationTimestamp: timestamp(start + made * 1000) },
    spec: {
      workflow: 'poster',
      digest: 'd',
      decision: 'Approve',
      reason: 'x',
      approver,
      run: { kind: 'Job', name: 'a', uid },
      ...fields,
    },
  };
}

function run(fields: Partial<WaitingRun> = {}): WaitingRun {
  const base = { kind: 'Job', name: 'a', uid: 'uid-a', job: job('a'), pods: [] } as const;
  return { ...base, askedBy: 'alice', since: start, ...fields };
}

describe('runs that wait', () => {
  it('are the Jobs of pods, whoever asked for them, and pods that belong to none', () => {
    const stamp = { annotations: { [annotation.changedBy]: 'eve' } };
    const deployed = {
      ownerReferences: [
        { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'r', uid: 'r', controller: true },
      ],
    };
    const pods = [
      pod('a-1', ofJob('a'), start + hour),
      pod('a-2', ofJob('a')),
      pod('b-1', ofJob('b')),
      pod('c-1', ofJob('c')),
      pod('alone', stamp),
      pod('unstamped'),
      pod('deployed', deployed),
    ];
    const controller = 'system:serviceaccount:kube-system:cronjob-controller';
    const runs = waitingRuns(pods, [job('a', 'alice', 'tom'), job('b', controller, 'tom')]);
    expect(runs.map(({ kind, name, uid, askedBy }) => [kind, name, uid, askedBy])).toEqual([
      ['Job', 'a', 'uid-a', 'alice'],
      ['Job', 'b', 'uid-b', controller],
      ['Job', 'c', 'uid-c', undefined],
      ['Pod', 'alone', 'uid-alone', 'eve'],
      ['Pod', 'unstamped', 'uid-unstamped', undefined],
      ['Pod', 'deployed', 'uid-deployed', 'system:kube-controller-manager'],
    ]);
    // Whom the schedule is by matters where nobody asked for the run by himself.
    expect(runs.flatMap(({ name, scheduledBy }) => (scheduledBy ? [name] : []))).toEqual(['b']);
    expect(runs[0]?.since).toBe(start);
    expect(runs[0]?.pods).toHaveLength(2);
  });
});

describe('a run', () => {
  const bob = approval('bob', 'uid-a');
  const high = workflow({ risk: 'High' });
  const low = workflow({ risk: 'Low' });

  it.each<[string, Workflow, WaitingRun, Approval[], number, string]>([
    ['nobody decided on', workflow(), run(), [], 0, 'Waiting'],
    ['somebody approved', workflow(), run(), [bob], 0, 'Approved'],
    ['somebody approved, of low risk', low, run(), [bob], 0, 'Approved'],
    ['nobody approved, of low risk', low, run(), [], 0, 'Waiting'],
    ['one of two approved', high, run(), [bob], 0, 'Waiting'],
    ['one approved twice', high, run(), [bob, approval('Bob', 'uid-a')], 0, 'Waiting'],
    ['two approved', high, run(), [bob, approval('carol', 'uid-a')], 0, 'Approved'],
    ['who asked for it approved', workflow(), run({ askedBy: 'BOB' }), [bob], 0, 'Waiting'],
    [
      'who wrote its schedule approved',
      workflow(),
      run({ askedBy: 'system:kube-controller-manager', scheduledBy: 'Bob' }),
      [bob],
      0,
      'Waiting',
    ],
    [
      'somebody else than who wrote its schedule approved',
      workflow(),
      run({ askedBy: 'system:kube-controller-manager', scheduledBy: 'eve' }),
      [bob],
      0,
      'Approved',
    ],
    ['nobody knows who asked for', workflow(), run({ askedBy: undefined }), [bob], 0, 'Waiting'],
    ['another one was approved of', workflow(), run({ uid: 'uid-z' }), [bob], 0, 'Waiting'],
    ['the revision was approved of', workflow(), run(), [revisionOnly()], 0, 'Waiting'],
    [
      'one approved and one rejected',
      workflow(),
      run(),
      [bob, approval('carol', 'uid-a', { decision: 'Reject' })],
      0,
      'Rejected',
    ],
    [
      'a ServiceAccount approved',
      workflow(),
      run(),
      [approval('system:serviceaccount:ci:bot', 'uid-a')],
      0,
      'Waiting',
    ],
    [
      'was approved for a while',
      workflow(),
      run(),
      [approval('bob', 'uid-a', { expires: timestamp(start + 60_000) })],
      60_000,
      'Waiting',
    ],
    ['nobody approved in time', workflow(), run(), [], hour, 'TimedOut'],
    ['was approved in time', workflow(), run(), [bob], 2 * hour, 'Approved'],
    ['nobody knows, in time', workflow(), run({ askedBy: undefined }), [bob], hour, 'TimedOut'],
    [
      'waits without a limit',
      workflow({ approval: { per: 'Run' } }),
      run(),
      [],
      2 * hour,
      'Waiting',
    ],
    ['waits a day', workflow({ approval: { per: 'Run' } }), run(), [], 24 * hour, 'TimedOut'],
  ])('that %s', (_, of, waiting, approvals, later, outcome) => {
    expect(decideRun(of, waiting, approvals, undefined, start + later).outcome).toBe(outcome);
  });

  function revisionOnly(): Approval {
    const { run: _, ...spec } = approval('bob', '').spec;
    return { metadata: { name: 'r' }, spec };
  }

  it('says what it waits for, and until when', () => {
    const decision = decideRun(high, run(), [bob], undefined, start);
    expect(decision.changesAt).toBe(start + hour);
    expect(sentenceOf(high, run(), decision)).toBe(
      'job/a waits for 1 of 2 approvals. As somebody else than alice: kubectl guardrails approve poster -n finance --run job/a --reason "…"',
    );
  });

  it('names everybody who can not approve it, and no account of the cluster', () => {
    const sentence = (of: Partial<WaitingRun>): string =>
      sentenceOf(high, run(of), decideRun(high, run(of), [], undefined, start));
    const controller = 'system:serviceaccount:kube-system:cronjob-controller';
    expect(sentence({ askedBy: controller })).toContain('As somebody: ');
    expect(sentence({ askedBy: controller, scheduledBy: 'eve' })).toContain(
      'As somebody else than eve: ',
    );
  });

  it('counts the approvals of the groups that count, and one of each where that is asked', () => {
    const of = (by: string, ...approverGroups: string[]): Approval =>
      approval(by, 'uid-a', { approverGroups });
    const groups = ['leads', 'security'];
    const outcome = (approvals: Approval[], oneOfEach: boolean): string =>
      decideRun(workflow(), run(), approvals, { groups, oneOfEach }, start).outcome;
    expect(outcome([bob, of('eve', 'sales')], false)).toBe('Waiting');
    expect(outcome([of('carol', 'leads')], false)).toBe('Approved');
    expect(outcome([of('alice', 'leads')], false)).toBe('Waiting');
    const leads = [of('carol', 'leads'), of('dan', 'leads')];
    expect(outcome(leads, true)).toBe('Waiting');
    expect(outcome([...leads, of('sue', 'security')], true)).toBe('Approved');
    const decision = decideRun(workflow(), run(), leads, { groups, oneOfEach: true }, start);
    expect(sentenceOf(workflow(), run(), decision)).toContain(
      'job/a waits for 1 of 1 approvals. Each of these groups has to approve, by a person of its own: leads, security.',
    );
  });

  it('has decisions of its own, which neither count for the revision nor go before it is over', () => {
    const question = {
      workflow: workflow(),
      required: 1,
      identity: undefined,
      targets: [],
      digest: 'd',
      now: start,
    };
    const approved = { ...question, wasApproved: true };
    expect(decide({ ...approved, approvals: [bob] }).outcome).toBe('NotApproved');
    expect(decide({ ...approved, approvals: [revisionOnly()] }).outcome).toBe('Approved');
    const many = Array.from({ length: 30 }, (_unused, index) => approval('bob', `uid-${index}`));
    expect(superseded([bob, ...many], [], new Set(['uid-a']))).not.toContain(bob);
    expect(superseded([bob, ...many], [], new Set(['uid-a']))).toHaveLength(10);
  });

  it('never starts by the decisions of who asked for it, of another run, or of too few', () => {
    const people = fc.constantFrom('alice', 'bob', 'carol', 'Alice', 'system:serviceaccount:a:b');
    const decisions = fc.array(
      fc.record({
        by: people,
        uid: fc.constantFrom('uid-a', 'uid-b'),
        decision: fc.constantFrom('Approve' as const, 'Reject' as const),
      }),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(decisions, people, fc.constantFrom(low, workflow(), high), (all, askedBy, of) => {
        const approvals = all.map(({ by, uid, decision }) => approval(by, uid, { decision }));
        const last = new Map<string, string>();
        for (const { by, uid, decision } of all) {
          if (uid === 'uid-a' && !by.startsWith('system:')) last.set(by.toLowerCase(), decision);
        }
        const isRejected = [...last.values()].includes('Reject');
        last.delete(askedBy.toLowerCase());
        const isEnough = last.size >= (of === high ? 2 : 1);
        const { outcome } = decideRun(of, run({ askedBy }), approvals, undefined, start);
        expect(outcome === 'Approved').toBe(isEnough && !isRejected);
      }),
    );
  });
});
