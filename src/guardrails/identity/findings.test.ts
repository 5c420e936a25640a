import { describe, expect, it } from 'vitest';
import { conditionsFrom } from '../../api/conditions.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { identityFindings, transitionsOf, type IdentityVerdict } from './findings.ts';

const owner = { reason: 'OwnerMissing', message: 'Missing spec.owner.team.' };
const purpose = { reason: 'PurposeMissing', message: 'Missing spec.purpose.' };
const foreign = { reason: 'ForeignObject', message: 'Role x exists already.' };
const killSwitch: KillSwitch = {
  metadata: { name: 'poster', namespace: 'billing' },
  spec: { workflow: 'poster', reason: 'runs amok' },
};

const verdict = (parts: Partial<IdentityVerdict> = {}): IdentityVerdict => ({
  killSwitch: undefined,
  missing: [],
  problems: [],
  excess: undefined,
  review: undefined,
  policy: undefined,
  requester: undefined,
  overdue: [],
  ...parts,
});

const shortOf = (parts: Partial<IdentityVerdict>): string[] =>
  identityFindings(verdict(parts)).map(({ type, status, reason }) => `${type} ${status} ${reason}`);

describe('identityFindings', () => {
  it.each<{ parts: Partial<IdentityVerdict>; expected: string[] }>([
    { parts: {}, expected: ['Ready True Provisioned', 'Held False Complete'] },
    {
      parts: { missing: [owner] },
      expected: ['Ready False OwnerMissing', 'Held True OwnerMissing'],
    },
    {
      parts: { missing: [owner, purpose] },
      expected: ['Ready False Incomplete', 'Held True Incomplete'],
    },
    {
      parts: { overdue: [{ reason: 'ConvergenceOverdue', message: 'A pod holds it.' }] },
      expected: [
        'Ready True Provisioned',
        'Held False Complete',
        'RotationOverdue True ConvergenceOverdue',
      ],
    },
    {
      parts: { problems: [foreign] },
      expected: ['Ready False ForeignObject', 'Held False Complete'],
    },
    {
      parts: { missing: [owner], problems: [foreign] },
      expected: ['Ready False OwnerMissing', 'Held True OwnerMissing'],
    },
    {
      parts: { killSwitch, missing: [owner] },
      expected: ['Ready False KillSwitchEngaged', 'Held True OwnerMissing'],
    },
  ])('$expected', ({ parts, expected }) => {
    expect(shortOf(parts)).toEqual(expected);
  });

  it('lists everything that is missing, and only that, in Held', () => {
    const [, held] = identityFindings(verdict({ missing: [owner, purpose], problems: [foreign] }));
    expect(held?.message).toBe('Missing spec.owner.team. Missing spec.purpose.');
  });
});

const reasonsOf = (before: Partial<IdentityVerdict> | undefined, now: Partial<IdentityVerdict>) =>
  transitionsOf(
    identityFindings(verdict(now)),
    before && conditionsFrom(identityFindings(verdict(before)), undefined, 1, 0),
  ).map(({ type, reason }) => `${type} ${reason}`);

describe('transitionsOf', () => {
  const provisioning = { reason: 'Provisioning', message: 'Secret x is about to be created.' };

  it.each<{
    what: string;
    before: Partial<IdentityVerdict> | undefined;
    now: Partial<IdentityVerdict>;
    expected: string[];
  }>([
    { what: 'ready from the start', before: undefined, now: {}, expected: ['normal Ready'] },
    { what: 'nothing changed', before: {}, now: {}, expected: [] },
    { what: 'held', before: {}, now: { missing: [owner] }, expected: ['warning Held'] },
    {
      what: 'still held, for the same reason',
      before: { missing: [owner] },
      now: { missing: [owner] },
      expected: [],
    },
    {
      what: 'completed',
      before: { missing: [owner] },
      now: {},
      expected: ['normal Ready', 'normal NoLongerHeld'],
    },
    {
      what: 'an overdue rotation',
      before: {},
      now: { overdue: [foreign] },
      expected: ['warning ForeignObject'],
    },
    {
      what: 'a rotation that is still overdue',
      before: { overdue: [foreign] },
      now: { overdue: [foreign] },
      expected: [],
    },
    {
      what: 'a foreign object',
      before: {},
      now: { problems: [foreign] },
      expected: ['warning ForeignObject'],
    },
    { what: 'work under way', before: undefined, now: { problems: [provisioning] }, expected: [] },
    {
      what: 'killed while held',
      before: { missing: [owner] },
      now: { killSwitch, missing: [owner] },
      expected: ['warning KillSwitchEngaged'],
    },
  ])('$what', ({ before, now, expected }) => {
    expect(reasonsOf(before, now)).toEqual(expected);
  });
});
