import { describe, expect, it } from 'vitest';
import { clockCheck, leaseFinding, policiesFinding, serverCheck } from './doctor.ts';

const server = { gitVersion: 'v1', major: 1, date: 0, localDate: 0 };

describe('the version of Kubernetes', () => {
  it.each([
    [29, 'failed'],
    [30, 'note'],
    [35, 'note'],
    [36, 'ok'],
    [40, 'ok'],
  ])('1.%i', (minor, result) => {
    expect(serverCheck({ ...server, minor }).result).toBe(result);
  });
});

describe('the policies', () => {
  const wanted = [
    'ValidatingAdmissionPolicy/a',
    'MutatingAdmissionPolicy/b',
    'MutatingAdmissionPolicy/c',
  ];

  it.each([
    ['all are there', wanted, 'ok'],
    ['none that rewrites is there, on purpose', wanted.slice(0, 1), 'note'],
    ['one that rewrites is missing', wanted.slice(0, 2), 'failed'],
    ['one that refuses is missing', wanted.slice(1), 'failed'],
    ['nothing is there', [], 'failed'],
  ])('%s', (_, present, result) => {
    expect(policiesFinding(present, wanted).result).toBe(result);
  });
});

describe('the leader', () => {
  const now = Date.parse('2026-01-01T00:01:00Z');
  const lease = (renewTime: string, holderIdentity = 'pod-a') => ({
    metadata: { name: 'automation-guardrails' },
    spec: { holderIdentity, renewTime },
  });

  it.each([
    ['has just renewed', lease('2026-01-01T00:00:59.000000Z'), 'ok', 'pod-a leads'],
    ['is gone', lease('2026-01-01T00:00:30.000000Z'), 'failed', '30 s ago'],
    ['has a clock of its own', lease('2026-01-01T00:02:00.000000Z'), 'failed', 'clock of pod-a'],
    ['gave the lease back', lease('2026-01-01T00:00:59.000000Z', ''), 'failed', 'No operator'],
    ['was never there', undefined, 'failed', 'No operator'],
  ])('%s', (_, found, result, message) => {
    const finding = leaseFinding(found, 'guardrails', now);
    expect(finding.result).toBe(result);
    expect(finding.message).toContain(message);
  });
});

describe('the clock', () => {
  it.each([
    [0, 'ok'],
    [5_000, 'ok'],
    [6_000, 'failed'],
    [-60_000, 'failed'],
  ])('%i ms off', (skew, result) => {
    expect(clockCheck({ date: 1_000_000, localDate: 1_000_000 + skew }).result).toBe(result);
  });

  it('that nobody tells is unknown', () => {
    expect(clockCheck(undefined).result).toBe('unknown');
  });
});
