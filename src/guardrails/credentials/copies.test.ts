import { beforeEach, describe, expect, it } from 'vitest';
import { FakeVault } from '../../../test/fault/fake-vault.ts';
import { setUpVault } from '../../../test/operator/vault-setup.ts';
import type {
  AutomationIdentity,
  AutomationIdentityStatus,
  SecretEntry,
} from '../../api/automation-identity.ts';
import { annotation } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import type { Workload } from '../../api/workload.ts';
import { silentLogger } from '../../observability/logger.ts';
import { ApiError } from '../../runtime/errors.ts';
import { IdentityTokens } from '../secret-store/identity-token.ts';
import { CopyLedger } from '../secret-store/ledger.ts';
import { copyKeyOf, type SecretStore } from '../secret-store/store.ts';
import { VaultClient } from '../secret-store/vault-client.ts';
import { VaultStore } from '../secret-store/vault.ts';
import { CredentialCopies } from './copies.ts';
import { IssuingClient } from './issuing-client.testing.ts';
import { CredentialKeeper, type CredentialsOutcome, type Notice } from './keeper.ts';
import { seededBytes } from './random.testing.ts';
import { RevokedTokens } from './revoked-tokens.ts';
import { readClaims } from './token.ts';

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const start = Date.parse('2026-05-01T00:00:00Z');
const secretKey = { namespace: 'finance', name: 'aid.poster.erp' };
const path = 'automation-guardrails/finance/poster/erp';
const places = {
  mount: 'secret',
  authMount: 'kubernetes',
  pathPrefix: 'automation-guardrails',
} as const;

const operator = 'automation-guardrails';

class Crash extends Error {}

/** One identity with a credential in a vault, its keeper, and what each store has. */
class Bench {
  now = start;
  credentials: SecretEntry[] = [
    { name: 'erp', type: 'Password', store: 'Vault', rotation: { every: '24h', overlap: '2h' } },
  ];
  isWithheld = false;
  /** Of the vault, as the settings say it. */
  vaultNamespace: string | undefined;
  annotations: Record<string, string> = {};
  status: AutomationIdentityStatus = {};
  /** Requests that change something, in either place, in their order. */
  writes = 0;
  /** Called before such a request takes effect, and after. */
  atWrite: (when: 'before' | 'after', write: number) => void = () => undefined;
  readonly client = new IssuingClient(() => this.now);
  readonly vault: FakeVault;
  readonly notices: Notice[] = [];
  readonly said: string[] = [];
  readonly secrets = new Set<string>();
  readonly #randomBytes = seededBytes();
  #crashed = false;
  #vaultClient: VaultClient | undefined;
  #keeper: CredentialKeeper | undefined;
  #copies: CredentialCopies | undefined;
  #ledger: CopyLedger | undefined;

