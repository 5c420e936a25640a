import { beforeEach, describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { resources } from '../api/resources.ts';
import { CredentialCopies } from '../guardrails/credentials/copies.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { CopyLedger } from '../guardrails/secret-store/ledger.ts';
import {
  leftOf,
  noSecretStore,
  SecretStoreError,
  type CopyKey,
  type SecretStoreFailure,
} from '../guardrails/secret-store/store.ts';
import { silentLogger } from '../observability/logger.ts';
import { LeftCopies } from './left-copies.ts';

const at = { namespace: 'finance', name: 'poster' };
const keyOf = (uid: string, name = 'erp'): CopyKey => ({
  namespace: 'finance',
  identity: 'poster',
  uid,
  name,
});

let client: MemoryClient;
let ledger: CopyLedger;
let left: LeftCopies;
let copies: CredentialCopies;
/** What the cache has; the client is the API server. */
let cached: AutomationIdentity | undefined;
/** UIDs of copies that are in the vault. */
let inVault: Set<string>;
let failure: SecretStoreFailure | undefined;
let mount: string;
let server: string;
let told: string[];

beforeEach(() => {
  client = new MemoryClient(() => 0);
  cached = undefined;
  inVault = new Set();
  failure = undefined;
  mount = 'secret';
  server = 'https://vault';
  told = [];
  ledger = new CopyLedger({ client, namespace: 'automation-guardrails', logger: silentLogger() });
  const say = (_about: unknown, reason: string, message: string): void =>
    void told.push(`${reason}: ${message}`);
  const placeOf = ({ namespace, identity, name }: CopyKey): string =>
    `vault ${server} ${mount}/${namespace}/${identity}/${name}`;
  const locationOf = ({ namespace, identity, name }: CopyKey): string =>
    `vault ${mount}/${namespace}/${identity}/${name}`;
  copies = new CredentialCopies({
    store: {
      ...noSecretStore,
      locationOf,
      placeOf,
      withdraw: (keys) => {
        const error = failure && new SecretStoreError(failure, 'the vault says no');
        const withdrawn = keys.filter(({ uid }) => error === undefined && inVault.delete(uid));
        return Promise.resolve({
          withdrawn: withdrawn.map(({ name }) => name),
          remaining:
            error === undefined
              ? []
              : keys.map((key) => ({ name: key.name, what: leftOf(locationOf(key)), error })),
          wasAsked: true,
        });
      },
    },
    ledger,
    countCopy: () => undefined,
    clock: () => 0,
  });
  left = new LeftCopies({
    client,
    events: { normal: say, warning: say },
    identities: { get: () => cached },
    copies,
    ledger,
  });
});

async function copied(uid: string, name = 'erp'): Promise<void> {
  inVault.add(uid);
  const key = keyOf(uid, name);
  await ledger.record({ key, place: copies.placeOf(key) });
}

function standing(uid: string, metadata: object = {}): AutomationIdentity {
  return client.put(resources.automationIdentities, {
    metadata: { ...at, uid, ...metadata },
    spec: {},
  });
}

function end(leaving?: AutomationIdentity): Promise<number | undefined> {
  const signal = new AbortController().signal;
  return left.end('finance/poster', leaving, { signal, log: silentLogger() });
}

describe('copies of an identity that is gone', () => {
  it('are ended by what is written down alone, and then no longer written down', async () => {
    await copied('gone');
    expect(left.list()).toHaveLength(1);
    expect(await end()).toBeUndefined();
    expect(inVault).toEqual(new Set());
    expect(left.list()).toEqual([]);
    expect(told).toEqual([
      expect.stringContaining('CopyWithdrawn: All versions of credential erp'),
    ]);
  });

  it('are tried again, and told of, as long as the vault is away', async () => {
    await copied('gone');
    failure = 'Unavailable';
    expect(await end()).toBe(60_000);
    expect(told).toEqual([
      'CopiesRemain: 1 copies of its credentials can still be read. Copy in vault secret/finance/poster/erp could not be destroyed: the vault says no.',
    ]);
    expect(left.list()).toHaveLength(1);
    failure = undefined;
    expect(await end()).toBeUndefined();
    expect(inVault).toEqual(new Set());
  });

  it('of several of one name are all ended, and those of the one that stands are not', async () => {
    cached = standing('stands');
    for (const uid of ['gone-1', 'gone-2', 'stands']) await copied(uid);
    expect(left.list()).toHaveLength(2);
    expect(await end()).toBeUndefined();
    expect(inVault).toEqual(new Set(['stands']));
    expect(ledger.entriesOf('finance/poster').map(({ key }) => key.uid)).toEqual(['stands']);
  });

  it('stay where the API server has their identity, though a cache does not yet', async () => {
    standing('new');
    await copied('new');
    expect(await end()).toBeUndefined();
    expect(inVault).toEqual(new Set(['new']));
    expect(client.gets).toContainEqual({
      kind: 'AutomationIdentity',
      name: 'poster',
      metadataOnly: true,
    });
  });

  it('are ended as soon as it is on its way, whoever holds it up', async () => {
    cached = standing('leaves', { deletionTimestamp: '2026-05-01T00:00:00Z' });
    await copied('leaves');
    await end(cached);
    expect(inVault).toEqual(new Set());
  });

  it('are ended by its status where they were made before they were written down', async () => {
    inVault.add('gone');
    await end({
      metadata: { ...at, uid: 'gone' },
      spec: {},
      status: { secrets: [{ name: 'erp', secretName: 'aid.poster.erp', store: 'Vault' }] },
    });
    expect(inVault).toEqual(new Set());
  });

  it.each([
    ['another mount', () => (mount = 'other')],
    ['another server', () => (server = 'https://other')],
  ])('in a place that the operator is no longer told of are named: %s', async (_, move) => {
    await copied('gone');
    move();
    expect(await end()).toBe(600_000);
    expect(told.join()).toContain(
      'Copy in vault https://vault secret/finance/poster/erp could not be destroyed: the operator is not told of that place any more.',
    );
    expect(inVault).toEqual(new Set(['gone']));
    expect(left.list()).toHaveLength(1);
  });

  it('of which an earlier build did not write down the server count as elsewhere', async () => {
    inVault.add('gone');
    await ledger.record({ key: keyOf('gone'), place: 'vault secret/finance/poster/erp' });
    expect(await end()).toBe(600_000);
    expect(left.list()).toHaveLength(1);
  });

  it('that an administrator has taken out of the record are no longer asked for', async () => {
    await copied('gone');
    failure = 'Foreign';
    expect(await end()).toBe(600_000);
    const [record] = client.all(resources.configMaps);
    if (record === undefined) throw new Error('nothing is written down');
    client.put(resources.configMaps, { ...record, data: {} });
    expect(await end()).toBeUndefined();
    expect(left.list()).toEqual([]);
  });

  it('are gone where a successor has taken their place', async () => {
    cached = standing('stands');
    await copied('gone');
    await copied('stands');
    failure = 'Foreign';
    expect(await end()).toBeUndefined();
    expect(told).toEqual([]);
    expect(ledger.entriesOf('finance/poster').map(({ key }) => key.uid)).toEqual(['stands']);
  });
});

it('a copy of an identity that stands counts where the settings no longer lead to it, and is left alone', async () => {
  cached = standing('stands');
  await copied('stands');
  expect(left.list()).toEqual([]);
  server = 'https://other';
  expect(left.list()).toHaveLength(1);
  expect(await end()).toBeUndefined();
  expect(inVault).toEqual(new Set(['stands']));
  server = 'https://vault';
  expect(left.list()).toEqual([]);
});

it('where nothing is left, nobody is asked and nothing is written', async () => {
  cached = standing('stands');
  await copied('stands');
  const { length } = client.writes;
  expect(await end()).toBeUndefined();
  expect(client.gets).toEqual([]);
  expect(client.writes).toHaveLength(length);
});
