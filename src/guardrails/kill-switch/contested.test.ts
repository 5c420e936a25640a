import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { annotation } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import { projectWorkload, type Workload } from '../../api/workload.ts';
import { Contests, ownerOfPause } from './contested.ts';
import type { Paused } from './pausing.ts';

interface Entry {
  manager: string;
  subresource?: string;
  time?: string;
  fieldsV1: object;
}

const replicas = { 'f:spec': { 'f:replicas': {} } };

function deployment(version: number, uid = 'u1', managedFields: readonly Entry[] = []): KubeObject {
  return {
    metadata: {
      name: 'poster',
      namespace: 'finance',
      uid,
      resourceVersion: String(version),
      annotations: { [annotation.restoreReplicas]: '3' },
      managedFields: [...managedFields],
    },
    spec: { replicas: 3 },
  } as KubeObject;
}

const running = (version: number, uid?: string): Workload =>
  projectWorkload('Deployment', deployment(version, uid));

const scaledBy = (manager: string): Entry => ({
  manager,
  subresource: 'scale',
  time: '2026-01-01T00:00:02Z',
  fieldsV1: replicas,
});

/** A contest whose clock the test moves. */
function contests(): {
  memory: Contests;
  wake: (version: number) => void;
  pass: (ms: number) => void;
  writes: string[];
} {
  let now = 0;
  const writes: string[] = [];
  const memory = new Contests({ clock: () => now, onPausedAgain: (kind) => writes.push(kind) });
  return {
    memory,
    writes,
    wake: (version) =>
      memory.told(
        running(version),
        answer(deployment(version + 1, 'u1', [scaledBy('autoscaler')])),
      ),
    pass: (ms) => (now += ms),
  };
}

const answer = (stored: KubeObject): Paused => ({ stored, found: stored });

describe('contests', () => {
  it('lets what was never paused be paused at once, and remembers nothing of it', () => {
    const { memory, writes } = contests();
    const never = { ...running(1), metadata: { ...running(1).metadata, annotations: {} } };
    for (let i = 0; i < 10; i++) memory.told(never, answer(deployment(2)));
    expect(memory.isDue(never)).toBe(true);
    expect(memory.finding([never])).toMatchObject({ status: 'False', reason: 'NotContested' });
    expect(writes).toEqual([]);
  });

  it('pauses at once what was woken once', () => {
    const { memory, wake } = contests();
    wake(1);
    expect(memory.isDue(running(3))).toBe(true);
    expect(memory.finding([running(3)]).status).toBe('False');
  });

  it('waits twice as long each time, a minute at most', () => {
    const { memory, wake, pass } = contests();
    const waits: number[] = [];
    for (let version = 1; version < 40; version += 2) {
      wake(version);
      let waited = 0;
      while (!memory.isDue(running(version + 2))) {
        pass(500);
        waited += 500;
      }
      waits.push(waited);
    }
    expect(waits.slice(0, 9)).toEqual([0, 1, 2, 4, 8, 16, 32, 60, 60].map((s) => s * 1000));
    expect(waits.at(-1)).toBe(60_000);
  });

  it('names the workload, how often, and who', () => {
    const { memory, wake, writes } = contests();
    for (const version of [1, 3, 5]) wake(version);
    const { status, message } = memory.finding([running(7)]);
    expect(status).toBe('True');
    expect(message).toContain("Deployment poster, 3 times, by 'autoscaler' (through scale)");
    expect(memory.finding([running(7, 'another')]).status).toBe('False');
    expect(writes).toEqual(['Deployment', 'Deployment', 'Deployment']);
  });

  it('does not write again what a cache merely does not show yet', () => {
    const { memory, wake } = contests();
    wake(5);
    expect(memory.isDue(running(5))).toBe(false);
    expect(memory.isDue(running(6))).toBe(false);
    expect(memory.isDue(running(7))).toBe(true);
  });

  it('is over when the workload stayed paused for ten minutes', () => {
    const { memory, wake, pass } = contests();
    for (const version of [1, 3, 5, 7, 9]) wake(version);
    pass(600_000);
    expect(memory.finding([running(11)]).status).toBe('False');
    expect(memory.isDue(running(11))).toBe(true);
  });

  it('remembers a bounded number of workloads, and names five', () => {
    const memory = new Contests({ clock: () => 0, maxWorkloads: 10 });
    const all = Array.from({ length: 12 }, (_, index) => running(1, `u${index}`));
    for (const workload of [...all, ...all, ...all, ...all].toSorted((a, b) =>
      a.metadata.uid.localeCompare(b.metadata.uid),
    )) {
      memory.told(workload, answer(deployment(2, workload.metadata.uid)));
    }
    const { message } = memory.finding(all);
    expect(message).toContain('and 5 more');
  });

  it('never pauses a workload more than 13 times in the first ten minutes, whatever is written', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 20_000 }), { maxLength: 2000 }), (gaps) => {
        const { memory, wake, pass, writes } = contests();
        let now = 0;
        let version = 1;
        for (const gap of gaps) {
          pass(gap);
          now += gap;
          if (now > 600_000) break;
          version += 2;
          if (memory.isDue(running(version))) wake(version);
        }
        expect(writes.length).toBeLessThanOrEqual(17);
      }),
    );
  });
});

describe('the owner of a pause', () => {
  it('is the latest manager of the field', () => {
    const object = deployment(1, 'u1', [
      { manager: 'helm', time: '2026-01-01T00:00:00Z', fieldsV1: replicas },
      scaledBy('autoscaler'),
      { manager: 'kubectl', time: '2026-01-01T00:00:01Z', fieldsV1: replicas },
      { manager: 'painter', time: '2026-01-01T00:00:03Z', fieldsV1: { 'f:metadata': {} } },
    ]);
    expect(ownerOfPause('Deployment', object)).toEqual({
      manager: 'autoscaler',
      subresource: 'scale',
    });
  });

  it('is found by the field of each kind', () => {
    const suspended = { 'f:spec': { 'f:suspend': {} } };
    const selected = { 'f:spec': { 'f:template': { 'f:spec': { 'f:nodeSelector': {} } } } };
    const object = deployment(1, 'u1', [
      { manager: 'scaler', fieldsV1: replicas },
      { manager: 'runner', fieldsV1: suspended },
      { manager: 'placer', fieldsV1: selected },
    ]);
    expect(ownerOfPause('StatefulSet', object)?.manager).toBe('scaler');
    expect(ownerOfPause('CronJob', object)?.manager).toBe('runner');
    expect(ownerOfPause('DaemonSet', object)?.manager).toBe('placer');
  });

  it('is unknown, and nothing throws, whatever managedFields hold', () => {
    fc.assert(
      fc.property(fc.anything(), (managedFields) => {
        const object = { metadata: { name: 'x', managedFields } } as KubeObject;
        expect(ownerOfPause('Deployment', object)).toBeUndefined();
      }),
    );
  });
});
