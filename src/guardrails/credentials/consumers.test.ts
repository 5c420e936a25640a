import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { KubeObject } from '../../api/objects.ts';
import { projectWorkload, type Workload, type WorkloadKind } from '../../api/workload.ts';
import { needsRestart, planRestarts } from './consumers.ts';

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
    isRolledOut: true,
    codeDigest: '',
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

describe('planRestarts', () => {
  const time = (after: number): string => new Date(rotatedAt + after).toISOString();
  const named = (name: string, parts: Partial<Omit<Workload, 'metadata'>> = {}): Workload => {
    const one = workload(parts);
    return { ...one, metadata: { ...one.metadata, name } };
  };
  const plan = (
    consumers: Workload[],
    atOnce: number,
    isLeftAlone: (one: Workload) => boolean = () => false,
  ) => planRestarts([{ rotatedAt, consumers, atOnce }], isLeftAlone, now);
  const names = (workloads: Iterable<Workload>): string[] =>
    [...workloads].map(({ metadata }) => metadata.name);

  it('restarts as many as may be at once, and the others later', () => {
    const { now: first, later } = plan(
      ['c', 'a', 'b'].map((name) => named(name)),
      2,
    );
    expect(names(first.keys())).toEqual(['a', 'b']);
    expect(names(later)).toEqual(['c']);
  });

  it('counts those that are not available again', () => {
    const underWay = named('a', { restartedAt: time(0), isRolledOut: false });
    const done = named('b', { restartedAt: time(0) });
    const { now: first, later, ...rest } = plan([underWay, done, named('c'), named('d')], 2);
    expect(names(first.keys())).toEqual(['c']);
    expect(names(later)).toEqual(['d']);
    expect(names(rest.underWay)).toEqual(['a']);
  });

  it('does not count whom it didn’t restart, nor who was stopped since', () => {
    const broken = named('a', { restartedAt: time(-1000), isRolledOut: false });
    const stopped = named('b', { restartedAt: time(0), isRolledOut: false, isPaused: true });
    const { now: first, underWay } = plan([broken, stopped, named('c')], 1);
    // Who is available comes before who isn't.
    expect(names(first.keys())).toEqual(['c']);
    expect(underWay).toEqual([]);
  });

  it('restarts one that reads two rotated Secrets once, for the later one, within both bounds', () => {
    const both = named('both');
    const later = { rotatedAt: rotatedAt + 500, consumers: [both, named('x')], atOnce: 1 };
    const together = planRestarts(
      [{ rotatedAt, consumers: [both], atOnce: 5 }, later],
      () => false,
      now,
    );
    expect([...together.now]).toEqual([[both, rotatedAt + 500]]);
    expect(names(together.later)).toEqual(['x']);
  });

  it('neither restarts nor counts whom it is told to leave alone', () => {
    const { now: first, later } = plan(
      [named('a'), named('b')],
      1,
      ({ metadata }) => metadata.name === 'a',
    );
    expect(names(first.keys())).toEqual(['b']);
    expect(later).toEqual([]);
  });

  it('comes to an end with every one restarted once, never more at once than asked', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 12 }),
        fc.array(fc.nat({ max: 11 }), { maxLength: 60 }),
        (atOnce, count, comeBack) => {
          const consumers = Array.from({ length: count }, (_, index) => named(`w-${index}`));
          const restarts = new Map<string, number>();
          const look = (): void => {
            const { now: chosen } = plan(consumers, atOnce);
            for (const [one, stamp] of chosen) {
              Object.assign(one, {
                restartedAt: new Date(stamp).toISOString(),
                isRolledOut: false,
              });
              restarts.set(one.metadata.name, (restarts.get(one.metadata.name) ?? 0) + 1);
            }
            const away = consumers.filter(({ isRolledOut }) => !isRolledOut);
            expect(away.length).toBeLessThanOrEqual(atOnce);
          };
          for (const index of [...comeBack, ...consumers.flatMap((_, all) => [all, all])]) {
            look();
            if (consumers[index] !== undefined) consumers[index].isRolledOut = true;
            for (const one of index % 3 === 0 ? consumers : []) one.isRolledOut = true;
          }
          for (let round = 0; round < count; round++) {
            look();
            for (const one of consumers) one.isRolledOut = true;
          }
          expect([...restarts.values()]).toEqual(consumers.map(() => 1));
        },
      ),
    );
  });
});

describe('whether a rollout is over', () => {
  const deployment = { updatedReplicas: 2, replicas: 2, availableReplicas: 2 };
  const statefulSet = { availableReplicas: 2, currentRevision: 'b', updateRevision: 'b' };
  const daemonSet = { desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 2 };

  it.each<[string, WorkloadKind, object, boolean]>([
    ['all are there', 'Deployment', deployment, true],
    ['the controller hasn’t looked', 'Deployment', { ...deployment, observedGeneration: 1 }, false],
    ['one isn’t updated', 'Deployment', { ...deployment, updatedReplicas: 1 }, false],
    ['an old one is left', 'Deployment', { ...deployment, replicas: 3 }, false],
    ['one isn’t available', 'Deployment', { ...deployment, availableReplicas: 1 }, false],
    ['all are there', 'StatefulSet', statefulSet, true],
    [
      'the controller hasn’t looked',
      'StatefulSet',
      { ...statefulSet, observedGeneration: 1 },
      false,
    ],
    [
      'some are of the revision before',
      'StatefulSet',
      { ...statefulSet, currentRevision: 'a' },
      false,
    ],
    ['one isn’t available', 'StatefulSet', { ...statefulSet, availableReplicas: 1 }, false],
    ['all are there', 'DaemonSet', daemonSet, true],
    ['the controller hasn’t looked', 'DaemonSet', { ...daemonSet, observedGeneration: 1 }, false],
    ['one isn’t updated', 'DaemonSet', { ...daemonSet, updatedNumberScheduled: 1 }, false],
    ['one isn’t available', 'DaemonSet', { ...daemonSet, numberAvailable: 1 }, false],
    ['it has nothing to replace', 'CronJob', {}, true],
  ])('%s: %s', (_what, kind, status, expected) => {
    const object = {
      metadata: { name: 'poster', namespace: 'billing', generation: 2 },
      spec: { replicas: 2 },
      status: { observedGeneration: 2, ...status },
    };
    expect(projectWorkload(kind, object as KubeObject).isRolledOut).toBe(expected);
  });
});
