import { describe, expect, it } from 'vitest';
import type { Workload } from '../../api/workload.ts';
import { needsRestart } from './consumers.ts';

const rotatedAt = Date.parse('2026-05-01T12:00:00.500Z');
const now = rotatedAt + 1000;

function workload(parts: Partial<Omit<Workload, 'metadata'>> = {}, created?: string): Workload {
  return {
    kind: 'Deployment',
    metadata: {
      name: 'poster',
      namespace: 'billing',
      uid: 'uid-1',
      creationTimestamp: created ?? '2026-05-01T11:00:00Z',
    },
    serviceAccountName: 'poster',
    podLabels: {},
    secretNames: ['aid.poster.erp'],
    isPaused: false,
    finished: false,
    scaleDeletesVolumes: false,
    ...parts,
  };
}

describe('needsRestart', () => {
  it.each<{ what: string; subject: Workload; expected: boolean }>([
    { what: 'a Deployment from before', subject: workload(), expected: true },
    {
      what: 'a StatefulSet from before',
      subject: workload({ kind: 'StatefulSet' }),
      expected: true,
    },
    { what: 'a DaemonSet', subject: workload({ kind: 'DaemonSet' }), expected: true },
    { what: 'a ReplicaSet', subject: workload({ kind: 'ReplicaSet' }), expected: false },
    { what: 'a CronJob', subject: workload({ kind: 'CronJob' }), expected: false },
    { what: 'a Job', subject: workload({ kind: 'Job' }), expected: false },
    { what: 'one without pods', subject: workload({ isPaused: true }), expected: false },
    {
      what: 'one that was created after',
      subject: workload({}, '2026-05-01T12:00:01Z'),
      expected: false,
    },
    {
      what: 'one that was created in the same second',
      subject: workload({}, '2026-05-01T12:00:00Z'),
      expected: true,
    },
    {
      what: 'one that was restarted for it',
      subject: workload({ restartedAt: '2026-05-01T12:00:00.500Z' }),
      expected: false,
    },
    {
      what: 'one that was restarted for a later rotation',
      subject: workload({ restartedAt: '2026-05-01T12:00:00.900Z' }),
      expected: false,
    },
    {
      what: 'one that was restarted for an earlier rotation',
      subject: workload({ restartedAt: '2026-05-01T12:00:00.499Z' }),
      expected: true,
    },
    {
      what: 'one with a time that can’t be read',
      subject: workload({ restartedAt: 'today' }),
      expected: true,
    },
    {
      what: 'one with a time from a clock that was wrong',
      subject: workload({ restartedAt: '2027-01-01T00:00:00Z' }),
      expected: true,
    },
  ])('$what: $expected', ({ subject, expected }) => {
    expect(needsRestart(subject, rotatedAt, now)).toBe(expected);
  });
});
