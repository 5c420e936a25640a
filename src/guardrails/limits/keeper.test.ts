import { isDeepStrictEqual } from 'node:util';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Limits } from '../../api/limits.ts';
import { annotation, label } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import type { Workflow } from '../../api/workflow.ts';
import { projectWorkload, type Workload } from '../../api/workload.ts';
import { silentLogger } from '../../observability/logger.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { GoneRuns } from './gone-runs.ts';
import { LimitKeeper } from './keeper.ts';

const key = { namespace: 'billing', name: 'poster' };
const context = { signal: new AbortController().signal, log: silentLogger() };

/** A Workflow, and an operator that may end between any two writes. */
class Cluster {
  readonly client = new MemoryClient(() => this.now);
  readonly goneRuns = new GoneRuns();
  readonly jobs: Workload[] = [];
  now = Date.UTC(2030, 0, 1);
  readonly #keeper = new LimitKeeper({
    client: this.client,
    goneRuns: this.goneRuns,
    clock: () => this.now,
  });

  constructor(limits: Partial<Limits>) {
    this.put({ spec: { targets: [], limits: { onBreach: 'Hold', ...limits } } });
  }

  get workflow(): Workflow {
    const found = this.client.find(resources.workflows, key);
    if (found === undefined) throw new Error('no Workflow');
    return found;
  }

  put(fields: Partial<Workflow>): void {
    const before = this.client.find(resources.workflows, key);
    this.client.put(resources.workflows, {
      metadata: { ...key, uid: 'uid-1' },
      spec: { targets: [] },
      ...before,
      ...fields,
    });
  }

  annotate(annotations: Record<string, string>): void {
    const { metadata } = this.workflow;
    this.put({
      metadata: { ...metadata, annotations: { ...metadata.annotations, ...annotations } },
    });
  }

  acknowledge(reason: string): void {
    this.annotate({ [annotation.acknowledge]: reason, [annotation.acknowledgedBy]: 'alice' });
  }

  run(...names: string[]): void {
    const creationTimestamp = new Date(this.now).toISOString();
    for (const name of names) {
      const metadata = { name, namespace: 'billing', uid: `uid-${name}`, creationTimestamp };
      this.jobs.push({ ...projectWorkload('Job', { metadata }), serviceAccountName: 'poster' });
    }
  }

  /** As the controller does; `false` where it is to look again. */
  async look({ stores = true } = {}): Promise<boolean> {
    const { workflow } = this;
    if (await this.#keeper.mark(workflow, context)) return false;
    const killSwitch = this.client.find(resources.killSwitches, key);
    const count = await this.#keeper.count(
      { workflow, spec: workflow.spec },
      this.jobs,
      killSwitch,
      context,
    );
    if (!stores) return true;
    this.put({ status: count.ledger === undefined ? {} : { runs: count.ledger } });
    this.#keeper.stored(count);
    return true;
  }

  async settle(): Promise<void> {
    let before: Workflow;
    do {
      before = this.workflow;
      await this.look();
    } while (!isDeepStrictEqual(untouched(before), untouched(this.workflow)));
  }

  get marks(): object {
    const { labels = {}, annotations = {} } = this.workflow.metadata;
    return { ...labels, ...annotations };
  }
}

function untouched({ metadata, ...others }: Workflow): object {
  return { ...others, labels: metadata.labels, annotations: metadata.annotations };
}

const held = {
  [label.limitBreached]: 'true',
  [annotation.limitBreach]: 'maxConcurrentRuns: 2 runs were under way at a time, and 1 may be.',
};

let cluster: Cluster;

beforeEach(() => {
  cluster = new Cluster({ maxConcurrentRuns: 1 });
});

