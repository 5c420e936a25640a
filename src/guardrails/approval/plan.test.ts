import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Approval } from '../../api/approval.ts';
import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { timestamp } from '../../api/conditions.ts';
import { annotation } from '../../api/names.ts';
import { defaultQuorums, type Workflow } from '../../api/workflow.ts';
import {
  approvedFinding,
  codeOf,
  decide,
  quorumOf,
  revisionOf,
  superseded,
  type Decision,
} from './plan.ts';

const now = Date.UTC(2030, 0, 1);
const current = 'c'.repeat(64);

function workflow(
  spec: Partial<Workflow['spec']> = {},
  changedBy: string | null = 'alice',
): Workflow {
  return {
    metadata: {
      namespace: 'finance',
      name: 'poster',
      annotations: changedBy === null ? {} : { [annotation.changedBy]: changedBy },
    },
    spec: {
      risk: 'High',
      targets: [{ group: 'apps', kind: 'Deployment', name: 'poster' }],
      ...spec,
    },
  };
}

const identity: AutomationIdentity = {
  metadata: { name: 'poster', annotations: { [annotation.changedBy]: 'erin' } },
  spec: { purpose: 'posts' },
};

/** One that somebody changed, and one from before. */
const targets = [
  {
    metadata: {
      namespace: 'finance',
      name: 'a',
      uid: '1',
      annotations: { [annotation.changedBy]: 'tom' },
    },
  },
  { metadata: { namespace: 'finance', name: 'b', uid: '2' } },
];

let made = 0;

function approval(approver: string, fields: Partial<Approval['spec']> = {}, at = now): Approval {
  return {
    metadata: { name: `a${made++}`, creationTimestamp: timestamp(at) },
    spec: {
      workflow: 'poster',
      digest: current,
      decision: 'Approve',
      reason: 'fine',
      approver,
      ...fields,
    },
  };
}

function decided(approvals: Approval[], of = workflow(), wasApproved = false): Decision {
  const required = quorumOf(of, defaultQuorums);
  return decide({
    workflow: of,
    required,
    identity,
    targets,
    digest: current,
    approvals,
    now,
    wasApproved,
  });
}

describe('approvals that a Workflow needs', () => {
  it.each<[number, object]>([
    [0, {}],
    [0, { risk: 'Low' }],
    [1, { risk: 'Medium' }],
    [2, { risk: 'High' }],
    [1, { approval: { required: 1 } }],
    [2, { risk: 'High', approval: { required: 1 } }],
    [5, { risk: 'High', approval: { required: 5 } }],
    [2, { risk: 'whatever' }],
    [0, { approval: 'none' }],
  ])('%i of %j', (quorum, spec) => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as it may be stored
    expect(quorumOf({ spec } as Workflow, defaultQuorums)).toBe(quorum);
  });
});