  constructor() {
    this.vault = new FakeVault({
      clock: () => this.now,
      review: (jwt, audience) => {
        const claims = readClaims(jwt);
        const account = this.client
          .all(resources.serviceAccounts)
          .find(({ metadata }) => metadata.uid === claims?.accountUid);
        const { namespace = '', name = '', uid = '' } = account?.metadata ?? {};
        return Promise.resolve(
          this.client.accepts(jwt, [audience]) ? { namespace, name, uid } : undefined,
        );
      },
    });
    this.vault.onSecret = (text) => this.secrets.add(text);
    this.client.beforeWrite = ({ kind }) => this.#write('before', kind);
    this.client.afterWrite = ({ kind }) => this.#write('after', kind);
    this.vault.fault = ({ method }) => {
      if (this.#crashed) return { kind: 'reset' };
      if (method === 'GET') return undefined;
      this.writes++;
      return this.#isCrash('before')
        ? { kind: 'status', status: 500 }
        : this.#isCrash('after')
          ? { kind: 'reset' }
          : undefined;
    };
  }

  async start(): Promise<void> {
    const address = await this.vault.start();
    await setUpVault({ address, rootToken: this.vault.rootToken }, places, {
      namespaces: ['finance'],
    });
    this.writes = 0;
    this.restart();
    this.client.put(resources.serviceAccounts, {
      metadata: { name: 'poster', namespace: 'finance', ownerReferences: [this.#owner] },
    });
    this.client.put(resources.serviceAccounts, {
      metadata: { name: 'automation-guardrails', namespace: 'automation-guardrails' },
    });
  }

  async stop(): Promise<void> {
    await this.#vaultClient?.close();
    await this.vault.stop();
  }

  /** Another process, which remembers nothing. */
  restart(): void {
    this.#crashed = false;
    void this.#vaultClient?.close();
    const clock = (): number => this.now;
    const client = this.client;
    this.#vaultClient = new VaultClient({
      address: this.vault.address,
      readCa: undefined,
      namespace: this.vaultNamespace,
      mount: places.mount,
      authMount: places.authMount,
      userAgent: 'test',
      timeoutMs: 30_000,
    });
    const store: SecretStore = new VaultStore({
      client: this.#vaultClient,
      tokens: new IdentityTokens({ client, audience: 'vault', clock }),
      readOwnToken: () => this.#ownToken(),
      roles: { identity: 'automation-guardrails-identity', operator: 'automation-guardrails' },
      mount: places.mount,
      pathPrefix: places.pathPrefix,
      clock,
      random: () => 0,
    });
    const ledger = new CopyLedger({ client, namespace: operator, logger: silentLogger() });
    const countCopy = (): void => undefined;
    this.#copies = new CredentialCopies({ store, ledger, countCopy, clock });
    this.#ledger = ledger;
    this.#keeper = new CredentialKeeper({
      client,
      workloads: noWorkloads,
      pods: { byIndex: () => [] },
      countRotation: () => undefined,
      clock,
      revoked: new RevokedTokens({ clock }),
      copies: this.#copies,
      randomBytes: this.#randomBytes,
    });
  }

  get identity(): AutomationIdentity {
    return {
      metadata: {
        name: 'poster',
        namespace: 'finance',
        uid: 'uid-of-poster',
        annotations: this.annotations,
      },
      spec: {
        owner: { team: 'finance', contact: 'a@example.com' },
        secrets: this.credentials,
      },
      status: this.status,
    };
  }

  async keep(): Promise<CredentialsOutcome> {
    const outcome = await this.#current.keep({
      identity: this.identity,
      credentials: this.credentials,
      childMetadata: (name) => ({ name, namespace: 'finance', ownerReferences: [this.#owner] }),
      tier: 'test',
      isWithheld: this.isWithheld,
      isKilled: false,
      ...this.#context,
    });
    if (this.#crashed) throw new Crash();
    this.said.push(JSON.stringify(outcome));
    this.#report(outcome);
    return outcome;
  }

  async withdraw(): Promise<CredentialsOutcome> {
    const spec = { secrets: this.credentials };
    const outcome = await this.#current.withdraw(this.identity, spec, this.#context);
    this.said.push(JSON.stringify(outcome));
    this.#report(outcome);
    return outcome;
  }

  /** Looks as long as the outcome says that it is to be looked again soon. */
  async settle(): Promise<CredentialsOutcome> {
    for (let looks = 0; looks < 30; looks++) {
      const outcome = await this.keep();
      const { dueAt } = outcome;
      if (dueAt === undefined || dueAt > this.now + 3 * minute) return outcome;
      this.now = Math.max(this.now + second, dueAt);
    }
    throw new Error('it does not settle');
  }

  /** Values that Kubernetes holds to be valid: the current one, and the one before. */
  valid(): string[] {
    const { data = {} } = this.client.find(resources.secrets, secretKey) ?? {};
    return [data['password'], data['previous.password']].flatMap((value) =>
      value === undefined ? [] : [Buffer.from(value, 'base64').toString()],
    );
  }

  /** Values that can be read in the vault, the current one last. */
  readable(): unknown[] {
    return [...this.vault.readable(places.mount, path).values()].map(({ password }) => password);
  }

  get version(): number | undefined {
    return this.vault.currentVersion(places.mount, path);
  }

  get ledger(): CopyLedger {
    if (this.#ledger === undefined) throw new Error('not started');
    return this.#ledger;
  }

  /** Texts in which the copy is written down. */
  recorded(): string[] {
    return this.client.all(resources.configMaps).flatMap(({ data = {} }) => Object.values(data));
  }

  /** The identity is gone, and all that is known of it is written down. */
  async leave(): Promise<void> {
    const entries = await this.ledger.reread('finance/poster');
    const keys = entries.map(({ key }) => key);
    const left = await this.#copies?.end(keys, this.#context);
    if (this.#crashed) throw new Crash();
    expect(left).toEqual([]);
  }

  get #current(): CredentialKeeper {
    if (this.#keeper === undefined) throw new Error('not started');
    return this.#keeper;
  }

  readonly #owner = {
    apiVersion: 'v1',
    kind: 'K',
    name: 'poster',
    uid: 'uid-of-poster',
    controller: true,
  };

  readonly #context = {
    notify: (notice: Notice): void => void this.notices.push(notice),
    signal: new AbortController().signal,
    log: silentLogger(),
  };

  #report(outcome: CredentialsOutcome): void {
    const { secrets, lastHandledRotation, lastHandledEmergencyRotation } = outcome;
    this.status = {
      secrets,
      ...(lastHandledRotation !== undefined && { lastHandledRotation }),
      ...(lastHandledEmergencyRotation !== undefined && { lastHandledEmergencyRotation }),
    };
  }

  /** From a crash on, nothing of that process happens any more. */
  #isCrash(when: 'before' | 'after'): boolean {
    try {
      this.atWrite(when, this.writes);
      return false;
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      this.#crashed = true;
      return true;
    }
  }

  #write(when: 'before' | 'after', kind: string): void {
    if (this.#crashed) throw new Crash();
    if (kind === 'TokenRequest') return;
    if (when === 'before') this.writes++;
    if (this.#isCrash(when)) throw new Crash();
  }

  async #ownToken(): Promise<string> {
    const key = { namespace: 'automation-guardrails', name: 'automation-guardrails' };
    const account = this.client.find(resources.serviceAccounts, key);
    const pod = this.client.put(resources.secrets, { metadata: { ...key, name: 'pod' } });
    const { status } = await this.client.create(
      resources.tokenRequests,
      {
        metadata: { ...key, uid: account?.metadata.uid ?? '' },
        spec: {
          audiences: ['vault'],
          expirationSeconds: 600,
          boundObjectRef: {
            apiVersion: 'v1',
            kind: 'Secret',
            name: 'pod',
            uid: pod.metadata.uid ?? '',
          },
        },
      },
      { subresource: 'token' },
    );
    return status?.token ?? '';
  }
}

