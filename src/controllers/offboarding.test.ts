import { beforeEach, describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import { projectWorkload, type Workload } from '../api/workload.ts';
import { RevokedTokens } from '../guardrails/credentials/revoked-tokens.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { childMetadata } from '../guardrails/identity/plan.ts';
import { Departures, offboard } from './offboarding.ts';

const identity: AutomationIdentity = {
  metadata: { name: 'poster', namespace: 'billing', uid: 'uid-of-poster' },
  spec: {
    secrets: [{ name: 'erp', type: 'Password' }],
    tokens: [{ name: 'ci', audience: 'vault' }],
  },
  status: {
    secrets: [
      { name: 'erp', secretName: 'aid.poster.erp' },
      { name: 'bank', secretName: 'bank-api' },
    ],
    tokens: [{ name: 'ci', secretName: 'aid.poster.ci', audience: 'vault' }],
  },
};

/** What it has, in the order in which it goes. */
const children: readonly [Resource, string][] = [
  [resources.roleBindings, 'poster'],
  [resources.secrets, 'aid.poster.ci'],
  [resources.secrets, 'aid.poster.erp'],
  [resources.serviceAccounts, 'poster'],
  [resources.roles, 'poster'],
  [resources.roleBindings, 'poster.identity'],
];

let client: MemoryClient;
let told: string[];
let workloads: Workload[];
let leaving: AutomationIdentity;

beforeEach(() => {
  client = clientWith(identity);
  told = [];
  workloads = [];
  leaving = identity;
});

function clientWith(owner: AutomationIdentity): MemoryClient {
  const made = new MemoryClient(() => Date.parse('2026-05-01T00:00:00Z'));
  for (const [resource, name] of children) {
    made.put(resource, { metadata: childMetadata(owner, name) });
  }
  made.put(resources.secrets, { metadata: { name: 'bank-api', namespace: 'billing' } });
  return made;
}

function leave(): Promise<void> {
  return offboard(leaving, {
    client,
    events: {
      normal: (_about, reason) => told.push(reason),
      warning: (_about, reason, message) => told.push(`${reason}: ${message}`),
    },
    workloads: { list: () => workloads, byIndex: () => workloads },
    revoked: new RevokedTokens({ clock: () => 0 }),
    signal: new AbortController().signal,
  });
}

function left(): string[] {
  return children
    .filter(([resource, name]) => client.find(resource, { namespace: 'billing', name }))
    .map(([{ kind }, name]) => `${kind} ${name}`);
}

describe('offboarding', () => {
  it('takes permissions first, then tokens, credentials and the ServiceAccount, the mark last', async () => {
    await leave();
    expect(client.writes.map(({ verb, kind, name }) => `${verb} ${kind} ${name}`)).toEqual(
      children.map(([{ kind }, name]) => `delete ${kind} ${name}`),
    );
    expect(left()).toEqual([]);
    expect(told).toEqual(['Offboarded']);
    expect(
      client.find(resources.secrets, { namespace: 'billing', name: 'bank-api' }),
    ).toBeDefined();
  });

  it('leaves what is somebody else’s, or its successor’s', async () => {
    client = clientWith({ ...identity, metadata: { ...identity.metadata, uid: 'another' } });
    await leave();
    expect(left()).toHaveLength(children.length);
    expect(client.writes).toEqual([]);
    expect(client.gets.every(({ metadataOnly }) => metadataOnly)).toBe(true);
  });

  it('says so also where the garbage collector was as fast, and once where it waits to go', async () => {
    client = new MemoryClient(() => 0);
    await leave();
    expect(told.splice(0)).toEqual(['Offboarded']);
    leaving = {
      ...identity,
      metadata: { ...identity.metadata, deletionTimestamp: '2026-05-01T00:00:00Z' },
    };
    client = clientWith(identity);
    await leave();
    await leave();
    expect(told).toEqual(['Offboarded']);
  });

  it('names who still runs as it or reads its credentials, and not what is paused', async () => {
    const deployment = (name: string, replicas: number): Workload =>
      projectWorkload('Deployment', {
        metadata: { name, namespace: 'billing' },
        spec: { replicas },
      } as KubeObject);
    workloads = [deployment('reader', 1), deployment('idle', 0)];
    await leave();
    expect(told[1]).toContain('ConsumersLeft: 1 workloads');
    expect(told[1]).toContain('Deployment reader');
  });

  it('cut off before or after any write, leaves nothing when taken up again, and never more', async () => {
    for (let at = 1; at <= children.length; at++) {
      for (const fate of ['before', 'after'] as const) {
        client = clientWith(identity);
        let writes = 0;
        const cut = (): void => {
          if (writes === at) throw new Error('killed');
        };
        client.beforeWrite = () => {
          writes++;
          if (fate === 'before') cut();
        };
        client.afterWrite = () => {
          if (fate === 'after') cut();
        };
        await expect(leave()).rejects.toThrow();
        expect(left()).toEqual(
          children
            .slice(fate === 'before' ? at - 1 : at)
            .map(([{ kind }, name]) => `${kind} ${name}`),
        );
        client.beforeWrite = () => undefined;
        client.afterWrite = () => undefined;
        await leave();
        expect(left()).toEqual([]);
      }
    }
  });
});

describe('the identities that were deleted', () => {
  it('are forgotten when they are done with, and their successors are not', () => {
    const departures = new Departures();
    departures.add(identity);
    const successor = { ...identity, metadata: { ...identity.metadata, uid: 'another' } };
    departures.delete(successor);
    expect(departures.get('billing/poster')).toBe(identity);
    departures.delete(identity);
    expect(departures.get('billing/poster')).toBeUndefined();
  });

  it('are no more than a thousand, the latest', () => {
    const departures = new Departures();
    const named = (name: string): AutomationIdentity => ({
      ...identity,
      metadata: { ...identity.metadata, name },
    });
    for (let n = 0; n <= 1_000; n++) departures.add(named(`n${n}`));
    expect(departures.get('billing/n0')).toBeUndefined();
    expect(departures.get('billing/n1000')).toBeDefined();
  });
});
