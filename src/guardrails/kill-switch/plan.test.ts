import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { annotation, label, stoppedSelector } from '../../api/names.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { Pod } from '../../api/objects.ts';
import type { Workflow } from '../../api/workflow.ts';
import {
  isFollower,
  projectWorkload,
  type Workload,
  type WorkloadKind,
} from '../../api/workload.ts';
import {
  freezeNonce,
  graceOf,
  isHeldBy,
  isPausable,
  isRestored,
  isToBeDeleted,
  isToBeTouched,
  latchOf,
  phaseOf,
  restoreOf,
  thawNonce,
} from './plan.ts';

function workflow(annotations: Record<string, string> = {}): Workflow {
  return {
    metadata: { name: 'invoice', namespace: 'finance', annotations },
    spec: { targets: [] },
  };
}

function killSwitch(
  annotations: Record<string, string> = {},
  labels: Record<string, string> = {},
): KillSwitch {
  return {
    metadata: { name: 'invoice', namespace: 'finance', uid: 'uid-1', annotations, labels },
    spec: { workflow: 'invoice', reason: 'runaway', engagedBy: 'alice' },
  };
}

function workload(
  kind: WorkloadKind,
  spec: object,
  annotations: Record<string, string> = {},
  serviceAccountName = 'invoice',
): Workload {
  const template = { spec: { serviceAccountName } };
  return projectWorkload(kind, {
    metadata: { name: 'w', namespace: 'finance', uid: 'w-1', annotations },
    spec:
      kind === 'CronJob' ? { ...spec, jobTemplate: { spec: { template } } } : { ...spec, template },
  } as never);
}

function stoppedDaemonSet(annotations: Record<string, string> = {}): Workload {
  return projectWorkload('DaemonSet', {
    metadata: { name: 'w', namespace: 'finance', uid: 'w-1', annotations },
    spec: {
      template: {
        spec: { serviceAccountName: 'invoice', nodeSelector: { [stoppedSelector]: 'true' } },
      },
    },
  } as never);
}

describe('phaseOf', () => {
  const engaging = { [annotation.killSwitch]: 'runaway' };
  const releasing = killSwitch({
    [annotation.release]: 'fixed',
    [annotation.releasedBy]: 'bob',
  });
  it.each([
    ['nothing stands', undefined, workflow(), 'Idle'],
    ['nothing exists', undefined, undefined, 'Idle'],
    ['the annotation stands alone', undefined, workflow(engaging), 'Latch'],
    [
      'its value is empty: unknown means stop',
      undefined,
      workflow({ [annotation.killSwitch]: '' }),
      'Latch',
    ],
    ['a KillSwitch stands alone', killSwitch(), workflow(), 'Stop'],
    ['a KillSwitch stands without its Workflow', killSwitch(), undefined, 'Stop'],
    ['both stand', killSwitch(), workflow(engaging), 'Stop'],
    ['release is asked for', releasing, workflow(), 'Release'],
    [
      'release is asked for without a stamp',
      killSwitch({ [annotation.release]: 'x' }),
      workflow(),
      'Stop',
    ],
    [
      'release is asked for by who engaged',
      killSwitch({ [annotation.release]: 'x', [annotation.releasedBy]: 'alice' }),
      workflow(),
      'Stop',
    ],
    ['release has begun', killSwitch({}, { [label.releasing]: 'true' }), undefined, 'Release'],
    ['it is engaged again during the release', releasing, workflow(engaging), 'CancelRelease'],
  ] as const)('when %s', (_, engaged, of, phase) => {
    expect(phaseOf(engaged, [undefined, of])).toBe(phase);
  });
});