const noWorkloads = {
  get: () => undefined,
  list: () => [],
  byIndex: (): Workload[] => [],
  size: 0,
};

let bench: Bench;

beforeEach(async () => {
  bench = new Bench();
  await bench.start();
  return () => bench.stop();
});

const reasons = ({ problems }: CredentialsOutcome): string[] =>
  problems.map(({ reason }) => reason);

describe('a credential with store: Vault', () => {
  it('is in both places, through a rotation and the end of its overlap', async () => {
    await bench.settle();
    expect(bench.readable()).toEqual(bench.valid());
    expect(bench.status.secrets).toMatchObject([{ name: 'erp', store: 'Vault' }]);

    bench.now += 24 * hour;
    await bench.settle();
    expect(bench.valid()).toHaveLength(2);
    expect(bench.readable()).toEqual(bench.valid().toReversed());

    bench.now += 2 * hour + 3 * minute;
    await bench.settle();
    expect(bench.valid()).toHaveLength(1);
    expect(bench.readable()).toEqual(bench.valid());
    expect(bench.version).toBe(2);
  });

  it('stands in status before its copy is made, and until that is gone', async () => {
    bench.vault.fault = () => {
      expect(bench.status.secrets).toMatchObject([{ store: 'Vault' }]);
      return undefined;
    };
    await bench.settle();
    bench.credentials = [{ name: 'erp', type: 'Password' }];
    bench.vault.isSealed = true;
    expect(reasons(await bench.keep())).toEqual(['SecretStoreUnavailable']);
    expect(bench.status.secrets).toMatchObject([{ store: 'Vault' }]);
    bench.vault.isSealed = false;
    bench.now += minute;
    await bench.settle();
    expect(bench.vault.keys(places.mount)).toEqual([]);
    expect(bench.status.secrets?.[0]).not.toHaveProperty('store');
    expect(bench.valid()).toHaveLength(1);
  });

  it('is withdrawn where its entry has left the spec, however long the vault is away', async () => {
    await bench.settle();
    bench.credentials = [];
    bench.vault.isSealed = true;
    expect(reasons(await bench.keep())).toEqual(['SecretStoreUnavailable']);
    expect(bench.valid()).toEqual([]);
    expect(bench.status.secrets).toEqual([
      { name: 'erp', secretName: 'aid.poster.erp', store: 'Vault' },
    ]);
    bench.vault.isSealed = false;
    bench.now += minute;
    await bench.settle();
    expect(bench.vault.keys(places.mount)).toEqual([]);
    expect(bench.status.secrets).toEqual([]);
  });

  it('is withdrawn at a kill, and has another value after it', async () => {
    await bench.settle();
    const before = bench.valid();
    bench.vault.isSealed = true;
    expect(reasons(await bench.withdraw())).toEqual(['SecretStoreUnavailable']);
    expect(bench.status.secrets).toMatchObject([{ store: 'Vault' }]);
    bench.vault.isSealed = false;
    bench.now += minute;
    await bench.withdraw();
    expect(bench.vault.keys(places.mount)).toEqual([]);
    expect(bench.status.secrets?.[0]).not.toHaveProperty('store');
    await bench.settle();
    expect(bench.readable()).toEqual(bench.valid());
    expect(bench.valid()).not.toEqual(before);
  });

  it('is not copied for the first time while nothing is granted', async () => {
    bench.credentials = [{ name: 'erp', type: 'Password' }];
    await bench.settle();
    bench.credentials = [{ name: 'erp', type: 'Password', store: 'Vault' }];
    bench.isWithheld = true;
    expect(reasons(await bench.settle())).toEqual([]);
    expect(bench.vault.keys(places.mount)).toEqual([]);
    expect(bench.status.secrets?.[0]).not.toHaveProperty('store');
    bench.isWithheld = false;
    await bench.settle();
    expect(bench.readable()).toEqual(bench.valid());
  });
});