describe('a breach that holds', () => {
  beforeEach(async () => {
    cluster.run('a', 'b');
    await cluster.settle();
  });

  it('is marked for admission, and marked once', async () => {
    expect(cluster.marks).toEqual(held);
    cluster.client.writes.length = 0;
    expect(await cluster.look()).toBe(true);
    expect(cluster.client.writes).toEqual([]);
  });

  it('is marked by who comes after a crash', async () => {
    const { metadata } = cluster.workflow;
    cluster.put({ metadata: { ...metadata, labels: {}, annotations: {} } });
    await cluster.settle();
    expect(cluster.marks).toEqual(held);
  });

  it('loses its marks when it ends', async () => {
    cluster.jobs.length = 0;
    await cluster.settle();
    expect(cluster.marks).toEqual({});
  });

  it('ends by an acknowledgement, which is taken note of and taken away', async () => {
    cluster.acknowledge('known');
    await cluster.settle();
    expect(cluster.marks).toEqual({});
    expect(cluster.workflow.status?.runs?.acknowledged).toMatchObject({
      by: 'alice',
      reason: 'known',
    });
  });

  it('is not acknowledged by what has no author', async () => {
    cluster.annotate({ [annotation.acknowledge]: 'known' });
    await cluster.settle();
    expect(cluster.marks).toEqual({ ...held, [annotation.acknowledge]: 'known' });
  });

  it('is not ended by an acknowledgement that a crash left behind', async () => {
    cluster.acknowledge('known');
    await cluster.look();
    // It is stored, and the operator ends before it takes the annotation away.
    cluster.run('c');
    await cluster.settle();
    expect(cluster.workflow.status?.runs?.breaches).toMatchObject([{ counted: 3 }]);
    expect(cluster.marks).toEqual({
      ...held,
      [annotation.limitBreach]: 'maxConcurrentRuns: 3 runs were under way at a time, and 1 may be.',
    });
    cluster.acknowledge('known');
    await cluster.settle();
    expect(cluster.marks).toEqual({});
  });

  it('takes away an acknowledgement of what has ended by itself', async () => {
    cluster.jobs.length = 0;
    await cluster.look();
    cluster.acknowledge('too late');
    await cluster.settle();
    expect(cluster.marks).toEqual({});
    expect(cluster.workflow.status?.runs?.acknowledged).toBeUndefined();
  });

  it('stays where the spec can not be read', async () => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the API server may hold
    cluster.put({ spec: undefined as unknown as Workflow['spec'] });
    await cluster.look();
    expect(cluster.marks).toEqual(held);
    expect(cluster.workflow.status?.runs?.breaches).toHaveLength(1);
  });
});

describe('a breach that kills', () => {
  beforeEach(async () => {
    cluster = new Cluster({ maxConcurrentRuns: 1, onBreach: 'Kill' });
    cluster.run('a', 'b');
  });

  it('engages one KillSwitch, also after a crash before the count was stored', async () => {
    await cluster.look({ stores: false });
    await cluster.settle();
    const killSwitch = cluster.client.find(resources.killSwitches, key);
    expect(killSwitch?.spec).toEqual({
      workflow: 'poster',
      reason: held[annotation.limitBreach],
      engagedBy: 'automation-guardrails',
    });
    expect(cluster.workflow.status?.runs?.killSwitch).toBe(killSwitch?.metadata.uid);
    expect(cluster.marks).toEqual({});
    expect(cluster.client.all(resources.killSwitches)).toHaveLength(1);
  });

  it('counts anew when that is gone, and not before', async () => {
    await cluster.settle();
    await cluster.look();
    expect(cluster.workflow.status?.runs?.breaches).toHaveLength(1);
    cluster.client.remove(resources.killSwitches, key);
    await cluster.settle();
    expect(cluster.workflow.status?.runs?.breaches).toBeUndefined();
    cluster.run('c');
    await cluster.settle();
    expect(cluster.client.find(resources.killSwitches, key)?.spec.reason).toContain('3 runs');
  });
});

describe('a deleted Job', () => {
  it('is counted once, whether or not it was counted before', async () => {
    cluster = new Cluster({ maxRunsPerHour: 2 });
    cluster.run('a', 'b', 'c');
    for (const job of cluster.jobs.splice(0)) cluster.goneRuns.add(job);
    await cluster.look({ stores: false });
    expect(cluster.goneRuns.of('billing/poster')).toHaveLength(3);
    await cluster.settle();
    expect(cluster.goneRuns.of('billing/poster')).toEqual([]);
    expect(cluster.workflow.status?.runs?.perMinute?.created).toEqual([3]);
    expect(cluster.workflow.status?.runs?.breaches).toMatchObject([{ counted: 3 }]);
  });

  it('is forgotten when there are too many others', () => {
    cluster.run(...Array.from({ length: 5_002 }, (_, index) => `${index}`));
    for (const job of cluster.jobs) cluster.goneRuns.add(job);
    const kept = cluster.goneRuns.of('billing/poster');
    expect(kept).toHaveLength(5_000);
    expect(kept[0]?.uid).toBe('uid-2');
  });
});
