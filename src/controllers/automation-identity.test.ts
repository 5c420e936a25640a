import { beforeEach, describe, expect, it } from 'vitest';
import type { AutomationIdentity, AutomationIdentitySpec } from '../api/automation-identity.ts';
import { annotation, grantableRole, label } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import { IssuingClient } from '../guardrails/credentials/issuing-client.testing.ts';
import { CopyLedger } from '../guardrails/secret-store/ledger.ts';
import { copyKeyOf, noSecretStore, SecretStoreError } from '../guardrails/secret-store/store.ts';
import { RevokedTokens } from '../guardrails/credentials/revoked-tokens.ts';
import { bindingIndexes } from '../guardrails/identity/bindings.ts';
import { silentLogger, type Logger } from '../observability/logger.ts';
import { leftAgainMs } from './left-copies.ts';
import { Departures } from './offboarding.ts';
import { Applier } from '../runtime/applier.ts';
import type { ReconcileResult } from '../runtime/controller.ts';
import { ApiError } from '../runtime/errors.ts';
import { StatusWriter } from '../runtime/status-writer.ts';
import {
  AutomationIdentityController,
  keysFor,
  type OptionalCache,
} from './automation-identity.ts';
import { PolicyInForce } from './policy-in-force.ts';
import { RequesterRights } from './requester.ts';

const hour = 3_600_000;
const key = { namespace: 'billing', name: 'poster' };

