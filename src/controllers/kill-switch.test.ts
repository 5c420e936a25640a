import { beforeEach, describe, expect, it } from 'vitest';
import type { ClusterKillSwitchSpec } from '../api/cluster-kill-switch.ts';
import { conditionOf } from '../api/conditions.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { annotation, label } from '../api/names.ts';
import type { Condition, KubeObject } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import { RevokedTokens } from '../guardrails/credentials/revoked-tokens.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { silentLogger } from '../observability/logger.ts';
import type { ReconcileResult } from '../runtime/controller.ts';
import { ApiError } from '../runtime/errors.ts';
import { StatusWriter } from '../runtime/status-writer.ts';
import { KillSwitchController } from './kill-switch.ts';

const namespace = 'finance';
const at = { namespace, name: 'invoice' };
const now = Date.parse('2026-05-01T00:00:00Z');

/** An API server that may not serve ClusterKillSwitches. */
class Client extends MemoryClient {
  error: ApiError | undefined;

  override async list(...args: Parameters<MemoryClient['list']>): Promise<never[]> {
    const [resource] = args;
    if (this.error !== undefined && resource.kind === 'ClusterKillSwitch') throw this.error;
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of whatever kind is asked for
    return (await super.list(resource)) as never[];
  }
}

let client: Client;
let told: string[];
/** Whether each that was to be kept was being released already, and what the log answers. */
let kept: boolean[];
let isKept: boolean;
let controller: KillSwitchController;

beforeEach(() => {
  client = new Client(() => now);
  told = [];
  kept = [];
  isKept = true;
  client.put(resources.namespaces, {
    metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
  });
  client.put(resources.workflows, {
    metadata: at,
    spec: {
      owner: { team: 'ledger', contact: 'x@example.com', escalation: '#x' },
      targets: [],
      egress: [{ host: 'erp.example', reason: 'ERP' }],
    },
  });
  client.put(resources.killSwitches, {
    metadata: {
      ...at,
      uid: 'uid-1',
      annotations: { [annotation.release]: 'fixed', [annotation.releasedBy]: 'bob' },
    },
    spec: { workflow: 'invoice', reason: 'runaway', engagedBy: 'alice' },
  });
  const byNamespace = { namespace: ({ metadata }: KubeObject) => [metadata.namespace ?? ''] };
  const none = { byIndex: () => [], list: () => [] };
  const workflows = client.storeOf(resources.workflows, byNamespace);
  const identities = client.storeOf(resources.automationIdentities, byNamespace);
  const pods = client.storeOf(resources.pods);
  const killSwitches = client.storeOf(resources.killSwitches);
  controller = new KillSwitchController({
    client,
    statusWriter: new StatusWriter({ client }),
    events: {
      normal: (_, reason, message) => told.push(`${reason}: ${message}`),
      warning: (_, reason, message) => told.push(`! ${reason}: ${message}`),
    },
    metrics: {
      observeStop: () => undefined,
      countContestedWrite: () => undefined,
      countBreakGlass: () => undefined,
    },
    killSwitches,
    workflows,
    identities,
    namespaces: client.storeOf(resources.namespaces),
    operatorNamespace: 'automation-guardrails',
    ladder: {
      workflows,
      identities,
      serviceAccounts: client.storeOf(resources.serviceAccounts),
      roleBindings: client.storeOf(resources.roleBindings),
      networkPolicies: client.storeOf(resources.networkPolicies),
      pods,
      workloads: none,
    },
    plugIn: {
      isDenied: () => true,
      named: () => [],
      deny: () => Promise.resolve(undefined),
      kind: 'None',
    },
    revokedTokens: new RevokedTokens({ clock: () => now }),
    secretStore: {
      placeOf: () => 'nowhere',
      withdraw: () => Promise.resolve({ withdrawn: [], remaining: [], wasAsked: true }),
    },
    workloads: none,
    pods,
    pausing: {
      pause: () => Promise.reject(new Error('not needed')),
      resume: () => Promise.reject(new Error('not needed')),
    },
    pausesByPatch: () => false,
    keepEvidence: ({ metadata }) => {
      kept.push(metadata.labels?.[label.releasing] !== undefined);
      return Promise.resolve(isKept);
    },
    foreignKinds: [],
    parallelism: 4,
    podGraceSeconds: 30,
    clock: () => now,
  });
});

