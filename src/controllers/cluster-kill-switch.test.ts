import { beforeEach, expect, it } from 'vitest';
import { clusterProbePolicyName } from '../admission/index.ts';
import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import { label } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { silentLogger } from '../observability/logger.ts';
import type { ObjectKey, WriteOptions } from '../runtime/client.ts';
import { ApiError } from '../runtime/errors.ts';
import { StatusWriter } from '../runtime/status-writer.ts';
import { ClusterKillSwitchController } from './cluster-kill-switch.ts';

const now = Date.parse('2026-05-01T00:00:00Z');
const denial = `ValidatingAdmissionPolicy '${clusterProbePolicyName}' with binding '${clusterProbePolicyName}' denied request: kill switch: rogue`;

/** Refuses every probe; its CustomResourceDefinition may be of a version without the list. */
class FencingClient extends MemoryClient {
  knowsList = true;

  override async mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: { status?: { fenced?: unknown } },
    options: WriteOptions = {},
  ): Promise<T> {
    if (options.dryRun === true) throw new ApiError(denial, { status: 422 });
    const { fenced: _, ...status } = patch.status ?? {};
    const kept = this.knowsList || patch.status === undefined ? patch : { ...patch, status };
    return super.mergePatch(resource, key, kept, options);
  }
}

let client: FencingClient;

beforeEach(() => {
  client = new FencingClient(() => now);
  client.put(resources.namespaces, {
    metadata: { name: 'finance', labels: { [label.environment]: 'prod' } },
  });
  client.put(resources.workflows, {
    metadata: { name: 'invoice', namespace: 'finance' },
    spec: { owner: { team: 'payments' }, targets: [] },
  });
  client.put(resources.clusterKillSwitches, {
    metadata: { name: 'payments' },
    spec: { teams: ['payments'], reason: 'rogue', engagedBy: 'alice' },
  });
});

async function reconcile(): Promise<ClusterKillSwitch | undefined> {
  const controller = new ClusterKillSwitchController({
    client,
    statusWriter: new StatusWriter({ client }),
    events: { normal: () => undefined, warning: () => undefined },
    clusterKillSwitches: client.storeOf(resources.clusterKillSwitches),
    killSwitches: client.storeOf(resources.killSwitches),
    namespaces: client.storeOf(resources.namespaces),
    workflows: client.storeOf(resources.workflows),
    covers: () => true,
    operatorNamespace: 'automation-guardrails',
    parallelism: 2,
    clock: () => now,
  });
  const { signal } = new AbortController();
  await controller.reconcile('payments', { signal, correlationId: 'c', log: silentLogger() });
  return client.find(resources.clusterKillSwitches, { name: 'payments' });
}

function fencedBy(clusterKillSwitch: ClusterKillSwitch | undefined): string | undefined {
  const found = clusterKillSwitch?.status?.conditions?.find(({ type }) => type === 'Fenced');
  return found && `${found.status} ${found.reason}`;
}

it('is the fence of the Workflows that its status lists, as soon as that stands', async () => {
  const stopped = await reconcile();
  expect(stopped?.status?.fenced).toEqual({ finance: ['invoice'] });
  expect(fencedBy(stopped)).toBe('True EachFenced');
});

it('fences nothing by a list that the API server does not keep', async () => {
  client.knowsList = false;
  expect(fencedBy(await reconcile())).toBe('False NotEachFenced');
  await reconcile();
  const { length } = client.writes;
  const standing = await reconcile();
  expect(fencedBy(standing)).toBe('False NotEachFenced');
  // One look whether the list is kept by now; the report has nothing new to say.
  expect(client.writes.slice(length)).toHaveLength(1);
});