const complete: AutomationIdentitySpec = {
  purpose: 'posts invoices',
  owner: { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' },
  permissions: [
    { apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list'], reason: 'settings' },
  ],
  secrets: [{ name: 'erp', type: 'Password', rotation: { every: '24h', overlap: '2h' } }],
};

let now: number;
let client: IssuingClient;
let controller: AutomationIdentityController;
let departures: Departures;
let ledger: CopyLedger;
let isVaultAway: boolean;
let events: string[];
let held: Map<string, string>;
let oldest: Map<string, number>;
let excess: Map<string, string>;
/** What the operator may list of the whole cluster. */
let cluster: { hasSynced: boolean; isForbidden: boolean };
let expiries: Map<string, number>;
let reviewed: Map<string, { due: number; isOverdue: boolean }>;

beforeEach(() => {
  now = Date.parse('2026-05-01T00:00:00Z');
  client = new IssuingClient(() => now);
  events = [];
  departures = new Departures();
  ledger = new CopyLedger({ client, namespace: 'automation-guardrails', logger: silentLogger() });
  isVaultAway = false;
  held = new Map();
  oldest = new Map();
  excess = new Map();
  cluster = { hasSynced: true, isForbidden: false };
  expiries = new Map();
  reviewed = new Map();
  controller = new AutomationIdentityController({
    client,
    applier: new Applier({ client }),
    statusWriter: new StatusWriter({ client }),
    events: {
      normal: (_about, reason) => events.push(`normal ${reason}`),
      warning: (_about, reason) => events.push(`warning ${reason}`),
    },
    metrics: {
      countRotation: () => undefined,
      setOldestCredential: (name, rotatedAt) => setOrDelete(oldest, name, rotatedAt),
      countTokenIssue: () => undefined,
      countSecretCopy: () => undefined,
      setSoonestTokenExpiry: (name, expiresAt) => setOrDelete(expiries, name, expiresAt),
      setHeld: (kind, name, reason) => setOrDelete(held, `${kind} ${name}`, reason),
      setExcess: (name, state) => setOrDelete(excess, name, state),
      setReview: (name, review) => setOrDelete(reviewed, name, review),
    },
    identities: client.storeOf(resources.automationIdentities),
    namespaces: client.storeOf(resources.namespaces),
    killSwitches: client.storeOf(resources.killSwitches),
    accessReviews: client.storeOf(resources.accessReviews, { identity: keysFor.accessReview }),
    serviceAccounts: client.storeOf(resources.serviceAccounts),
    roles: client.storeOf(resources.roles),
    roleBindings: client.storeOf(resources.roleBindings, bindingIndexes),
    clusterRoles: optionalCache(resources.clusterRoles),
    clusterRoleBindings: optionalCache(resources.clusterRoleBindings, bindingIndexes),
    workloads: { list: () => [], byIndex: () => [] },
    pods: { byIndex: () => [] },
    approvals: { of: () => undefined },
    requester: new RequesterRights(client),
    policy: new PolicyInForce({
      guardrailPolicies: client.storeOf(resources.guardrailPolicies),
      namespaces: client.storeOf(resources.namespaces),
      clock: () => now,
    }),
    clock: () => now,
    randomBytes: (size) => new Uint8Array(size).fill(7),
    revokedTokens: new RevokedTokens({ clock: () => now }),
    secretStore: {
      ...noSecretStore,
      withdraw: (keys) => {
        const names = keys.map(({ name }) => name);
        const error = new SecretStoreError('Unavailable', 'the vault is away');
        const left = names.map((name) => ({ name, what: name, error }));
        return Promise.resolve(
          isVaultAway
            ? { withdrawn: [], remaining: left, wasAsked: true }
            : { withdrawn: names, remaining: [], wasAsked: true },
        );
      },
    },
    copyLedger: ledger,
    departures,
  });
  client.put(resources.namespaces, {
    metadata: { name: 'billing', labels: { [label.environment]: 'prod' } },
  });
  putGrantable(['*']);
});

function putGrantable(verbs: string[]): void {
  client.put(resources.clusterRoles, {
    metadata: { name: grantableRole },
    rules: [{ apiGroups: ['*'], resources: ['*'], verbs }],
  });
}

function optionalCache<T extends KubeObject>(
  resource: Resource<T>,
  indexes: Record<string, (object: T) => readonly string[]> = {},
): OptionalCache<T> {
  return {
    resource,
    store: client.storeOf(resource, indexes),
    get hasSynced() {
      return cluster.hasSynced;
    },
    get isForbidden() {
      return cluster.isForbidden;
    },
  };
}

function setOrDelete<T>(map: Map<string, T>, name: string, value: T | undefined): void {
  if (value === undefined) map.delete(name);
  else map.set(name, value);
}

function declare(spec: unknown, annotations: Record<string, string> = {}): void {
  const before = client.find(resources.automationIdentities, key);
  client.put(resources.automationIdentities, {
    ...before,
    metadata: { ...before?.metadata, ...key, generation: 1, annotations },
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the API server may hold
    spec: spec as AutomationIdentitySpec,
  });
}

function reconcile(): Promise<ReconcileResult> {
  const log: Logger = {
    debug: () => undefined,
    info: () => undefined,
    warn: () => undefined,
    error: () => undefined,
    child: () => log,
  };
  const { signal } = new AbortController();
  return controller.reconcile('billing/poster', { signal, correlationId: 'c', log });
}

/** As the queue would: again as long as something was written. */
async function settle(): Promise<ReconcileResult> {
  for (let round = 0; round < 10; round++) {
    const { length } = client.writes;
    const result = await reconcile();
    if (length === client.writes.length) return result;
  }
  throw new Error('does not settle');
}

function identity(): AutomationIdentity {
  return client.find(resources.automationIdentities, key)!;
}

/** All but the one that is told of in {@link excessCondition}. */
function conditions(): string[] {
  return (identity().status?.conditions ?? [])
    .filter(({ type }) => type !== 'ExcessPermissions' && type !== 'RequesterAllowed')
    .map(({ type, status, reason }) => `${type} ${status} ${reason}`);
}

function excessCondition(): string | undefined {
  const found = identity().status?.conditions?.find(({ type }) => type === 'ExcessPermissions');
  return found && `${found.status} ${found.reason}`;
}

function standing(): string[] {
  const kinds = [
    resources.serviceAccounts,
    resources.roles,
    resources.roleBindings,
    resources.secrets,
  ];
  return kinds.flatMap((resource) => client.all(resource).map(() => resource.kind));
}

/** One RoleBinding grants, the other one marks. */
const everything = ['ServiceAccount', 'Role', 'RoleBinding', 'RoleBinding', 'Secret'];
const provisioned = ['Ready True Provisioned', 'Held False Complete'];

describe('AutomationIdentityController', () => {
  it('provisions a complete identity, says so, and then writes nothing more', async () => {
    declare(complete);
    await settle();
    expect(standing()).toEqual(everything);
    expect(conditions()).toEqual(provisioned);
    expect(identity().status).toMatchObject({
      observedGeneration: 1,
      secrets: [
        {
          name: 'erp',
          secretName: 'aid.poster.erp',
          // Half an hour early at most.
          nextRotationTime: expect.stringMatching(/^2026-05-01T23:[345]/),
        },
      ],
    });
    expect(events).toEqual(['normal SecretCreated', 'normal Ready']);
    expect(oldest.get('billing/poster')).toBe(now);

    const { length } = client.writes;
    now += 60_000;
    await reconcile();
    expect(client.writes).toHaveLength(length);
  });

  it('holds an incomplete identity, and grants it nothing', async () => {
    declare({ ...complete, purpose: undefined, owner: { team: 'finance' } });
    await settle();
    expect(standing()).toEqual([]);
    expect(conditions()).toEqual(['Ready False Incomplete', 'Held True Incomplete']);
    expect(identity().status?.conditions?.[1]?.message).toBe(
      'Missing spec.owner.contact, spec.owner.escalation. Missing spec.purpose.',
    );
    expect(events).toEqual(['warning Held']);
    expect(held.get('AutomationIdentity billing/poster')).toBe('Incomplete');

    declare(complete);
    await settle();
    expect(standing()).toEqual(everything);
    expect(held.size).toBe(0);
  });

  it('leaves what stands when an identity becomes held, and takes away what it no longer asks for', async () => {
    declare(complete);
    await settle();
    const [permission] = complete.permissions!;
    declare({
      ...complete,
      purpose: '',
      permissions: [{ ...permission!, verbs: ['get', 'delete'] }],
      secrets: [...complete.secrets!, { name: 'crm', type: 'Token' }],
    });
    await settle();
    expect(standing()).toEqual(everything);
    expect(client.find(resources.roles, key)?.rules).toEqual([
      { apiGroups: [''], resources: ['configmaps'], verbs: ['get'] },
    ]);
  });

  it('changes nothing of an identity whose spec it can’t read', async () => {
    declare(complete);
    await settle();
    declare({ ...complete, permissions: 'none', secrets: 7 });
    await settle();
    expect(standing()).toEqual(everything);
    expect(conditions()).toEqual(['Ready False SpecMalformed', 'Held True SpecMalformed']);
  });

  const engaged = { metadata: key, spec: { workflow: 'poster', reason: 'runs amok' } };
  const releasing = {
    ...engaged,
    metadata: {
      ...key,
      labels: { [label.releasing]: 'true' },
      annotations: {
        [annotation.restoreServiceAccount]: JSON.stringify({
          poster: { annotations: { 'cloud.example/role': 'r' }, imagePullSecrets: [{ name: 'p' }] },
        }),
      },
    },
  };
  const takeAway = (): void => {
    client.remove(resources.serviceAccounts, key);
    client.remove(resources.roleBindings, key);
  };

  it('is not ready while killed, gives nothing back, and withdraws its credentials', async () => {
    declare(complete);
    await settle();
    client.put(resources.killSwitches, engaged);
    takeAway();
    await settle();
    expect(conditions()).toEqual(['Ready False KillSwitchEngaged', 'Held False Complete']);
    expect(identity().status?.conditions?.[0]?.message).toContain('runs amok');
    expect(standing()).toEqual(['Role', 'RoleBinding']);
    expect(identity().status?.secrets).toEqual([
      { name: 'erp', secretName: 'aid.poster.erp', lastRotationTime: '2026-05-01T00:00:00Z' },
    ]);

    client.remove(resources.killSwitches, key);
    await settle();
    expect(standing()).toEqual(everything);
    expect(conditions()).toEqual(provisioned);
  });

  it('comes back during the release, with what others had on its ServiceAccount', async () => {
    declare(complete);
    await settle();
    client.put(resources.killSwitches, engaged);
    takeAway();
    await settle();
    client.put(resources.killSwitches, releasing);
    await settle();
    expect(standing()).toEqual(everything);
    expect(conditions()).toEqual(provisioned);
    expect(client.find(resources.serviceAccounts, key)).toMatchObject({
      automountServiceAccountToken: false,
      imagePullSecrets: [{ name: 'p' }],
      metadata: { annotations: { 'cloud.example/role': 'r' } },
    });
    const secret = client.find(resources.secrets, { namespace: 'billing', name: 'aid.poster.erp' });
    expect(secret?.metadata.annotations?.[annotation.consumersRestarted]).toBe('1');

    client.remove(resources.killSwitches, key);
    client.writes.length = 0;
    await settle();
    expect(client.writes).toEqual([]);
  });

  it('stays away during the release as long as the fence stands', async () => {
    declare(complete);
    await settle();
    client.put(resources.killSwitches, engaged);
    takeAway();
    await settle();
    const fenced = {
      type: 'Fenced',
      status: 'True',
      reason: 'Lifting',
      message: '',
      lastTransitionTime: '2026-05-01T00:00:00Z',
    } as const;
    client.put(resources.killSwitches, { ...releasing, status: { conditions: [fenced] } });
    await settle();
    expect(standing()).toEqual(['Role', 'RoleBinding']);
    expect(client.all(resources.roleBindings)[0]?.metadata.name).toBe('poster.identity');
  });

  it('has its mark back while killed, where somebody took it', async () => {
    declare(complete);
    await settle();
    const { annotations } = releasing.metadata;
    client.put(resources.killSwitches, { ...engaged, metadata: { ...key, annotations } });
    takeAway();
    client.remove(resources.roleBindings, { namespace: 'billing', name: 'poster.identity' });
    await settle();
    expect(standing()).toEqual(['Role', 'RoleBinding']);
  });

  it('comes back while held as far as its ServiceAccount, which was there', async () => {
    declare(complete);
    await settle();
    client.put(resources.killSwitches, engaged);
    takeAway();
    declare({ ...complete, purpose: '' });
    await settle();
    client.put(resources.killSwitches, releasing);
    await settle();
    expect(standing()).toEqual(['ServiceAccount', 'Role', 'RoleBinding']);
  });

  it('keeps what it has where the namespace is not guarded, and the kill takes nothing', async () => {
    declare(complete);
    await settle();
    client.put(resources.namespaces, { metadata: { name: 'billing' } });
    client.put(resources.killSwitches, engaged);
    await settle();
    expect(standing()).toEqual(everything);
  });

  it('asks the API server whether it was killed before it makes what is gone', async () => {
    declare(complete);
    await settle();
    const asked: string[] = [];
    const get = client.get.bind(client);
    client.get = (resource, at) => {
      if (resource.kind === 'KillSwitch') asked.push(at.name);
      return get(resource, at);
    };
    takeAway();
    await reconcile();
    expect(asked).toEqual(['poster', 'namespace']);
    asked.length = 0;
    await reconcile();
    expect(asked).toEqual([]);
  });

  it('names a foreign object, touches nothing of it, and looks again', async () => {
    client.put(resources.serviceAccounts, { metadata: key });
    declare(complete);
    const { requeueAfterMs } = await reconcile();
    await reconcile();
    expect(conditions()[0]).toBe('Ready False ForeignObject');
    expect(requeueAfterMs).toBeLessThanOrEqual(60_000);
    expect(standing()).toEqual(['ServiceAccount', 'Secret']);

    client.remove(resources.serviceAccounts, key);
    await settle();
    expect(conditions()).toEqual(provisioned);
  });

  it('says which permissions it can’t grant, instead of failing over and over', async () => {
    client.beforeWrite = ({ kind }) => {
      if (kind !== 'Role') return;
      throw new ApiError(
        'attempting to grant RBAC permissions not currently held:\n{Verbs:["get"]}',
        {
          status: 403,
          reason: 'Forbidden',
        },
      );
    };
    declare({ ...complete, secrets: [] });
    const { requeueAfterMs } = await reconcile();
    expect(conditions()[0]).toBe('Ready False PermissionsNotGrantable');
    expect(requeueAfterMs).toBe(60_000);
    await reconcile();
    expect(events).toEqual(['warning PermissionsNotGrantable']);
  });

  it('grants no more than the installation allows, whatever the operator itself holds', async () => {
    putGrantable([]);
    declare({ ...complete, secrets: [] });
    await reconcile();
    expect(conditions()[0]).toBe('Ready False PermissionsNotGrantable');
    expect(client.find(resources.roles, key)).toBeUndefined();
    putGrantable(['get', 'list']);
    await settle();
    expect(client.find(resources.roles, key)).toBeDefined();
  });

  it('keeps credentials rotating while permissions can’t be written', async () => {
    declare(complete);
    await settle();
    client.remove(resources.roles, key);
    client.beforeWrite = ({ kind }) => {
      if (kind === 'Role') throw new ApiError('etcd is slow', { status: 500 });
    };
    now += 24 * hour;
    await expect(reconcile()).rejects.toThrow('etcd is slow');
    expect(conditions()[0]).toBe('Ready False ApplyFailed');
    expect(identity().status?.secrets?.[0]?.lastRotationTime).toBe('2026-05-02T00:00:00Z');
  });

  it('plans anew, without a word in status, when somebody else wrote first', async () => {
    declare(complete);
    await settle();
    const { status } = identity();
    client.beforeWrite = ({ kind }) => {
      if (kind === 'Secret') throw new ApiError('conflict', { status: 409, reason: 'Conflict' });
    };
    declare(complete, { [annotation.rotate]: 'x' });
    await expect(reconcile()).rejects.toMatchObject({ status: 409 });
    expect(identity().status).toEqual(status);
  });

  it('looks again when a credential is due, and at Secrets every ten minutes at the latest', async () => {
    declare(complete);
    const { requeueAfterMs } = await settle();
    expect(requeueAfterMs).toBeGreaterThan(480_000);
    expect(requeueAfterMs).toBeLessThanOrEqual(600_000);
    const { nextRotationTime = '' } = identity().status?.secrets?.[0] ?? {};
    now = Date.parse(nextRotationTime) - 5000;
    const { requeueAfterMs: rest } = await reconcile();
    expect(rest).toBeGreaterThanOrEqual(5000);
    // Status has whole seconds.
    expect(rest).toBeLessThan(6000);
  });

  const ci = { name: 'ci', audience: 'https://vault.example.com', expirationSeconds: 1000 };

  it('issues tokens to its ServiceAccount, renews them in time, and forgets them', async () => {
    declare({ ...complete, secrets: [], tokens: [ci] });
    const { requeueAfterMs } = await settle();
    expect(conditions()).toEqual(provisioned);
    expect(client.issued).toHaveLength(1);
    expect(expiries.get('billing/poster')).toBe(now + 1_000_000);
    expect(requeueAfterMs).toBeLessThanOrEqual(600_000);
    now += 795_000;
    expect(await reconcile()).toEqual({ requeueAfterMs: 5_000 });
    now += 5_000;
    await settle();
    expect(client.issued).toHaveLength(2);

    client.remove(resources.automationIdentities, key);
    await reconcile();
    expect(expiries.size).toBe(0);
  });

  it('withdraws tokens while killed, and issues new ones at the release', async () => {
    declare({ ...complete, tokens: [ci] });
    await settle();
    client.put(resources.killSwitches, engaged);
    takeAway();
    await settle();
    expect(standing()).toEqual(['Role', 'RoleBinding']);
    expect(identity().status?.tokens).toMatchObject([{ name: 'ci', issuedAt: expect.anything() }]);
    expect(client.issued).toHaveLength(1);
    client.put(resources.killSwitches, releasing);
    await settle();
    expect(client.issued).toHaveLength(2);
    expect(client.accepts(client.issued[1]!, [ci.audience])).toBe(true);
  });

  it.each([
    ['a secret', { secrets: [{ name: 'ci', type: 'Token' }] }, { secrets: [], tokens: [ci] }],
    ['a token', { secrets: [], tokens: [ci] }, { secrets: [{ name: 'ci', type: 'Token' }] }],
  ])('makes of %s the other thing, under its name', async (_, before, after) => {
    declare({ ...complete, ...before });
    await settle();
    const secretKey = { namespace: 'billing', name: 'aid.poster.ci' };
    const first = client.find(resources.secrets, secretKey)!;
    const { secrets: _none, ...rest } = complete;
    declare({ ...rest, ...after });
    await settle();
    await settle();
    const second = client.find(resources.secrets, secretKey)!;
    expect(second.metadata.uid).not.toBe(first.metadata.uid);
    expect(second.data?.['token']).not.toBe(first.data?.['token']);
    const isToken = 'tokens' in after;
    expect(client.issued.map((token) => client.accepts(token, [ci.audience]))).toEqual([isToken]);
    expect(conditions()).toEqual(provisioned);
  });

  it('has not handled a nonce before its tokens from before are revoked', async () => {
    declare({ ...complete, tokens: [ci] });
    await settle();
    client.beforeWrite = ({ verb }) => {
      if (verb === 'delete') throw new ApiError('etcd is slow', { status: 500 });
    };
    declare({ ...complete, tokens: [ci] }, { [annotation.rotate]: 'x' });
    await expect(reconcile()).rejects.toThrow('etcd is slow');
    expect(identity().status?.lastHandledRotation).toBeUndefined();
    client.beforeWrite = () => undefined;
    await settle();
    expect(identity().status?.lastHandledRotation).toBe('x');
    expect(client.accepts(client.issued[0]!, [ci.audience])).toBe(false);
  });

  it('repairs a Secret that was deleted when it looks again', async () => {
    declare(complete);
    await settle();
    client.remove(resources.secrets, { namespace: 'billing', name: 'aid.poster.erp' });
    await settle();
    expect(standing()).toEqual(everything);
  });

  it('leaves an identity that is being deleted, or whose namespace is, and forgets its metrics', async () => {
    declare({ ...complete, purpose: '' });
    await settle();
    expect(held.size).toBe(1);
    client.put(resources.namespaces, {
      metadata: { name: 'billing', deletionTimestamp: '2026-05-01T00:00:00Z' },
    });
    expect(await reconcile()).toEqual({});
    expect(held.size).toBe(0);
    client.remove(resources.automationIdentities, key);
    expect(await reconcile()).toEqual({});
    expect(standing()).toEqual([]);
  });
});

describe('an identity that was deleted', () => {
  const deleted = (): AutomationIdentity => client.find(resources.automationIdentities, key)!;

  beforeEach(async () => {
    declare(complete);
    await settle();
  });

  it('takes all that it had with it', async () => {
    departures.add(deleted());
    client.remove(resources.automationIdentities, key);
    await reconcile();
    expect(standing()).toEqual([]);
    expect(client.all(resources.roleBindings)).toEqual([]);
    expect(events).toContain('normal Offboarded');
    expect(departures.get('billing/poster')).toBeUndefined();
  });

  it('does so as soon as it is on its way, whoever holds it up', async () => {
    client.put(resources.automationIdentities, {
      ...deleted(),
      metadata: { ...deleted().metadata, deletionTimestamp: '2026-05-01T00:00:00Z' },
    });
    await reconcile();
    expect(standing()).toEqual([]);
  });

  it('leaves a successor of its name with children of its own', async () => {
    const before = client.find(resources.serviceAccounts, key)?.metadata.uid;
    departures.add(deleted());
    client.remove(resources.automationIdentities, key);
    declare(complete);
    await settle();
    expect(standing()).toEqual(everything);
    expect(client.find(resources.serviceAccounts, key)?.metadata.uid).not.toBe(before);
  });

  it('has its copies in a vault destroyed, however often that takes', async () => {
    const secrets = [{ name: 'erp', secretName: 'aid.poster.erp', store: 'Vault' as const }];
    departures.add({ ...deleted(), status: { secrets } });
    client.remove(resources.automationIdentities, key);
    isVaultAway = true;
    expect(await reconcile()).toMatchObject({ requeueAfterMs: expect.any(Number) as unknown });
    expect(events).toContain('warning CopiesRemain');
    isVaultAway = false;
    await reconcile();
    expect(events).toContain('normal CopyWithdrawn');
    expect(departures.get('billing/poster')).toBeUndefined();
  });

  it('has them destroyed by an operator that never saw it, too', async () => {
    const copy = copyKeyOf(deleted(), 'erp');
    await ledger.record({ key: copy, place: noSecretStore.placeOf(copy) });
    client.remove(resources.automationIdentities, key);
    isVaultAway = true;
    expect(await reconcile()).toMatchObject({ requeueAfterMs: expect.any(Number) as unknown });
    expect(controller.leftCopies.list()).toHaveLength(1);
    isVaultAway = false;
    await reconcile();
    expect(events).toContain('normal CopyWithdrawn');
    expect(controller.leftCopies.list()).toEqual([]);
  });

  it.each<[string, () => void]>([
    ['that is well', () => declare(complete)],
    ['whose spec can’t be read', () => declare({ ...complete, secrets: 7 })],
    [
      'whose acknowledgement is taken back',
      () => declare(complete, { [annotation.acknowledgeHold]: 'Incomplete: known' }),
    ],
  ])('is not kept waiting by a successor %s', async (_, succeed) => {
    const copy = copyKeyOf(deleted(), 'erp');
    await ledger.record({ key: copy, place: noSecretStore.placeOf(copy) });
    departures.add(deleted());
    client.remove(resources.automationIdentities, key);
    isVaultAway = true;
    succeed();
    expect((await reconcile()).requeueAfterMs).toBeLessThanOrEqual(leftAgainMs);
    expect(await settle()).toEqual({ requeueAfterMs: leftAgainMs });
  });

  it('is tried again where a request fails', async () => {
    departures.add(deleted());
    client.remove(resources.automationIdentities, key);
    client.beforeWrite = () => {
      throw new ApiError('down', { status: 503 });
    };
    await expect(reconcile()).rejects.toThrow('down');
    client.beforeWrite = () => undefined;
    await reconcile();
    expect(standing()).toEqual([]);
  });
});

describe('what others let an identity do', () => {
  const apiGroup = 'rbac.authorization.k8s.io';
  const extra = {
    metadata: { namespace: 'billing', name: 'extra' },
    roleRef: { apiGroup, kind: 'ClusterRole', name: 'reader' },
    subjects: [{ kind: 'ServiceAccount', name: 'poster', namespace: 'billing' }],
  };
  const told = (): string[] =>
    events.splice(0).filter((event) => /Excess|AsDeclared|BindingsNotRead/.test(event));

  beforeEach(async () => {
    client.put(resources.clusterRoles, {
      metadata: { name: 'reader' },
      rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['list'] }],
    });
    declare(complete);
    await settle();
    expect(excessCondition()).toBe('False AsDeclared');
    told();
  });

  it('is a condition, an event and a metric as long as it stands, and keeps nothing from being ready', async () => {
    client.put(resources.roleBindings, extra);
    await settle();
    expect(excessCondition()).toBe('True GrantedElsewhere');
    expect(conditions()).toEqual(provisioned);
    expect(identity().status?.conditions?.[2]?.message).toContain(
      'RoleBinding billing/extra (ClusterRole reader) allows: list pods.',
    );
    expect(told()).toEqual(['warning ExcessPermissions']);
    expect(excess.get('billing/poster')).toBe('excess');

    await settle();
    expect(told()).toEqual([]);
    client.put(resources.roleBindings, {
      ...extra,
      metadata: { namespace: 'other', name: 'extra' },
    });
    await settle();
    expect(told()).toEqual(['warning ExcessPermissions']);

    client.remove(resources.roleBindings, { namespace: 'billing', name: 'extra' });
    client.remove(resources.roleBindings, { namespace: 'other', name: 'extra' });
    await settle();
    expect(excessCondition()).toBe('False AsDeclared');
    expect(told()).toEqual(['normal AsDeclared']);
    expect(excess.size).toBe(0);
  });

  it('is unknown where the operator may not list what could grant it, and found all the same', async () => {
    cluster.isForbidden = true;
    await settle();
    expect(excessCondition()).toBe('Unknown BindingsNotRead');
    expect(identity().status?.conditions?.[2]?.message).toContain(
      'list clusterrolebindings and clusterroles',
    );
    expect(told()).toEqual(['warning BindingsNotRead']);
    expect(excess.get('billing/poster')).toBe('unknown');
    client.put(resources.roleBindings, extra);
    await settle();
    expect(excessCondition()).toBe('True GrantedElsewhere');
    expect(identity().status?.conditions?.[2]?.message).toContain("isn't known");
  });

  it('is as it was said before, without a write, until the caches are there', async () => {
    client.put(resources.roleBindings, extra);
    await settle();
    cluster = { hasSynced: false, isForbidden: false };
    client.remove(resources.roleBindings, { namespace: 'billing', name: 'extra' });
    const { length } = client.writes;
    await reconcile();
    expect(client.writes).toHaveLength(length);
    expect(excessCondition()).toBe('True GrantedElsewhere');
    expect(excess.get('billing/poster')).toBe('excess');
  });

  it('is not what the own Role still grants, or who else binds it', async () => {
    client.put(resources.roleBindings, {
      ...extra,
      roleRef: { apiGroup, kind: 'Role', name: 'poster' },
    });
    declare({ ...complete, permissions: [] });
    await settle();
    expect(excessCondition()).toBe('False AsDeclared');
  });

  it('is measured against what may be granted, not against what an old spec asks for', async () => {
    client.put(resources.roleBindings, extra);
    const wild = { apiGroups: ['*'], resources: ['*'], verbs: ['*'], reason: 'convenience' };
    declare({ ...complete, permissions: [wild] });
    await settle();
    expect(excessCondition()).toBe('True GrantedElsewhere');
    expect(conditions()[0]).toBe('Ready False PermissionsRefused');
    expect(client.find(resources.roles, key)).toBeUndefined();
  });
});