describe('latchOf', () => {
  it('passes on reason and authenticated user of the annotation', () => {
    const latched = latchOf(
      workflow({ [annotation.killSwitch]: ' runaway ', [annotation.killSwitchEngagedBy]: 'alice' }),
    );
    expect(latched.spec).toEqual({ workflow: 'invoice', reason: 'runaway', engagedBy: 'alice' });
    expect(latched.metadata).toEqual({ name: 'invoice', namespace: 'finance' });
  });

  it('makes a valid KillSwitch of any annotation', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 5000, unit: 'binary' }), (reason) => {
        const { spec } = latchOf(workflow({ [annotation.killSwitch]: reason }));
        expect(spec.reason.length).toBeGreaterThan(0);
        expect(spec.reason.length).toBeLessThanOrEqual(1024);
        expect(spec.engagedBy).toBe('unknown');
      }),
    );
  });
});

describe('isPausable', () => {
  it.each([
    ['a running Deployment', workload('Deployment', { replicas: 3 }), true],
    ['a Deployment without a count: it runs one', workload('Deployment', {}), true],
    ['a Deployment at 0', workload('Deployment', { replicas: 0 }), false],
    ['a StatefulSet', workload('StatefulSet', { replicas: 2 }), true],
    [
      'a StatefulSet that would lose its volumes',
      workload('StatefulSet', {
        replicas: 2,
        persistentVolumeClaimRetentionPolicy: { whenScaled: 'Delete' },
      }),
      false,
    ],
    ['a DaemonSet', workload('DaemonSet', {}), true],
    ['a DaemonSet that no node is for', stoppedDaemonSet(), false],
    ['a ReplicaSet', workload('ReplicaSet', { replicas: 2 }), true],
    ['a ReplicaSet at 0', workload('ReplicaSet', { replicas: 0 }), false],
    ['a CronJob', workload('CronJob', {}), true],
    ['a suspended CronJob', workload('CronJob', { suspend: true }), false],
    ['a Job', workload('Job', {}), true],
    ['a suspended Job', workload('Job', { suspend: true }), false],
  ])('%s', (_, of, expected) => {
    expect(isPausable(of)).toBe(expected);
  });

  it('leaves a finished Job alone', () => {
    const finished = projectWorkload('Job', {
      metadata: { name: 'j', namespace: 'finance' },
      spec: { template: { spec: { serviceAccountName: 'invoice' } } },
      status: { conditions: [{ type: 'Complete', status: 'True' }] },
    } as never);
    expect(isPausable(finished)).toBe(false);
  });
});

describe('isToBeTouched', () => {
  const set = (annotations: Record<string, string> = {}, replicas = 2): Workload =>
    workload(
      'StatefulSet',
      { replicas, persistentVolumeClaimRetentionPolicy: { whenScaled: 'Delete' } },
      annotations,
    );

  it.each([
    ['what can be paused', workload('Deployment', { replicas: 1 }), true],
    ['what is paused', workload('Deployment', { replicas: 0 }), false],
    ['what is stopped by its pods alone', set(), true],
    ['the same, once', set({ [annotation.touch]: 'uid-1' }), false],
    ['the same, after another kill', set({ [annotation.touch]: 'uid-0' }), true],
    ['the same without pods', set({}, 0), false],
  ])('%s', (_, of, expected) => {
    expect(isToBeTouched(killSwitch(), of)).toBe(expected);
  });
});

describe('isFollower', () => {
  const owned = (kind: WorkloadKind, controller: boolean): Workload =>
    projectWorkload(kind, {
      metadata: {
        name: 'w',
        ownerReferences: [
          { apiVersion: 'apps/v1', kind: 'Deployment', name: 'w', uid: 'd-1', controller },
        ],
      },
    });

  it.each([
    ['a ReplicaSet of a Deployment', owned('ReplicaSet', true), true],
    ['one that somebody owns and nobody controls', owned('ReplicaSet', false), false],
    ['one of its own', workload('ReplicaSet', {}), false],
    ['a run of a CronJob', owned('Job', true), false],
  ])('%s', (_, of, expected) => {
    expect(isFollower(of)).toBe(expected);
  });
});

