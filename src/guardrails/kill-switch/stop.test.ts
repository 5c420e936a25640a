import { describe, expect, it } from 'vitest';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { KubeObject } from '../../api/objects.ts';
import { projectWorkload, type Workload } from '../../api/workload.ts';
import { resources } from '../../api/resources.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { Contests } from './contested.ts';
import { pausingByAdmission, type Paused } from './pausing.ts';
import { jobTrackingFinalizer } from './plan.ts';
import { deletePods, pauseWorkloads } from './stop.ts';

const killSwitch: KillSwitch = {
  metadata: { name: 'invoice', namespace: 'finance', uid: 'kill-1' },
  spec: { workflow: 'invoice', reason: 'runaway', engagedBy: 'alice' },
};

function deployment(name: string, replicas: number): KubeObject {
  return {
    metadata: { name, namespace: 'finance', uid: name },
    spec: { replicas, template: { spec: { serviceAccountName: 'invoice' } } },
  } as KubeObject;
}

function workloads(...names: string[]): Workload[] {
  return names.map((name) => projectWorkload('Deployment', deployment(name, 1)));
}

/** Pauses in the way that is given; tells what was asked for, in its order, and what was told. */
function pausing(pause: (name: string, tries: number) => number | Promise<number>) {
  const touched: string[] = [];
  const told: string[] = [];
  const options = {
    client: {} as KubeClient,
    parallelism: 2,
    podGraceSeconds: 30,
    signal: new AbortController().signal,
    contests: {
      isDue: () => true,
      told: ({ metadata }: Workload) => {
        told.push(metadata.name);
      },
    },
    pausing: {
      pause: async (_: KillSwitch, { metadata: { name } }: Workload): Promise<Paused> => {
        touched.push(name);
        const tries = touched.filter((one) => one === name).length;
        const stored = deployment(name, await pause(name, tries));
        return { stored, found: stored };
      },
      resume: async () => [],
    },
  };
  return { options, touched, told };
}

describe('pausing many workloads', () => {
  it('begins with one, until the API server has read the KillSwitch', async () => {
    let isRead = false;
    let ahead: number | undefined;
    const tooEarly: string[] = [];
    const { options, touched, told } = pausing((name, tries) => {
      ahead ??= performance.now();
      if (name === 'a') {
        isRead = tries === 3;
        return isRead ? 0 : 1;
      }
      // On a slow machine the moment that the others wait may be over before.
      if (!isRead && performance.now() - ahead < 200) tooEarly.push(name);
      return 0;
    });
    const outcomes = await pauseWorkloads(killSwitch, workloads('a', 'b', 'c'), options);
    expect(touched.slice(0, 1)).toEqual(['a']);
    expect(touched.toSorted()).toEqual(['a', 'a', 'a', 'b', 'c']);
    expect(tooEarly).toEqual([]);
    expect(told.toSorted()).toEqual(['a', 'b', 'c']);
    expect(outcomes.map((one) => 'result' in one && one.result?.isPaused)).toEqual([
      true,
      true,
      true,
    ]);
  });

  it('goes on where that one stays as it is', async () => {
    const { options } = pausing((name) => (name === 'a' ? 1 : 0));
    const [first, second] = await pauseWorkloads(killSwitch, workloads('a', 'b'), options);
    expect(first).toMatchObject({ result: { isPaused: false } });
    expect(second).toMatchObject({ result: { isPaused: true } });
  });

  it('goes on where that one fails', async () => {
    const { options } = pausing((name) => {
      if (name === 'a') throw new Error('refused');
      return 0;
    });
    const [first, second] = await pauseWorkloads(killSwitch, workloads('a', 'b'), options);
    expect(first).toMatchObject({ error: new Error('refused') });
    expect(second).toMatchObject({ result: { isPaused: true } });
  });

  it('goes on where that one gets no answer', async () => {
    const answered = Promise.withResolvers<number>();
    const { options } = pausing((name) => {
      if (name === 'a') return answered.promise;
      answered.resolve(0);
      return 0;
    });
    const outcomes = await pauseWorkloads(killSwitch, workloads('a', 'b'), options);
    expect(outcomes).toHaveLength(2);
  });
});

describe('deleting pods', () => {
  it('is done for a pod of a Job also where somebody refuses its update, and tells of that', async () => {
    const client = new MemoryClient(() => 0);
    const pod = client.put(resources.pods, {
      metadata: { namespace: 'billing', name: 'run', finalizers: [jobTrackingFinalizer] },
      spec: { serviceAccountName: 'poster' },
      status: { phase: 'Running' },
    });
    client.beforeWrite = ({ verb }) => {
      if (verb === 'patch') {
        throw new ApiError('failed calling webhook', { status: 500, reason: 'InternalError' });
      }
    };
    const [outcome] = await deletePods([pod], {
      client,
      pausing: pausingByAdmission(client),
      parallelism: 1,
      podGraceSeconds: 30,
      contests: new Contests({ clock: () => 0 }),
      signal: new AbortController().signal,
    });
    expect(client.writes.map(({ verb, kind }) => `${verb} ${kind}`)).toContain('delete Pod');
    expect(outcome).toHaveProperty('error');
  });
});