describe('a vault that is away', () => {
  it('keeps the value from being rotated, by schedule and by request, and tells so once', async () => {
    await bench.settle();
    const standing = bench.valid();
    bench.vault.isSealed = true;
    bench.annotations = { [annotation.rotate]: '1' };
    const messages = new Set<string>();
    for (const end = bench.now + 48 * hour; bench.now < end;) {
      const outcome = await bench.keep();
      expect(reasons(outcome)).toEqual(['SecretStoreUnavailable']);
      messages.add(outcome.problems.map(({ message }) => message).join());
      expect(outcome.dueAt).toBeGreaterThan(bench.now);
      expect(outcome.lastHandledRotation).toBeUndefined();
      bench.now = outcome.dueAt ?? end;
      if (bench.said.length > 60) bench.now += hour;
    }
    expect(messages.size).toBe(1);
    expect(bench.valid()).toEqual(standing);
    bench.vault.isSealed = false;
    const { lastHandledRotation } = await bench.settle();
    expect(lastHandledRotation).toBe('1');
    expect(bench.valid()).toHaveLength(2);
    expect(bench.readable()).toEqual(bench.valid().toReversed());
  });

  it('does not hold up an emergency', async () => {
    await bench.settle();
    const [leaked] = bench.valid();
    bench.vault.isSealed = true;
    bench.annotations = { [annotation.rotateEmergency]: '1' };
    await bench.keep();
    expect(bench.valid()).toHaveLength(1);
    expect(bench.valid()).not.toContain(leaked);
    bench.vault.isSealed = false;
    bench.now += 3 * minute;
    await bench.settle();
    expect(bench.readable()).toEqual(bench.valid());
  });

  it('keeps the value before from being withdrawn', async () => {
    await bench.settle();
    bench.now += 24 * hour;
    await bench.settle();
    bench.vault.isSealed = true;
    bench.now += 5 * hour;
    await bench.keep();
    expect(bench.valid()).toHaveLength(2);
  });
});