describe('restoreOf', () => {
  it('reads only what admission can have written', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const restore = restoreOf(
          workload('Deployment', {}, { [annotation.restoreReplicas]: text }),
        );
        expect(restore?.isValid).toBe(/^(0|[1-9][0-9]{0,8})$/.test(text));
        expect(restore?.text).toBe(text);
      }),
    );
  });

  it.each([
    [
      '0 replicas wait for 3',
      workload('Deployment', { replicas: 0 }, { [annotation.restoreReplicas]: '3' }),
      false,
    ],
    [
      'the owner went to 5 meanwhile',
      workload('Deployment', { replicas: 5 }, { [annotation.restoreReplicas]: '3' }),
      true,
    ],
    [
      'suspended waits to run',
      workload('CronJob', { suspend: true }, { [annotation.restoreSuspend]: 'false' }),
      false,
    ],
    [
      'runs again',
      workload('CronJob', { suspend: false }, { [annotation.restoreSuspend]: 'false' }),
      true,
    ],
    [
      'no node is for it, and it waits for all',
      stoppedDaemonSet({ [annotation.restoreStopped]: 'false' }),
      false,
    ],
    [
      'its owner asked for none meanwhile',
      stoppedDaemonSet({ [annotation.restoreStopped]: 'true' }),
      true,
    ],
    [
      'a damaged value is never taken for done',
      workload('Deployment', { replicas: 0 }, { [annotation.restoreReplicas]: 'many' }),
      false,
    ],
  ])('is restored when: %s', (_, of, expected) => {
    const restore = restoreOf(of);
    expect(restore && isRestored(of, restore)).toBe(expected);
  });
});

describe('touches', () => {
  it('freeze with the same nonce on every replica', () => {
    expect(freezeNonce(killSwitch())).toBe('uid-1');
  });

  it('thaw with a nonce that differs from the one that stands, whatever stands', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.nat().map((n) => `uid-1.release.${n}`),
        ),
        (standing) => {
          const touched = workload('Deployment', {}, { [annotation.touch]: standing });
          expect(thawNonce(killSwitch(), touched)).not.toBe(standing);
          expect(thawNonce(killSwitch(), touched)).toMatch(/^uid-1\.release\.\d+$/);
        },
      ),
    );
  });

  it('finds what it paused even where the workload runs as somebody else by now', () => {
    const moved = workload('Deployment', {}, { [annotation.touch]: 'uid-1' }, 'other');
    expect(isHeldBy(killSwitch(), moved)).toBe(true);
    expect(isHeldBy(killSwitch(), workload('Deployment', {}))).toBe(false);
    const foreign = workload('Deployment', {}, { [annotation.restoreReplicas]: '3' }, 'other');
    expect(isHeldBy(killSwitch(), foreign)).toBe(false);
  });
});

describe('graceOf', () => {
  it('is never zero and never above the cap', () => {
    fc.assert(
      fc.property(
        fc.option(fc.integer(), { nil: undefined }),
        fc.integer({ min: 1, max: 600 }),
        (own, cap) => {
          const pod: Pod = {
            metadata: { name: 'p' },
            spec: own === undefined ? {} : { terminationGracePeriodSeconds: own },
          };
          expect(graceOf(pod, cap)).toBeGreaterThanOrEqual(1);
          expect(graceOf(pod, cap)).toBeLessThanOrEqual(cap);
        },
      ),
    );
  });
});

describe('isToBeDeleted', () => {
  const going = { name: 'p', deletionTimestamp: '2026-01-01T00:00:00Z' };
  const tracking = { finalizers: ['batch.kubernetes.io/job-tracking'] };
  it.each([
    ['a running pod', { metadata: { name: 'p' }, status: { phase: 'Running' } }, true],
    ['one that has ended', { metadata: { name: 'p' }, status: { phase: 'Succeeded' } }, false],
    ['one that is going soon', { metadata: { ...going, deletionGracePeriodSeconds: 30 } }, false],
    [
      'one that takes a year to go',
      { metadata: { ...going, deletionGracePeriodSeconds: 31_536_000 } },
      true,
    ],
    ['one that would count as a failure of its Job', { metadata: { ...going, ...tracking } }, true],
  ])('%s', (_, pod, expected) => {
    expect(isToBeDeleted(pod, 30)).toBe(expected);
  });
});