describe('an access review', () => {
  const asked: AutomationIdentitySpec = { ...complete, accessReview: { every: '2160h' } };
  let reviews: number;

  beforeEach(() => {
    reviews = 0;
  });

  function decide(decision: 'Keep' | 'Reduce' | 'Revoke', digest = published()): void {
    now += 1_000;
    client.put(resources.accessReviews, {
      metadata: { namespace: 'billing', name: `review-${++reviews}` },
      spec: { identity: 'poster', decision, reason: 'because', digest, reviewer: 'bob' },
    });
  }

  function published(): string {
    return identity().status?.accessReview?.digest ?? '';
  }

  const cloud = { 'cloud.example/role': 'r' };

  function annotateAccount(): void {
    const account = client.find(resources.serviceAccounts, key)!;
    const metadata = { ...account.metadata, annotations: cloud };
    client.put(resources.serviceAccounts, { ...account, metadata });
  }

  it('is published as a digest, asked for in time, and told when it is done', async () => {
    declare(asked);
    const { requeueAfterMs } = await settle();
    expect(conditions()).toContain('ReviewOverdue False NotDue');
    expect(published()).toMatch(/^sha256:/);
    const due = now + 2160 * hour;
    expect(reviewed.get('billing/poster')).toEqual({ due, isOverdue: false });
    expect(requeueAfterMs).toBeLessThanOrEqual(2160 * hour);
    now = due;
    events = [];
    await settle();
    expect(conditions()).toContain('ReviewOverdue True ReviewDue');
    expect(events.filter((event) => event.includes('Review'))).toEqual(['warning ReviewOverdue']);
    expect(reviewed.get('billing/poster')?.isOverdue).toBe(true);
    events = [];
    decide('Keep');
    await settle();
    expect(events).toEqual(['normal AccessReviewed']);
    client.writes.length = 0;
    now += hour / 60;
    await settle();
    expect(client.writes).toEqual([]);
  });

  it('is void when others grant more, and counts again when they take it back', async () => {
    declare(asked);
    await settle();
    decide('Keep');
    await settle();
    const before = published();
    const binding = {
      metadata: { name: 'wide' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: grantableRole },
      subjects: [{ kind: 'ServiceAccount', name: 'poster', namespace: 'billing' }],
    };
    client.put(resources.clusterRoleBindings, binding);
    await settle();
    expect(conditions()).toContain('ReviewOverdue True PermissionsChanged');
    client.remove(resources.clusterRoleBindings, binding.metadata);
    await settle();
    expect(conditions()).toContain('ReviewOverdue False NotDue');
    expect(published()).toBe(before);
  });

  it('says what was known before as long as the cluster can’t be looked at', async () => {
    declare(asked);
    await settle();
    decide('Keep');
    await settle();
    const before = published();
    cluster.hasSynced = false;
    declare({ ...asked, permissions: [] });
    await settle();
    expect(published()).toBe(before);
    expect(conditions()).toContain('ReviewOverdue False NotDue');
  });

  it('takes away everything, also where the spec can’t be read', async () => {
    declare(asked);
    await settle();
    const before = published();
    decide('Revoke');
    declare({ ...asked, permissions: 'none' });
    await settle();
    expect(standing()).toEqual(['RoleBinding']);
    expect(published()).toBe(before);
    expect(conditions().slice(0, 2)).toEqual(['Ready False Incomplete', 'Held True Incomplete']);
  });

  it('takes nothing that is somebody else’s, and marks it as nobody’s', async () => {
    declare({ ...asked, secrets: [] });
    await settle();
    decide('Revoke');
    await settle();
    client.remove(resources.roleBindings, { namespace: 'billing', name: 'poster.identity' });
    client.put(resources.serviceAccounts, { metadata: key });
    await settle();
    expect(standing()).toEqual(['ServiceAccount']);
  });

  it('goes with a kill: what others had comes back once both are over', async () => {
    declare(asked);
    await settle();
    annotateAccount();
    client.put(resources.killSwitches, {
      metadata: {
        ...key,
        annotations: {
          [annotation.restoreServiceAccount]: JSON.stringify({ poster: { annotations: cloud } }),
        },
      },
      spec: { workflow: 'poster', reason: 'runs amok' },
    });
    client.remove(resources.serviceAccounts, key);
    client.remove(resources.roleBindings, key);
    decide('Revoke');
    await settle();
    client.remove(resources.killSwitches, key);
    await settle();
    expect(standing()).toEqual(['RoleBinding']);
    decide('Keep');
    await settle();
    expect(standing()).toEqual(everything);
    expect(client.find(resources.serviceAccounts, key)?.metadata.annotations).toEqual(cloud);
  });

  describe.each(['before', 'after'] as const)('with a crash %s each write', (moment) => {
    it('takes away and gives back all the same', async () => {
      const crashes = async (during: () => void): Promise<void> => {
        during();
        const hook = moment === 'before' ? 'beforeWrite' : 'afterWrite';
        for (let survived = 0; ; survived++) {
          let left = survived;
          client[hook] = () => {
            if (left-- === 0) throw new ApiError('crash', { status: 500, reason: 'Crash' });
          };
          try {
            await settle();
            break;
          } catch (error) {
            expect(String(error)).toContain('crash');
          } finally {
            client[hook] = () => undefined;
          }
          if (survived > 100) throw new Error('does not converge');
        }
      };
      declare(asked);
      await settle();
      annotateAccount();
      await crashes(() => decide('Revoke'));
      expect(standing()).toEqual(['RoleBinding']);
      expect(conditions()).toContain('Held True AccessRevoked');
      await crashes(() => decide('Keep'));
      expect(standing()).toEqual(everything);
      expect(conditions()).toEqual([...provisioned, 'ReviewOverdue False NotDue']);
      expect(client.find(resources.serviceAccounts, key)?.metadata.annotations).toEqual(cloud);
      const mark = { namespace: 'billing', name: 'poster.identity' };
      expect(client.find(resources.roleBindings, mark)?.metadata.annotations).toEqual({});
    });
  });
});