it('an operator that is not told of a vault says so, and goes on with the others', async () => {
  const { noSecretStore } = await import('../secret-store/store.ts');
  const clock = (): number => bench.now;
  const { ledger } = bench;
  const countCopy = (): void => undefined;
  const copies = new CredentialCopies({ store: noSecretStore, ledger, countCopy, clock });
  await bench.settle();
  const left = await copies.withdraw(bench.identity, {
    notify: () => undefined,
    signal: new AbortController().signal,
    log: silentLogger(),
  });
  expect(left.map(({ problem }) => problem.reason)).toEqual(['SecretStoreNotConfigured']);
});

it('cut off at any write, in either place, neither is ever without a valid version, and none is there twice', async () => {
  const story = async (): Promise<void> => {
    await bench.settle();
    bench.now = start + 24 * hour;
    await bench.settle();
    bench.now = start + 27 * hour;
    await bench.settle();
  };
  await story();
  const total = bench.writes;
  expect(total).toBeGreaterThan(8);
  await bench.stop();

  for (const when of ['before', 'after'] as const) {
    for (let at = 1; at <= total; at++) {
      bench = new Bench();
      await bench.start();
      let wasCopied = false;
      bench.atWrite = (now, write) => {
        const current = bench.readable().at(-1);
        wasCopied ||= current !== undefined;
        // What the vault gives is what Kubernetes holds to be valid.
        if (wasCopied) expect(bench.valid(), `${when} ${at}`).toContain(current);
        // Whoever comes after a crash knows what to destroy.
        if (bench.vault.keys(places.mount).length > 0) expect(bench.recorded()).toHaveLength(1);
        if (now === when && write === at) throw new Crash();
      };
      for (let restarts = 0; ; restarts++) {
        try {
          await story();
          break;
        } catch (error) {
          if (
            !(error instanceof Crash) &&
            !(error instanceof Error && error.cause instanceof Crash)
          ) {
            throw error;
          }
          expect(restarts).toBeLessThan(3);
          bench.atWrite = () => undefined;
          bench.restart();
          bench.now += 2 * minute;
        }
      }
      expect(bench.readable(), `${when} ${at}`).toEqual(bench.valid());
      expect(bench.version, `${when} ${at}`).toBe(2);
      await bench.stop();
    }
  }
});

it('cut off at any write of its end, a copy of what is gone is destroyed by what is written down', async () => {
  await bench.settle();
  const before = bench.writes;
  await bench.leave();
  const total = bench.writes - before;
  expect(total).toBeGreaterThan(1);
  for (const when of ['before', 'after'] as const) {
    for (let at = 1; at <= total; at++) {
      await bench.stop();
      bench = new Bench();
      await bench.start();
      await bench.settle();
      const first = bench.writes;
      bench.atWrite = (now, write) => {
        if (bench.vault.keys(places.mount).length > 0) expect(bench.recorded()).toHaveLength(1);
        if (now === when && write === first + at) throw new Crash();
      };
      await bench.leave().catch(() => undefined);
      bench.atWrite = () => undefined;
      bench.restart();
      bench.now += 2 * minute;
      await bench.leave();
      expect(bench.vault.keys(places.mount), `${when} ${at}`).toEqual([]);
      expect(bench.recorded(), `${when} ${at}`).toEqual([]);
    }
  }
});

