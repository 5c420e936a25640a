import { beforeEach, describe, expect, it } from 'vitest';
import { clusterProbePolicyName } from '../admission/index.ts';
import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import { annotation, label } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { silentLogger } from '../observability/logger.ts';
import type { ReconcileResult } from '../runtime/controller.ts';
import { ApiError } from '../runtime/errors.ts';
import { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';
import { ClusterKillSwitchController } from './cluster-kill-switch.ts';
import type { KeepEvidence } from './kill-switch.ts';

const { clusterKillSwitches, killSwitches, namespaces, workflows } = resources;
const name = 'team-ledger';
const now = Date.parse('2026-05-01T00:00:00Z');
/** Where the operator has no rights. */
const uncovered = 'elsewhere';

/** An API server whose fence stands; its CustomResourceDefinition may be of a version without the list. */
class Client extends MemoryClient {
  knowsList = true;

  override async mergePatch<T extends KubeObject>(
    ...[resource, key, patch, options]: Parameters<typeof MemoryClient.prototype.mergePatch<T>>
  ): Promise<T> {
    if (options?.dryRun !== true) {
      return super.mergePatch(resource, key, this.knowsList ? patch : withoutList(patch), options);
    }
    const policy = clusterProbePolicyName;
    const message = `ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: kill switch: engaged`;
    throw new ApiError(message, { status: 422, reason: 'Invalid' });
  }
}

function withoutList(patch: { status?: { fenced?: unknown } }): object {
  const { fenced: _, ...status } = patch.status ?? {};
  return patch.status === undefined ? patch : { ...patch, status };
}

let client: Client;

beforeEach(() => {
  client = new Client(() => now);
  for (const namespace of ['finance', uncovered]) {
    client.put(namespaces, {
      metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
    });
    client.put(workflows, workflow(namespace, 'invoice'));
  }
  client.put(clusterKillSwitches, {
    metadata: { name },
    spec: { teams: ['ledger'], reason: 'leaked', engagedBy: 'alice' },
  });
});

function workflow(namespace: string, of: string, team = 'ledger'): Workflow {
  return {
    metadata: { namespace, name: of },
    spec: { owner: { team, contact: 'x@example.com', escalation: '#x' }, targets: [] },
  };
}

/** A replica. @param known what its cache has of Workflows; @param keepEvidence whether the log is written */
function replica(
  known: Pick<ReadStore<Workflow>, 'get' | 'list'> = client.storeOf(workflows),
  keepEvidence?: KeepEvidence,
): ClusterKillSwitchController {
  return new ClusterKillSwitchController({
    client,
    statusWriter: new StatusWriter({ client }),
    events: { normal: () => undefined, warning: () => undefined },
    clusterKillSwitches: client.storeOf(clusterKillSwitches),
    killSwitches: client.storeOf(killSwitches),
    namespaces: client.storeOf(namespaces),
    workflows: known,
    covers: (namespace) => namespace !== uncovered,
    operatorNamespace: 'automation-guardrails',
    ...(keepEvidence !== undefined && { keepEvidence }),
    parallelism: 2,
    clock: () => now,
  });
}

const knows = (...list: Workflow[]): Pick<ReadStore<Workflow>, 'get' | 'list'> => ({
  get: () => undefined,
  list: () => list,
});

const look = (controller: ClusterKillSwitchController): Promise<ReconcileResult> =>
  controller.reconcile(name, {
    signal: new AbortController().signal,
    correlationId: 'x',
    log: silentLogger(),
  });

const standing = (): ClusterKillSwitch | undefined => client.find(clusterKillSwitches, { name });
const fenced = (): unknown => standing()?.status?.fenced;
const members = (): string[] =>
  client
    .all(killSwitches)
    .map(({ metadata }) => `${metadata.namespace ?? ''}/${metadata.name}`)
    .toSorted();

const fence = (): string | undefined => {
  const found = standing()?.status?.conditions?.find(({ type }) => type === 'Fenced');
  return found && `${found.status} ${found.reason}`;
};

const both = { finance: ['invoice'], [uncovered]: ['invoice'] };

describe('what a ClusterKillSwitch stops by owner', () => {
  it('stays fenced where nothing else stops it, though it is given away or deleted', async () => {
    await look(replica());
    expect(fenced()).toEqual(both);
    client.put(workflows, workflow(uncovered, 'invoice', 'sales'));
    await look(replica());
    expect(fenced()).toEqual(both);
    expect(standing()?.status?.workflows?.total).toBe(2);
    client.remove(workflows, { namespace: uncovered, name: 'invoice' });
    await look(replica());
    expect(fenced()).toEqual(both);
    expect(members()).toEqual(['finance/invoice']);
  });

  it('is stopped by a KillSwitch, though it was given away before that stood', async () => {
    client.afterWrite = ({ subresource }) => {
      if (subresource === 'status') throw new Error('the process ends');
    };
    await expect(look(replica())).rejects.toThrow('the process ends');
    client.afterWrite = () => undefined;
    expect(members()).toEqual([]);
    client.put(workflows, workflow('finance', 'invoice', 'sales'));
    await look(replica());
    expect(members()).toEqual(['finance/invoice']);
  });

  it('is not taken off the list by a replica whose cache lags', async () => {
    await look(replica());
    await look(replica(knows()));
    expect(fenced()).toEqual(both);
    await look(replica(knows(workflow('finance', 'late'), workflow(uncovered, 'late'))));
    expect(fenced()).toEqual({
      finance: ['invoice', 'late'],
      [uncovered]: ['invoice', 'late'],
    });
  });

  it('is listed with what another replica lists at the same moment', async () => {
    const [one, other] = [
      replica(knows(workflow('finance', 'invoice'))),
      replica(knows(workflow(uncovered, 'invoice'))),
    ];
    let met = 0;
    client.beforeWrite = ({ subresource }) => {
      if (subresource !== 'status' || met++ > 0) return;
      const found = standing();
      if (found === undefined) return;
      const status = { ...found.status, fenced: { [uncovered]: ['other'] } };
      client.put(clusterKillSwitches, { ...found, status });
    };
    await Promise.allSettled([look(one), look(other)]);
    // Neither needed another look.
    expect(fenced()).toEqual({ finance: ['invoice'], [uncovered]: ['invoice', 'other'] });
  });

  it('engages nothing more when it was released while the list was written', async () => {
    client.beforeWrite = ({ subresource }) => {
      const found = standing();
      if (subresource !== 'status' || found === undefined) return;
      const annotations = { [annotation.release]: 'fixed', [annotation.releasedBy]: 'bob' };
      client.put(clusterKillSwitches, {
        ...found,
        metadata: { ...found.metadata, annotations },
      });
    };
    expect(await look(replica())).toEqual({ retry: true });
    expect(members()).toEqual([]);
    expect(fenced()).toBeUndefined();
  });

  it('is engaged though the list is refused, which is said and tried again', async () => {
    client.beforeWrite = ({ subresource }) => {
      if (subresource === 'status' && members().length === 0) {
        throw new ApiError('too large', { status: 413, reason: 'RequestEntityTooLarge' });
      }
    };
    await expect(look(replica())).rejects.toThrow('too large');
    expect(members()).toEqual(['finance/invoice']);
    expect(fence()).toBe('False NotEachFenced');
    await look(replica());
    expect(fenced()).toEqual(both);
    expect(fence()).toBe('True EachFenced');
  });

  it('is fenced by no list that the API server does not keep', async () => {
    client.knowsList = false;
    await look(replica());
    expect(fence()).toBe('False NotEachFenced');
    await look(replica());
    const { length } = client.writes;
    await look(replica());
    expect(fence()).toBe('False NotEachFenced');
    // One look whether the list is kept by now; the report has nothing new to say.
    expect(client.writes.slice(length)).toHaveLength(1);
  });

  it('leaves the list when it is being released, once what it says is in evidence', async () => {
    await look(replica());
    const found = standing();
    if (found === undefined) throw new Error('it is gone');
    const annotations = { [annotation.release]: 'fixed', [annotation.releasedBy]: 'bob' };
    client.put(clusterKillSwitches, { ...found, metadata: { ...found.metadata, annotations } });
    const unwritten = replica(client.storeOf(workflows), () => Promise.resolve(false));
    expect(await look(unwritten)).toEqual({ retry: true });
    expect(fenced()).toEqual(found.status?.fenced);
    await look(replica());
    expect(standing()?.metadata.labels).toHaveProperty([label.releasing], 'true');
    expect(fenced()).toBeUndefined();
  });
});