describe('what approvals come to', () => {
  const bob = approval('bob');
  const carol = approval('carol');
  const account = 'system:serviceaccount:ci:pipeline';

  it.each<[Decision['outcome'], string, Approval[]]>([
    ['NotApproved', 'nobody', []],
    ['NotApproved', 'one of two', [bob]],
    ['NotApproved', 'one person twice', [bob, approval('bob')]],
    ['NotApproved', 'one person in two spellings', [bob, approval('BOB')]],
    ['Approved', 'two people', [bob, carol]],
    ['NotApproved', 'who changed the Workflow', [bob, approval('alice')]],
    ['NotApproved', 'who changed the identity', [bob, approval('Erin')]],
    ['NotApproved', 'who changed a pod template', [bob, approval('tom')]],
    ['NotApproved', 'a ServiceAccount', [bob, approval(account)]],
    ['NotApproved', 'nobody known', [bob, approval('')]],
    ['NotApproved', 'another digest', [bob, approval('carol', { digest: 'd'.repeat(64) })]],
    ['NotApproved', 'another Workflow', [bob, approval('carol', { workflow: 'other' })]],
    ['Rejected', 'a rejection', [bob, carol, approval('dave', { decision: 'Reject' })]],
    [
      'Rejected',
      'a rejection of the same second',
      [bob, carol, approval('bob', { decision: 'Reject' })],
    ],
    [
      'Approved',
      'a rejection taken back',
      [approval('bob', { decision: 'Reject' }, now - 60_000), bob, carol],
    ],
    ['Expired', 'one that has run out', [bob, approval('carol', { expires: timestamp(now) })]],
    ['Expired', 'one whose end nobody can read', [bob, approval('carol', { expires: 'soon' })]],
    [
      'NotApproved',
      'one that ran out, and one missing',
      [approval('carol', { expires: timestamp(now) })],
    ],
  ])('%s: %s', (outcome, _, approvals) => {
    expect(decided(approvals).outcome).toBe(outcome);
    expect(decided(approvals.toReversed()).outcome).toBe(outcome);
  });

  it('changes when so many have run out that too few are left', () => {
    const until = (seconds: number): { expires: string } => ({
      expires: timestamp(now + seconds * 1000),
    });
    const three = [
      approval('bob', until(10)),
      approval('carol', until(30)),
      approval('dave', until(20)),
    ];
    expect(decided(three).changesAt).toBe(now + 20_000);
    expect(decided([bob, carol]).changesAt).toBeUndefined();
  });

  it('counts nobody whom the change names as its requester, and nobody while its changer is unknown', () => {
    const asked = workflow({ change: { requestedBy: 'Bob' } });
    expect(decided([bob, carol], asked)).toMatchObject({
      outcome: 'NotApproved',
      people: ['carol'],
    });
    const unknown = decided([bob, carol], workflow({}, null));
    expect(unknown.outcome).toBe('NotApproved');
    expect(approvedFinding(workflow(), unknown).message).toContain(
      'kubectl annotate awf poster -n finance automationguardrails.dev/changed-by=YOU',
    );
  });

  it('stands of what was approved once, whoever has changed it since', () => {
    expect(decided([bob, carol], workflow({}, 'bob')).outcome).toBe('NotApproved');
    expect(decided([bob, carol], workflow({}, 'bob'), true).outcome).toBe('Approved');
  });

  it('says what to do', () => {
    expect(approvedFinding(workflow(), decided([bob]))).toEqual({
      type: 'Approved',
      status: 'False',
      reason: 'NotApproved',
      message:
        '1 of 2 approvals missing. As somebody who didn\'t change it: kubectl guardrails approve poster -n finance --reason "…"',
    });
  });

  it('is never Approved without as many others as it needs', () => {
    const people = fc.constantFrom('alice', 'bob', 'carol', 'erin', account, '');
    const decisions = fc.array(
      fc.record({
        approver: people,
        decision: fc.constantFrom<Approval['spec']['decision'][]>('Approve', 'Reject'),
        at: fc.integer({ min: 0, max: 3 }),
        isOver: fc.boolean(),
      }),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(decisions, (list) => {
        const approvals = list.map(({ approver, decision, at, isOver }) =>
          approval(
            approver,
            { decision, ...(isOver && { expires: timestamp(now - 1000) }) },
            now - at * 1000,
          ),
        );
        const last = (who: string): (typeof list)[number][] => {
          const own = list.filter(({ approver }) => approver === who);
          const newest = Math.min(...own.map(({ at }) => at));
          return own.filter(({ at }) => at === newest);
        };
        const others = ['bob', 'carol'].filter((who) => {
          const own = last(who);
          return own.length > 0 && own.every(({ decision }) => decision === 'Approve');
        });
        const isRejected = ['alice', 'bob', 'carol', 'erin'].some((who) =>
          last(who).some(({ decision }) => decision === 'Reject'),
        );
        if (decided(approvals).outcome !== 'Approved') return;
        expect(others).toHaveLength(2);
        expect(isRejected).toBe(false);
      }),
    );
  });
});