describe('a vault that the settings no longer lead to', () => {
  /** An administrator has destroyed what was there. */
  function strikeFormer(): void {
    for (const one of bench.client.all(resources.configMaps)) {
      const kept = Object.entries(one.data ?? {}).filter(([, text]) =>
        text.includes('namespace team'),
      );
      bench.client.put(resources.configMaps, { ...one, data: Object.fromEntries(kept) });
    }
  }

  beforeEach(async () => {
    await bench.settle();
    bench.vaultNamespace = 'team';
    bench.restart();
    await bench.ledger.reread('finance/poster');
  });

  it('is named as long as its copy is written down, and keeps nothing from being rotated', async () => {
    const standing = bench.valid();
    const { problems } = await bench.settle();
    expect(problems).toEqual([
      {
        reason: 'SecretStoreNotConfigured',
        message: `Copy in vault ${bench.vault.address} ${places.mount}/${path} could not be destroyed: the operator is not told of that place any more.`,
      },
    ]);
    bench.now += 24 * hour;
    expect(reasons(await bench.settle())).toEqual(['SecretStoreNotConfigured']);
    expect(bench.valid()).toHaveLength(2);
    expect(bench.valid()).toContain(standing[0]);
    strikeFormer();
    expect(reasons(await bench.settle())).toEqual([]);
  });

  it.each([
    ['at a kill', () => bench.withdraw()],
    [
      'without its entry in the spec',
      () => {
        bench.credentials = [];
        return bench.keep();
      },
    ],
    [
      'without `store` in its entry',
      () => {
        bench.credentials = [{ name: 'erp', type: 'Password' }];
        return bench.keep();
      },
    ],
  ])('stays in status, so that a kill asks for it: %s', async (_, look) => {
    await bench.settle();
    expect(reasons(await look())).toEqual(['SecretStoreNotConfigured']);
    expect(bench.vault.keys(places.mount)).toEqual([]);
    expect(bench.status.secrets).toMatchObject([{ store: 'Vault' }]);
    strikeFormer();
    expect(reasons(await look())).toEqual([]);
    expect(bench.status.secrets?.[0] ?? {}).not.toHaveProperty('store');
  });
});

it('what is written down of a copy says whose it is and where, and no value', async () => {
  await bench.settle();
  const key = copyKeyOf(bench.identity, 'erp');
  expect(bench.recorded().map((text) => JSON.parse(text) as unknown)).toEqual([
    { ...key, place: `vault ${bench.vault.address} ${places.mount}/${path}` },
  ]);
});

it('is not copied where that cannot be written down', async () => {
  bench.client.beforeWrite = ({ kind }) => {
    if (kind === 'ConfigMap') throw new ApiError('too long', { status: 422 });
  };
  await expect(bench.settle()).rejects.toThrow('too long');
  expect(bench.vault.keys(places.mount)).toEqual([]);
});

it('no value and no token is in what is said', async () => {
  await bench.settle();
  bench.now += 24 * hour;
  bench.vault.fault = ({ path: asked }) =>
    asked.includes('/data/') ? { kind: 'commit', status: 500 } : undefined;
  await bench.keep();
  bench.vault.fault = () => undefined;
  bench.now += 5 * minute;
  await bench.settle();
  await bench.withdraw();
  const told = [...bench.said, JSON.stringify(bench.notices)].join('\n');
  const canaries = [...bench.secrets, ...bench.client.issued];
  expect(canaries.length).toBeGreaterThan(5);
  for (const canary of canaries) expect(told).not.toContain(canary);
});