const log = silentLogger();

function reconcile(): Promise<ReconcileResult> {
  const { signal } = new AbortController();
  return controller.reconcile(`${namespace}/invoice`, { signal, correlationId: 'x', log });
}

function standing(): KillSwitch | undefined {
  return client.find(resources.killSwitches, at);
}

function engageInCluster(spec: Partial<ClusterKillSwitchSpec>, labels = {}): void {
  client.put(resources.clusterKillSwitches, {
    metadata: { name: 'all', labels },
    spec: { reason: 'leak', engagedBy: 'carol', ...spec },
  });
}

describe('the release of the KillSwitch of one Workflow', () => {
  it.each<[string, Partial<ClusterKillSwitchSpec>]>([
    ['its owner', { teams: ['ledger'] }],
    ['its risk', { risks: ['Low'] }],
  ])('lifts nothing while a ClusterKillSwitch stops %s', async (_, spec) => {
    engageInCluster(spec);
    expect(await reconcile()).toEqual({ retry: true });
    const { metadata, status } = standing() ?? {};
    expect(metadata?.labels?.[label.releasing]).toBeUndefined();
    const ready: Condition | undefined = conditionOf(status?.conditions, 'Ready');
    expect(ready?.message).toContain('The ClusterKillSwitch all stops it');
    expect(conditionOf(status?.conditions, 'Fenced')?.status).toBe('True');

    client.remove(resources.clusterKillSwitches, { name: 'all' });
    await reconcile();
    expect(standing()).toBeUndefined();
  });

  it.each<[string, () => void]>([
    ['of another owner', () => engageInCluster({ teams: ['sales'] })],
    [
      'that is being released itself',
      () => engageInCluster({ teams: ['ledger'] }, { [label.releasing]: 'true' }),
    ],
    [
      'of a kind that is not served',
      () => (client.error = new ApiError('not found', { status: 404, reason: 'NotFound' })),
    ],
  ])('waits for no ClusterKillSwitch %s', async (_, prepare) => {
    prepare();
    await reconcile();
    expect(standing()).toBeUndefined();
  });

  it('lifts nothing while nobody says what a ClusterKillSwitch stops', async () => {
    client.error = new ApiError('busy', { status: 503 });
    await expect(reconcile()).rejects.toThrow('busy');
    expect(standing()?.metadata.labels?.[label.releasing]).toBeUndefined();
  });

  it('begins once all that the kill says is in evidence, and ends once all of the release is', async () => {
    const before = standing();
    isKept = false;
    expect(await reconcile()).toEqual({ retry: true });
    expect(standing()).toEqual(before);
    isKept = true;
    await reconcile();
    expect(standing()).toBeUndefined();
    expect(kept).toEqual([false, false, true]);
  });

  it('ends although the Workflow is held, and says what is not back', async () => {
    const workflow = client.find(resources.workflows, at);
    if (workflow === undefined) throw new Error('no Workflow');
    const held = { type: 'Held', status: 'True', reason: 'OwnerMissing', message: '' } as const;
    const conditions = [{ ...held, lastTransitionTime: '2026-05-01T00:00:00Z' }];
    client.put(resources.workflows, { ...workflow, status: { conditions } });
    await reconcile();
    expect(standing()).toBeUndefined();
    expect(told).toContain(
      '! NotRestored: Held, and so not put back before the hold ends: egress of Workflow invoice (OwnerMissing).',
    );
  });
});
