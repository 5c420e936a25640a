import { beforeEach, describe, expect, it } from 'vitest';
import type { NetworkPolicy } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { Workflow } from '../../api/workflow.ts';
import type { Workload } from '../../api/workload.ts';
import { Applier } from '../../runtime/applier.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { applyEgress } from './apply.ts';
import { closeEgress, isClosed } from './close.ts';
import { planEgress } from './plan.ts';

const { signal } = new AbortController();
const workflow: Workflow = {
  metadata: { name: 'poster', namespace: 'billing', uid: 'uid-poster' },
  spec: { targets: [] },
};
const workload = (app: string): Workload => ({
  kind: 'Deployment',
  metadata: { name: app, namespace: 'billing', uid: `uid-${app}` },
  serviceAccountName: 'poster',
  podLabels: { app },
  podSelector: { matchLabels: { app } },
  secretNames: [],
  isPaused: false,
  isRolledOut: true,
  codeDigest: '',
  finished: false,
  scaleDeletesVolumes: false,
});
const entries = [{ cidr: '203.0.113.10/32', reason: 'ERP' }];

let client: MemoryClient;
const live = (): NetworkPolicy[] => client.all(resources.networkPolicies);

/** As the leader does. */
async function keep(apps: readonly string[], isKilled: boolean): Promise<void> {
  const plan = planEgress({
    workflow,
    entries,
    workloads: apps.map(workload),
    live: live(),
    isWithheld: isKilled,
    isClosed: isKilled,
    isGuarded: true,
  });
  const applier = new Applier({ client });
  await applyEgress(plan, { client, applier, serviceAccountName: 'poster', signal });
}

/** As every replica does. */
const close = (): Promise<string[]> =>
  closeEgress(workflow, live(), { applier: new Applier({ client }), signal });

beforeEach(async () => {
  client = new MemoryClient(() => 0);
  await keep(['web', 'worker'], false);
  client.writes.length = 0;
});

describe('the policies of a killed Workflow', () => {
  it('are closed, once', async () => {
    expect(live().some(isClosed)).toBe(false);
    expect(await close()).toHaveLength(3);
    expect(live().every(isClosed)).toBe(true);
    client.writes.length = 0;
    expect(await close()).toEqual([]);
    expect(client.writes).toEqual([]);
  });

  it('are the same to the leader, which writes none of them again', async () => {
    await close();
    client.writes.length = 0;
    await keep(['web', 'worker'], true);
    expect(client.writes).toEqual([]);
  });

  it('are closed by the leader too, the new one and the one that nothing needs any more', async () => {
    await keep(['web', 'importer'], true);
    expect(live()).toHaveLength(4);
    expect(live().every(isClosed)).toBe(true);
  });

  it('are open again after the release', async () => {
    const before = live().map(({ spec }) => spec);
    await close();
    await keep(['web', 'worker'], false);
    expect(live().map(({ spec }) => spec)).toEqual(before);
  });

  it('that somebody has turned around count as open, and are closed', async () => {
    await close();
    const [policy] = live();
    client.put(resources.networkPolicies, {
      ...policy!,
      spec: { ...policy!.spec, policyTypes: ['Ingress'] },
    });
    expect(live().every(isClosed)).toBe(false);
    await close();
    expect(live().every(isClosed)).toBe(true);
  });

  it('whose selector somebody has emptied go, instead of cutting off the whole namespace', async () => {
    const [policy, ...others] = live();
    client.put(resources.networkPolicies, {
      ...policy!,
      spec: { ...policy!.spec, podSelector: {} },
    });
    await close();
    expect(live().map(({ metadata }) => metadata.name)).toEqual(
      others.map(({ metadata }) => metadata.name),
    );
    expect(live().every(isClosed)).toBe(true);
  });
});
