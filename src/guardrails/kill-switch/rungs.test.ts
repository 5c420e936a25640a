import { describe, expect, it } from 'vitest';
import type { Finding } from '../../api/conditions.ts';
import type { Condition, Pod } from '../../api/objects.ts';
import {
  effectiveFindings,
  identityRung,
  isUnanswered,
  permissionsRung,
  remainingPods,
  secretsRung,
  tokensDieMs,
  tokensRung,
  type Rung,
  type TokensView,
} from './rungs.ts';

const now = Date.parse('2026-05-01T00:01:00Z');

function condition(status: Condition['status'], secondsAgo: number): Condition {
  return {
    type: 'X',
    status,
    reason: 'X',
    message: '',
    lastTransitionTime: new Date(now - secondsAgo * 1000).toISOString(),
  };
}

describe('permissionsRung', () => {
  const granted = [{ subject: 'poster', allowed: ['get configmaps'] }];

  it.each([
    { what: 'nothing is allowed', views: [], before: undefined, is: 'True Revoked' },
    { what: 'the authorizer may lag', views: granted, before: undefined, is: 'False Revoking' },
    {
      what: 'it lags no longer than a moment',
      views: granted,
      before: condition('False', 6),
      is: 'False GrantedElsewhere',
    },
    {
      what: 'it was revoked, and is granted again',
      views: granted,
      before: condition('True', 600),
      is: 'False Revoking',
    },
  ])('$what', ({ views, before, is }) => {
    const { finding } = permissionsRung(views, before, now);
    expect(`${finding.status} ${finding.reason}`).toBe(is);
  });

  it('names what is granted, and stays short at any number', () => {
    const allowed = Array.from({ length: 64 }, (_, n) => `get things-${n}`);
    const views = [{ subject: 'poster', allowed }];
    const { finding, remaining } = permissionsRung(views, condition('False', 6), now);
    expect(finding.message).toContain('poster: get things-0');
    expect(finding.message).toContain('and 59 more');
    expect(remaining).toEqual([
      { what: expect.stringMatching(/^Permissions of ServiceAccount poster/) },
    ]);
  });
});

describe('tokensRung', () => {
  const gone = identityRung({ foreign: [], deleting: [], waiting: [] });
  const foreign = identityRung({ foreign: ['poster'], deleting: [], waiting: [] });
  const waiting = identityRung({ foreign: [], deleting: [], waiting: ['poster'] });
  const viewOf = (identity: Rung, previous: Condition | undefined): TokensView => ({
    identity,
    previous,
    foreign: [],
    published: [],
    accepted: [],
  });

  it.each([
    { what: 'just now', before: undefined, is: 'False Expiring', dueMs: tokensDieMs },
    { what: '5 s ago', before: condition('True', 5), is: 'False Expiring', dueMs: 7_000 },
    { what: '11 s ago', before: condition('True', 11), is: 'False Expiring', dueMs: 1_000 },
    { what: '12 s ago', before: condition('True', 12), is: 'True TokensDead', dueMs: undefined },
    {
      what: 'in the future, by another clock',
      before: condition('True', -3600),
      is: 'False Expiring',
      dueMs: tokensDieMs,
    },
    {
      what: 'just now, after it stood',
      before: condition('False', 60),
      is: 'False Expiring',
      dueMs: tokensDieMs,
    },
  ])('gone $what', ({ before, is, dueMs }) => {
    const rung = tokensRung(viewOf(gone, before), now);
    expect(`${rung.finding.status} ${rung.finding.reason}`).toBe(is);
    expect(rung.dueMs).toBe(dueMs);
    expect(rung.remaining).toHaveLength(rung.finding.status === 'True' ? 0 : 1);
  });

  it('never ends where the ServiceAccount is somebody else’s, and says so', () => {
    const rung = tokensRung(
      { ...viewOf(foreign, condition('False', 3600)), foreign: ['poster'] },
      now,
    );
    expect(rung).toMatchObject({ finding: { status: 'False', reason: 'ForeignObject' } });
    expect(rung.remaining).toEqual([
      { what: expect.stringContaining('Tokens of ServiceAccount poster') },
    ]);
  });

  it('is not reached while the API server accepts a token that was withdrawn', () => {
    const view = { ...viewOf(gone, condition('True', 60)), accepted: ['aid.poster.ci'] };
    const rung = tokensRung(view, now);
    expect(rung.finding).toMatchObject({ status: 'False', reason: 'StillAccepted' });
    expect(rung.remaining).toEqual([{ what: 'Tokens of Secret aid.poster.ci' }]);
  });

  it('tells of published tokens until they expire: who asks no API server takes them', () => {
    const published = ['2026-05-01T00:01:01Z', '2026-05-01T00:01:00Z', undefined].map(
      (expirationTime, n) => ({
        name: `ci-${n}`,
        secretName: `aid.poster.ci-${n}`,
        audience: 'vault',
        ...(expirationTime !== undefined && { expirationTime }),
      }),
    );
    const rung = tokensRung({ ...viewOf(gone, condition('True', 60)), published }, now);
    expect(rung.finding).toMatchObject({ status: 'True', reason: 'TokensDead' });
    expect(rung.remaining).toEqual([
      {
        what: 'Token ci-0 for vault, where its signature alone is checked',
        until: '2026-05-01T00:01:01Z',
      },
    ]);
  });

  it('waits for the ServiceAccount to be deleted', () => {
    expect(waiting.finding.reason).toBe('WaitingForFence');
    expect(tokensRung(viewOf(waiting, undefined), now).finding.reason).toBe('IdentityStands');
  });
});