describe('a revision', () => {
  const target = (codeDigest: string, name = 'poster') => ({
    kind: 'Deployment' as const,
    metadata: { name, namespace: 'finance', uid: '1' },
    codeDigest,
  });

  it('is another one with any part of what runs, and with none but those', () => {
    const of = revisionOf(workflow(), identity, [target('a'), target('b', 'other')]);
    const same = revisionOf(workflow({}, 'bob'), identity, [target('b', 'other'), target('a')]);
    expect(same).toEqual(of);
    const others = [
      revisionOf(workflow({ risk: 'Medium' }), identity, [target('a'), target('b', 'other')]),
      revisionOf(workflow(), undefined, [target('a'), target('b', 'other')]),
      revisionOf(workflow(), { spec: { purpose: 'else' } }, [target('a'), target('b', 'other')]),
      revisionOf(workflow(), identity, [target('c'), target('b', 'other')]),
      revisionOf(workflow(), identity, [target('a')]),
    ];
    expect(new Set([of, ...others].map(({ digest }) => digest)).size).toBe(6);
    expect([...codeOf(of.parts)].toSorted()).toEqual(['a', 'b']);
  });

  it('is the same in another namespace', () => {
    const there = { ...target('a'), metadata: { name: 'poster', namespace: 'test', uid: '2' } };
    const promoted = { ...workflow(), metadata: { name: 'poster', namespace: 'test' } };
    expect(revisionOf(promoted, identity, [there])).toEqual(
      revisionOf(workflow(), identity, [target('a')]),
    );
  });
});

describe('decisions that count no more', () => {
  it('are kept but for the oldest, and never one that counts', () => {
    const old = Array.from({ length: 30 }, (_, index) =>
      approval('bob', { digest: 'd'.repeat(64) }, now - index * 1000),
    );
    const again = Array.from({ length: 10 }, (_, index) =>
      approval('carol', {}, now - 100_000 - index * 1000),
    );
    const counting = [approval('bob'), approval('carol')];
    const gone = superseded([...counting, ...again, ...old], [current, undefined], new Set());
    expect(gone).toHaveLength(20);
    expect(new Set([...old.slice(20), ...again])).toEqual(new Set(gone));
  });
});

describe('groups whose approvals count', () => {
  const of = (approver: string, ...approverGroups: string[]): Approval =>
    approval(approver, { approverGroups });
  const asked = (approvals: Approval[], oneOfEach: boolean): Decision =>
    decide({
      workflow: workflow(),
      required: 2,
      approvers: { groups: ['leads', 'security'], oneOfEach },
      identity,
      targets,
      digest: current,
      approvals,
      now,
    });
  const both = of('bob', 'leads', 'security');

  it.each<[Decision['outcome'], boolean, string, Approval[]]>([
    ['Approved', false, 'two of one group', [of('bob', 'leads'), of('carol', 'leads')]],
    ['NotApproved', false, 'one of none', [of('bob', 'leads'), approval('carol')]],
    ['NotApproved', false, 'one of another', [of('bob', 'leads'), of('carol', 'sales')]],
    ['NotApproved', true, 'two of one group', [of('bob', 'leads'), of('carol', 'leads')]],
    ['Approved', true, 'one of each', [of('bob', 'leads'), of('carol', 'security')]],
    ['NotApproved', true, 'one person of both', [both]],
    ['Approved', true, 'one of both, and another', [both, of('carol', 'leads')]],
    ['Approved', true, 'another, and one of both', [of('carol', 'security'), both]],
    ['NotApproved', true, 'who changed it', [of('alice', 'leads'), of('carol', 'security')]],
    [
      'Rejected',
      true,
      'somebody of no group who rejects it',
      [of('bob', 'leads'), of('carol', 'security'), approval('dave', { decision: 'Reject' })],
    ],
    [
      'Expired',
      true,
      'one of each, of which one ran out',
      [of('bob', 'leads'), approval('carol', { approverGroups: ['security'], expires: 'soon' })],
    ],
  ])('%s, one of each: %s, %s', (outcome, oneOfEach, _, approvals) => {
    expect(asked(approvals, oneOfEach).outcome).toBe(outcome);
    expect(asked(approvals.toReversed(), oneOfEach).outcome).toBe(outcome);
  });

  it('are named to whoever waits, with those who are in none', () => {
    const { message } = approvedFinding(workflow(), asked([approval('dave')], false));
    expect(message).toContain('dave approved it, and is in none of these groups.');
    expect(message).toContain('Approvals count of these groups: leads, security.');
  });

  it('end with the one of them that is missed first', () => {
    const until = timestamp(now + 60_000);
    const last = approval('carol', { approverGroups: ['security'], expires: until });
    const third = of('dave', 'leads');
    expect(asked([of('bob', 'leads'), third, last], true).changesAt).toBe(now + 60_000);
    expect(asked([of('bob', 'leads'), third, last], false).changesAt).toBeUndefined();
  });
});