describe('keysFor', () => {
  it('maps changes of other objects to identities', () => {
    declare(complete);
    const identities = client.storeOf(resources.automationIdentities, {
      namespace: ({ metadata }) => [metadata.namespace ?? ''],
    });
    expect(keysFor.identity(identity())).toEqual(['billing/poster']);
    expect(keysFor.namespace({ metadata: { name: 'billing' } }, identities)).toEqual([
      'billing/poster',
    ]);
    expect(keysFor.namespace({ metadata: { name: 'other' } }, identities)).toEqual([]);
    expect(
      keysFor.killSwitch({ metadata: key, spec: { workflow: 'poster', reason: 'x' } }, identities),
    ).toEqual(['billing/poster']);
    const whole = { metadata: key, spec: { wholeNamespace: true, reason: 'x' } };
    expect(keysFor.killSwitch(whole, identities)).toEqual(['billing/poster']);
  });

  it('maps bindings and roles to the identities that they reach', () => {
    const put = (namespace: string, name: string): void => {
      client.put(resources.automationIdentities, { metadata: { namespace, name }, spec: {} });
    };
    put('billing', 'poster');
    put('billing', 'payer');
    put('sales', 'seller');
    const identities = client.storeOf(resources.automationIdentities, {
      namespace: ({ metadata }) => [metadata.namespace ?? ''],
    });
    const bindings = {
      roleBindings: client.storeOf(resources.roleBindings, bindingIndexes),
      clusterRoleBindings: client.storeOf(resources.clusterRoleBindings, bindingIndexes),
    };
    const bind = (kind: string, name: string, metadata: KubeObject['metadata']) => ({
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'reader' },
      subjects: [{ kind, name, ...(kind === 'ServiceAccount' && { namespace: 'billing' }) }],
    });
    const of = (kind: string, name: string): string[] =>
      keysFor.binding(bind(kind, name, { name: 'x' }), identities);
    expect(of('ServiceAccount', 'poster')).toEqual(['billing/poster']);
    expect(of('ServiceAccount', 'nobody')).toEqual([]);
    expect(of('User', 'system:serviceaccount:sales:seller')).toEqual(['sales/seller']);
    expect(of('User', 'alice')).toEqual([]);
    expect(of('Group', 'system:serviceaccounts:billing')).toEqual([
      'billing/poster',
      'billing/payer',
    ]);
    expect(of('Group', 'system:authenticated')).toHaveLength(3);
    expect(of('Group', 'people')).toEqual([]);

    const grantable = { metadata: { name: grantableRole } };
    expect(keysFor.grantable(grantable, identities)).toHaveLength([...identities.list()].length);
    expect(keysFor.grantable({ metadata: { name: 'reader' } }, identities)).toEqual([]);

    const reader = { metadata: { name: 'reader' } };
    client.put(
      resources.clusterRoleBindings,
      bind('ServiceAccount', 'poster', { name: 'of-the-cluster' }),
    );
    client.put(
      resources.roleBindings,
      bind('User', 'system:serviceaccount:sales:seller', { namespace: 'x', name: 'elsewhere' }),
    );
    expect(keysFor.role(reader, bindings, identities).toSorted()).toEqual([
      'billing/poster',
      'sales/seller',
    ]);
    const local = { metadata: { namespace: 'x', name: 'reader' } };
    expect(keysFor.role(local, bindings, identities)).toEqual([]);
  });

  it('maps a child to the identity that controls it, by kind and group', async () => {
    declare(complete);
    await settle();
    const child = client.find(resources.roles, key)!;
    expect(keysFor.child(child)).toEqual(['billing/poster']);
    const [reference] = child.metadata.ownerReferences!;
    const owned = (changes: object) =>
      keysFor.child({
        ...child,
        metadata: { ...child.metadata, ownerReferences: [{ ...reference!, ...changes }] },
      });
    expect(owned({ kind: 'Workflow' })).toEqual([]);
    expect(owned({ apiVersion: 'v1' })).toEqual([]);
    expect(owned({ controller: false })).toEqual([]);
  });
});