describe('a pod', () => {
  const pod = (metadata: Partial<Pod['metadata']>, phase = 'Running'): Pod => ({
    metadata: { name: 'p', ...metadata },
    status: { phase },
  });

  it.each([
    { what: 'that runs', given: pod({}), unanswered: false },
    { what: 'within its grace', given: at(20), unanswered: false },
    { what: 'just after it', given: at(-20), unanswered: false },
    { what: 'long after it', given: at(-31), unanswered: true },
    { what: 'whose node was given up', given: pod({}, 'Unknown'), unanswered: true },
  ])('$what', ({ given, unanswered }) => {
    expect(isUnanswered(given, now)).toBe(unanswered);
  });

  function at(seconds: number): Pod {
    return pod({ deletionTimestamp: new Date(now + seconds * 1000).toISOString() });
  }

  it('that is left is listed, with the end of its grace, 32 at most', () => {
    expect(remainingPods([at(20), pod({})])).toEqual([
      { what: 'Pod p', until: '2026-05-01T00:01:20.000Z' },
      { what: 'Pod p' },
    ]);
    expect(remainingPods(Array.from({ length: 5000 }, () => pod({})))).toHaveLength(32);
  });
});

describe('effectiveFindings', () => {
  const rung = (status: Finding['status'], reason = 'X'): Finding => ({
    type: 'X',
    status,
    reason,
    message: `${reason}.`,
  });

  it.each([
    { what: 'all verified', rungs: [rung('True')], is: ['True Verified', 'True Stopped'] },
    {
      what: 'one under way',
      rungs: [rung('True'), rung('False'), rung('False', 'ForeignObject')],
      is: ['False Stopping', 'False Stopping'],
    },
    {
      what: 'what only others can end',
      rungs: [rung('True'), rung('False', 'ForeignObject'), rung('False', 'GrantedElsewhere')],
      is: ['False SomethingRemains', 'False SomethingRemains'],
    },
    {
      what: 'unknown is never gone',
      rungs: [rung('True'), rung('Unknown', 'NodeSilent')],
      is: ['Unknown Unverified', 'False Unverified'],
    },
    {
      what: 'known to be open outweighs unknown',
      rungs: [rung('Unknown'), rung('False')],
      is: ['False Stopping', 'False Stopping'],
    },
  ])('$what', ({ rungs, is }) => {
    expect(effectiveFindings(rungs).map(({ status, reason }) => `${status} ${reason}`)).toEqual(is);
  });

  it('says what is open', () => {
    const [effective] = effectiveFindings([rung('True', 'A'), rung('False', 'B')]);
    expect(effective?.message).toBe('B.');
  });
});

it('Secrets of others are named', () => {
  expect(secretsRung([], []).finding.status).toBe('True');
  expect(secretsRung(['erp'], [])).toMatchObject({
    finding: { status: 'False', reason: 'ForeignObject' },
    remaining: [{ what: 'Secret erp, made by somebody else' }],
  });
});

it('copies that are still readable are named, before Secrets of others', () => {
  const copy = { what: 'Copy in vault secret/a/b/c', why: 'the vault answers 503' };
  expect(secretsRung(['erp'], [copy])).toMatchObject({
    finding: {
      status: 'False',
      reason: 'CopiesRemain',
      message: expect.stringContaining('secret/a/b/c: the vault answers 503') as unknown,
    },
    remaining: [{ what: 'Secret erp, made by somebody else' }, { what: copy.what }],
  });
});
