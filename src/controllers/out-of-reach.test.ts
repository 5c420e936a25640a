import { beforeEach, describe, expect, it } from 'vitest';
import { probePolicyName } from '../admission/index.ts';
import { conditionOf } from '../api/conditions.ts';
import { label } from '../api/names.ts';
import type { Pod } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { podIdentity } from '../guardrails/kill-switch/pods.ts';
import { silentLogger } from '../observability/logger.ts';
import { ApiError } from '../runtime/errors.ts';
import { mergeStores } from '../runtime/merged-store.ts';
import { StatusWriter } from '../runtime/status-writer.ts';
import { OutOfReachController } from './out-of-reach.ts';

const key = { namespace: 'sales', name: 'invoice' };
const now = Date.parse('2026-05-01T00:00:00Z');

let client: MemoryClient;
let held: string[];

beforeEach(() => {
  client = new MemoryClient(() => now);
  held = [];
  client.put(resources.namespaces, {
    metadata: { name: 'sales', labels: { [label.environment]: 'prod' } },
  });
});

async function reconcile(): Promise<void> {
  const controller = new OutOfReachController({
    client,
    statusWriter: new StatusWriter({ client }),
    metrics: { setHeld: (kind, of, reason) => held.push(`${kind} ${of} ${String(reason)}`) },
    workflows: client.storeOf(resources.workflows),
    identities: client.storeOf(resources.automationIdentities),
    killSwitches: client.storeOf(resources.killSwitches),
    namespaces: client.storeOf(resources.namespaces),
    workloads: mergeStores([]),
    pods: client.storeOf<Pod>(resources.pods, { identity: (pod) => [podIdentity(pod)] }),
    clock: () => now,
  });
  const { signal } = new AbortController();
  const context = { signal, log: silentLogger(), correlationId: '1' };
  await controller.reconcile('sales/invoice', context);
}

const owner = { team: 't', contact: 'c@example.com', escalation: 'e' };

describe('what stands where the operator does not act', () => {
  it('is held for that, keeps what is recorded of it, and nothing else is written', async () => {
    client.put(resources.automationIdentities, {
      metadata: key,
      spec: { owner, purpose: 'Posts invoices.' },
      status: { tokens: [] },
    });
    await reconcile();
    const identity = client.find(resources.automationIdentities, key);
    for (const [type, status] of [
      ['Held', 'True'],
      ['Ready', 'False'],
    ] as const) {
      expect(conditionOf(identity?.status?.conditions, type)).toMatchObject({
        status,
        reason: 'NamespaceNotCovered',
        message: expect.stringContaining('sales is none of them'),
      });
    }
    expect(identity?.status?.holds).toMatchObject([{ reason: 'NamespaceNotCovered' }]);
    expect(identity?.status?.tokens).toEqual([]);
    expect(held).toContain('AutomationIdentity sales/invoice NamespaceNotCovered');
    expect(client.writes).toEqual([
      { verb: 'patch', kind: 'AutomationIdentity', name: 'invoice', subresource: 'status' },
    ]);
    await reconcile();
    expect(client.writes).toHaveLength(1);
  });

  it('counts as held no more when it is gone', async () => {
    await reconcile();
    expect(held).toEqual([
      'Workflow sales/invoice undefined',
      'AutomationIdentity sales/invoice undefined',
    ]);
  });

  it('is not stopped by its KillSwitch, which says so, and how far admission alone is', async () => {
    client.put(resources.killSwitches, {
      metadata: key,
      spec: { workflow: 'invoice', reason: 'runaway' },
    });
    client.put<Pod>(resources.pods, {
      metadata: { namespace: 'sales', name: 'runs', uid: 'p' },
      spec: { serviceAccountName: 'invoice' },
      status: { phase: 'Running' },
    });
    // The fence answers the dry run.
    client.beforeWrite = ({ kind, subresource }) => {
      if (kind !== 'KillSwitch' || subresource !== undefined) return;
      const message = `ValidatingAdmissionPolicy '${probePolicyName}' with binding '${probePolicyName}' denied request: kill switch: runaway`;
      throw new ApiError(message, { status: 422, reason: 'Forbidden' });
    };
    await reconcile();
    const killSwitch = client.find(resources.killSwitches, key);
    const conditions = killSwitch?.status?.conditions;
    expect(conditionOf(conditions, 'Fenced')?.reason).toBe('ProbeDenied');
    expect(conditionOf(conditions, 'PodsGone')?.status).toBe('False');
    for (const type of ['Effective', 'Ready']) {
      expect(conditionOf(conditions, type)).toMatchObject({
        status: 'False',
        reason: 'NamespaceNotCovered',
      });
    }
    expect(killSwitch?.status?.pods).toEqual({ remaining: 1 });
    expect(client.all(resources.pods)).toHaveLength(1);
  });
});
