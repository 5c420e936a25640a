import { describe, expect, it } from 'vitest';
import type { Pod } from '../../api/objects.ts';
import { projectWorkload } from '../../api/workload.ts';
import { releaseFindings, stopFindings } from './findings.ts';

describe('stopFindings', () => {
  const pod: Pod = { metadata: { name: 'p' }, status: { phase: 'Running' } };
  const running = projectWorkload('Deployment', {
    metadata: { name: 'w', namespace: 'finance', uid: 'w-1' },
    spec: { template: { spec: { serviceAccountName: 'invoice' } } },
  } as never);
  const stopped = {
    namespace: 'finance',
    guarded: true,
    fence: 'Denied',
    workloads: [],
    pods: [],
    rungs: [],
    now: 0,
  } as const;
  const ready = (progress: Parameters<typeof stopFindings>[0]): string | undefined =>
    stopFindings(progress).find(({ type }) => type === 'Ready')?.status;

  it('is ready only when fenced, paused and without a pod', () => {
    expect(ready(stopped)).toBe('True');
    expect(ready({ ...stopped, guarded: false })).toBe('False');
    expect(ready({ ...stopped, fence: 'Allowed' })).toBe('False');
    expect(ready({ ...stopped, fence: 'Unknown' })).toBe('False');
    expect(ready({ ...stopped, workloads: [running] })).toBe('False');
    expect(ready({ ...stopped, pods: [pod] })).toBe('False');
    expect(ready({ ...stopped, pods: undefined })).toBe('False');
  });

  it('never takes a pod for gone that nobody answers for', () => {
    const silent: Pod = {
      metadata: { name: 'silent', deletionTimestamp: '2026-05-01T00:00:00Z' },
    };
    const now = Date.parse('2026-05-01T00:01:00Z');
    const told = (pods: readonly Pod[]): string[] =>
      stopFindings({ ...stopped, pods, now })
        .filter(({ type }) => ['PodsGone', 'Effective', 'Ready'].includes(type))
        .map(({ status, reason }) => `${status} ${reason}`);
    expect(told([silent])).toEqual([
      'Unknown NodeSilent',
      'Unknown Unverified',
      'False Unverified',
    ]);
    expect(told([silent, pod])).toEqual([
      'False PodsTerminating',
      'False Stopping',
      'False Stopping',
    ]);
  });

  it('stays short at any number of pods', () => {
    const pods = Array.from({ length: 5000 }, (_, n): Pod => ({ metadata: { name: `pod-${n}` } }));
    const podsGone = stopFindings({ ...stopped, pods }).find(({ type }) => type === 'PodsGone');
    expect(podsGone?.message).toContain('5000 pods');
    expect(podsGone?.message.length).toBeLessThan(200);
  });
});

describe('releaseFindings', () => {
  it('says by whom, and what it waits for', () => {
    const findings = releaseFindings({
      lifted: true,
      releasedBy: 'bob',
      waiting: ['Deployment w'],
    });
    const ready = findings.find(({ type }) => type === 'Ready');
    expect(ready).toMatchObject({ status: 'False', reason: 'Releasing' });
    expect(ready?.message).toContain('bob');
    expect(ready?.message).toContain('Deployment w');
  });
});
