import { beforeEach, describe, expect, it } from 'vitest';
import { conditionsFrom } from '../../api/conditions.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import {
  keyOf,
  type KubeObject,
  type ObjectMeta,
  type Pod,
  type TokenReview,
} from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import { silentLogger } from '../../observability/logger.ts';
import type { WriteOptions } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import { annotation, API_VERSION, label, MANAGED_BY, secretNameOf } from '../../api/names.ts';
import { RevokedTokens } from '../credentials/revoked-tokens.ts';
import { cilium, clusterNetworkPolicy } from '../egress/plug-in.ts';
import { PlugInPolicies, plugInKeys, plugInKinds } from '../egress/plug-in-policies.ts';
import { dnsRule } from '../egress/rules.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { CopyLedger } from '../secret-store/ledger.ts';
import { leftOf, SecretStoreError, type CopyKey } from '../secret-store/store.ts';
import { Ladder, type Climb } from './ladder.ts';
import type { FenceAnswer } from './fence.ts';
import { tokensDieMs } from './rungs.ts';

const namespace = 'billing';
const operatorNamespace = 'automation-guardrails';
const secretName = secretNameOf('poster', 'erp');

/** Answers reviews, and counts what it is asked. */
class ReviewingClient extends MemoryClient {
  /** Tokens that are good, for their own audience. */
  readonly good = new Set<string>();
  readonly allowed = new Set<string>();
  reads = 0;
  reviews = 0;
  /** Kind that can't be read. */
  failing: string | undefined;

  override async get<T extends KubeObject>(
    ...args: Parameters<MemoryClient['get']>
  ): Promise<T | undefined> {
    this.reads++;
    if (args[0].kind === this.failing) throw new ApiError('not now', { status: 500, reason: 'X' });
    return (await super.get(...args)) as T | undefined;
  }

  override async list<T extends KubeObject>(resource: Resource<T>): Promise<T[]> {
    this.reads++;
    return super.list(resource);
  }

  override async create<T extends KubeObject>(
    resource: Resource<T>,
    body: T,
    _options?: WriteOptions,
  ): Promise<T> {
    if (!resource.kind.endsWith('Review')) return super.create(resource, body);
    this.reviews++;
    if (resource.kind === 'TokenReview') {
      const { token, audiences = [] } = (body as unknown as TokenReview).spec;
      return { ...body, status: { authenticated: this.good.has(`${token} ${audiences.join()}`) } };
    }
    const review = body as unknown as {
      spec: { user: string; resourceAttributes: { verb: string } };
    };
    const { user, resourceAttributes } = review.spec;
    return { ...body, status: { allowed: this.allowed.has(`${user} ${resourceAttributes.verb}`) } };
  }
}

let client: ReviewingClient;
let now: number;
let ladder: Ladder;
let revoked: RevokedTokens;
/** Copies that were to be withdrawn. */
let withdrawals: string[];
let isVaultAway: boolean;
let vault: string;
let isVaultAsked: boolean;
let vaultSays: string;
/** A copy of an identity that is gone. */
let isOrphanThere: boolean;
/** Kinds of policies that the network plug-in brings. */
let served: readonly string[];

const podKeys = ({ metadata, spec }: Pod): string[] => [
  `${metadata.namespace}/${spec?.serviceAccountName}`,
];

function child(kind: string, owner: string, uid: string, name = owner): ObjectMeta {
  const mark = kind === 'Workflow' ? label.workflow : label.identity;
  return {
    name,
    namespace,
    labels: { [label.managedBy]: MANAGED_BY, [mark]: owner },
    ownerReferences: [{ apiVersion: API_VERSION, kind, name: owner, uid, controller: true }],
  };
}

function provision(name: string): void {
  const permission = {
    apiGroups: [''],
    resources: ['configmaps'],
    verbs: ['get', 'list'],
    reason: 'x',
  };
  client.put(resources.automationIdentities, {
    metadata: { name, namespace, uid: `aid-${name}` },
    spec: { permissions: [permission], secrets: [{ name: 'erp', type: 'Password' }] },
  });
  client.put(resources.workflows, {
    metadata: { name, namespace, uid: `awf-${name}` },
    spec: { targets: [] },
  });
  client.put(resources.serviceAccounts, {
    metadata: {
      ...child('AutomationIdentity', name, `aid-${name}`),
      annotations: { 'cloud.example/role': 'r' },
    },
    imagePullSecrets: [{ name: 'registry' }],
  });
  client.put(resources.roleBindings, {
    metadata: child('AutomationIdentity', name, `aid-${name}`),
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
  });
  client.put(resources.secrets, {
    metadata: child('AutomationIdentity', name, `aid-${name}`, secretNameOf(name, 'erp')),
  });
  client.put(resources.networkPolicies, {
    metadata: child('Workflow', name, `awf-${name}`, `${name}-egress`),
    spec: {
      podSelector: { matchLabels: { app: name } },
      policyTypes: ['Egress'],
      egress: [dnsRule],
    },
  });
}

function engage(name: string, isWhole = false): void {
  client.put(resources.killSwitches, {
    metadata: { name, namespace, uid: `ksw-${name}` },
    spec: { ...(isWhole ? { wholeNamespace: true } : { workflow: name }), reason: 'runs amok' },
  });
}

beforeEach(() => {
  now = Date.parse('2026-05-01T00:00:00Z');
  client = new ReviewingClient(() => now);
  served = [];
  const byNamespace = { namespace: ({ metadata }: KubeObject) => [metadata.namespace ?? ''] };
  revoked = new RevokedTokens({ clock: () => now });
  withdrawals = [];
  isVaultAway = false;
  vault = 'vault https://vault';
  isVaultAsked = true;
  vaultSays = 'the vault is away';
  isOrphanThere = true;
  ladder = new Ladder({
    client,
    clock: () => now,
    revoked,
    operatorNamespace,
    secretStore: {
      placeOf: ({ identity, name }) => `${vault} secret/${namespace}/${identity}/${name}`,
      withdraw: (keys) => {
        const asked = keys.map(({ identity, name }) => `${identity}/${name}`);
        withdrawals.push(...asked);
        const error = isVaultAway
          ? new SecretStoreError('Unavailable', vaultSays, { retryMs: 20_000 })
          : new SecretStoreError('Foreign', 'nobody knows whose it is');
        const isLeft = (key: CopyKey): boolean => isVaultAway || (key.uid === '' && isOrphanThere);
        return Promise.resolve({
          withdrawn: keys.filter(({ uid }) => !isVaultAway && uid !== '').map(({ name }) => name),
          remaining: keys.filter(isLeft).map((key) => ({
            name: key.name,
            what: leftOf(`vault secret/${key.namespace}/${key.identity}/${key.name}`),
            error,
          })),
          wasAsked: isVaultAsked,
        });
      },
    },
    stores: {
      workflows: client.storeOf(resources.workflows, byNamespace),
      identities: client.storeOf(resources.automationIdentities, byNamespace),
      serviceAccounts: client.storeOf(resources.serviceAccounts),
      roleBindings: client.storeOf(resources.roleBindings),
      networkPolicies: client.storeOf(resources.networkPolicies, {
        workflow: ({ metadata }) => [`${namespace}/${metadata.labels?.[label.workflow] ?? ''}`],
        others: ({ metadata }) => [metadata.namespace ?? ''],
      }),
      pods: client.storeOf(resources.pods, { identity: podKeys }),
      workloads: { byIndex: () => [], list: () => [] },
    },
    plugIn: new PlugInPolicies(
      plugInKinds.map(({ resource }) => ({
        resource,
        hasSynced: true,
        get isServed(): boolean {
          return served.includes(resource.kind);
        },
        byIndex: (_, value) =>
          client.all(resource).filter((one) => plugInKeys(one).includes(value)),
      })),
    ),
  });
  provision('poster');
  engage('poster');
});

const log = silentLogger();

function killSwitch(name = 'poster'): KillSwitch {
  const found = client.find(resources.killSwitches, { namespace, name });
  if (found === undefined) throw new Error('no KillSwitch');
  return found;
}

/** One look, reported as the controller does. */
async function climb(name = 'poster', answer: FenceAnswer = 'Denied'): Promise<Climb> {
  const { signal } = new AbortController();
  const result = await ladder.climb(killSwitch(name), Promise.resolve(answer), { signal, log });
  const fenced = {
    type: 'Fenced',
    status: answer === 'Denied' ? 'True' : 'False',
    reason: 'X',
    message: '',
  } as const;
  const previous = killSwitch(name).status?.conditions;
  const conditions = conditionsFrom([fenced, ...result.findings], previous, 1, now);
  client.put(resources.killSwitches, {
    ...killSwitch(name),
    status: { conditions, remaining: [...result.remaining] },
  });
  return result;
}

const stateOf = ({ findings }: Climb): string[] =>
  findings.map(({ type, status, reason }) => `${type} ${status} ${reason}`);

const reached = [
  'PermissionsRevoked True Revoked',
  'SecretsWithdrawn True Withdrawn',
  'IdentityRevoked True AccountDeleted',
  'TokensRevoked True TokensDead',
  'EgressClosed True Closed',
];

function standing(): string[] {
  const kinds = [resources.serviceAccounts, resources.roleBindings, resources.secrets];
  return kinds.flatMap((resource) => client.all<KubeObject>(resource)).map((one) => keyOf(one));
}

describe('egress that somebody else allows', () => {
  const others = {
    metadata: { name: 'allow-internal', namespace, uid: 'uid-others' },
    spec: {
      podSelector: {},
      policyTypes: ['Egress' as const],
      egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8' } }] }],
    },
  };
  const what = 'NetworkPolicy allow-internal of somebody else (10.0.0.0/8)';

  it('remains where nothing can deny it, until it is gone', async () => {
    client.put(resources.networkPolicies, others);
    const first = await climb();
    expect(first.remaining).toContainEqual({ what });
    expect(stateOf(first)).toContain('EgressClosed True Closed');
    expect(first.findings.at(-1)?.message).toContain('allow-internal');
    expect(await climb().then(({ remaining }) => remaining)).toContainEqual({ what });
    now += tokensDieMs;
    await climb();
    expect(ladder.isQuiet(killSwitch())).toBe(true);

    await client.delete(resources.networkPolicies, others.metadata);
    expect(ladder.isQuiet(killSwitch())).toBe(false);
    expect((await climb()).remaining).toEqual([]);
    expect(ladder.isQuiet(killSwitch())).toBe(true);
    client.put(resources.networkPolicies, others);
    expect(ladder.isQuiet(killSwitch())).toBe(false);
  });

  it.each([
    { whole: true, covered: 'namespace' },
    { whole: false, covered: 'poster' },
  ])('is closed of a Workflow that was deleted, too: $covered', async ({ whole, covered }) => {
    const [policy] = client.all(resources.networkPolicies);
    const { ownerReferences: _, ...metadata } = policy?.metadata ?? { name: '' };
    const annotations = { [annotation.ownerUid]: 'awf-poster' };
    await client.delete(resources.networkPolicies, { namespace, name: metadata.name });
    client.put(resources.networkPolicies, {
      metadata: { ...metadata, annotations },
      spec: { podSelector: { matchLabels: { app: 'x' } }, policyTypes: ['Egress'], egress: [{}] },
    });
    await client.delete(resources.workflows, { namespace, name: 'poster' });
    engage(covered, whole);
    served = ['CiliumNetworkPolicy'];
    expect(ladder.isQuiet(killSwitch(covered))).toBe(false);
    const { findings } = await climb(covered);
    expect(findings.at(-1)).toMatchObject({ type: 'EgressClosed', status: 'True' });
    const [closed] = client.all(resources.networkPolicies);
    expect(closed?.spec).toMatchObject({ policyTypes: ['Egress', 'Ingress'], egress: [] });
    expect(closed?.metadata.annotations).toEqual(annotations);
    expect(client.all(resources.ciliumNetworkPolicies)).toHaveLength(1);
  });

  it('is denied where a policy for hosts alone outlived its Workflow', async () => {
    served = ['ClusterNetworkPolicy'];
    const [workflow] = client.all(resources.workflows);
    const [policy] = client.all(resources.networkPolicies);
    if (workflow === undefined || policy === undefined) throw new Error('nothing provisioned');
    const entries = [{ host: 'api.example.com', reason: 'an API' }];
    const allow = clusterNetworkPolicy.allow({ workflow, entries, dns: [] });
    client.put(resources.clusterNetworkPolicies, allow);
    await client.delete(resources.networkPolicies, policy.metadata);
    await client.delete(resources.workflows, workflow.metadata);
    expect(stateOf(await climb())).toContain('EgressClosed True Denied');
    const [denied, ...more] = client.all(resources.clusterNetworkPolicies);
    expect(more).toEqual([]);
    expect(denied?.metadata.name).toBe(allow.metadata.name);
    expect(denied !== undefined && clusterNetworkPolicy.isDeny(denied)).toBe(true);
    if (denied !== undefined)
      await client.delete(resources.clusterNetworkPolicies, denied.metadata);
    client.put(resources.clusterNetworkPolicies, allow);
    expect(ladder.isQuiet(killSwitch())).toBe(false);
  });

  it('is not told of where it does not concern the automation, or lets nothing out', async () => {
    client.put(resources.networkPolicies, {
      ...others,
      spec: { ...others.spec, podSelector: { matchLabels: { app: 'other' } } },
    });
    const inward = { ...others.spec, policyTypes: ['Ingress' as const], egress: [] };
    const metadata = { ...others.metadata, name: 'inward' };
    client.put(resources.networkPolicies, { metadata, spec: inward });
    expect((await climb()).remaining.filter((one) => one.what.includes('Policy'))).toEqual([]);
  });

  it.each(['CiliumNetworkPolicy', 'ClusterNetworkPolicy'])(
    'is denied by a %s, which is put back where somebody takes it away',
    async (kind) => {
      served = [kind];
      client.put(resources.networkPolicies, others);
      const { findings, remaining } = await climb();
      expect(remaining).not.toContainEqual({ what });
      expect(findings.at(-1)).toMatchObject({ status: 'True', reason: 'Denied' });
      expect(findings.at(-1)?.message).toContain(`A ${kind} denies everything`);
      now += tokensDieMs;
      await climb();
      expect(ladder.isQuiet(killSwitch())).toBe(true);

      const [policy, ...more] = plugInKinds.flatMap(({ resource }) => client.all(resource));
      expect(more).toEqual([]);
      const kindOf = plugInKinds.find(({ resource }) => resource.kind === kind);
      if (policy === undefined || kindOf === undefined) throw new Error('no policy');
      expect(kindOf.isDeny(policy)).toBe(true);
      await client.delete(kindOf.resource, policy.metadata);
      expect(ladder.isQuiet(killSwitch())).toBe(false);
      await climb();
      expect(ladder.isQuiet(killSwitch())).toBe(true);
    },
  );

  it('is denied after a crash between any two writes, or tried again where that fails', async () => {
    served = ['ClusterNetworkPolicy'];
    client.beforeWrite = ({ kind }) => {
      if (kind === 'ClusterNetworkPolicy') throw new ApiError('no', { status: 500, reason: 'x' });
    };
    expect(stateOf(await climb())).toContain('EgressClosed Unknown NotVerified');
    // Closed all the same.
    expect(client.all(resources.networkPolicies)[0]?.spec.egress).toEqual([]);
    client.beforeWrite = () => undefined;
    client.afterWrite = ({ kind }) => {
      if (kind === 'ClusterNetworkPolicy') throw new ApiError('no', { status: 500, reason: 'x' });
    };
    expect(stateOf(await climb())).toContain('EgressClosed Unknown NotVerified');
    client.afterWrite = () => undefined;
    expect(stateOf(await climb())).toContain('EgressClosed True Denied');
    expect(client.all(resources.clusterNetworkPolicies)).toHaveLength(1);
  });

  it.each([
    ['a role', 403],
    ['an admission policy', 422],
    ['a webhook', 400],
  ])('remains where %s refuses the deny, until it is let in', async (_, status) => {
    served = ['CiliumNetworkPolicy'];
    client.put(resources.networkPolicies, others);
    client.beforeWrite = ({ kind, verb }) => {
      if (kind === 'CiliumNetworkPolicy' && verb !== 'delete') {
        throw new ApiError('not here', { status, reason: 'x' });
      }
    };
    await climb();
    now += tokensDieMs;
    const refused = await climb();
    const why = 'CiliumNetworkPolicy poster-egress: not here';
    expect(stateOf(refused)).toEqual(reached);
    expect(refused.remaining).toEqual([{ what: why }, { what }]);
    expect(refused.findings.at(-1)?.message).toContain(why);
    expect(refused.errors).toEqual([]);
    expect(client.all(resources.networkPolicies)[0]?.spec.egress).toEqual([]);
    expect(ladder.isQuiet(killSwitch())).toBe(false);

    // Whoever writes it: the ladder hears of it.
    client.beforeWrite = () => undefined;
    const [workflow] = client.all(resources.workflows);
    if (workflow === undefined) throw new Error('no Workflow');
    client.put(resources.ciliumNetworkPolicies, cilium.deny(workflow));
    expect(ladder.isQuiet(killSwitch())).toBe(false);
    const denied = await climb();
    expect(stateOf(denied)).toContain('EgressClosed True Denied');
    expect(denied.remaining).toEqual([]);
    expect(ladder.isQuiet(killSwitch())).toBe(true);
  });

  it('remains where somebody else has the name of the deny, and theirs is left alone', async () => {
    served = ['CiliumNetworkPolicy'];
    client.put(resources.networkPolicies, others);
    const metadata = { name: 'poster-egress', namespace, uid: 'uid-theirs' };
    client.put(resources.ciliumNetworkPolicies, { metadata, spec: { endpointSelector: {} } });
    const look = await climb();
    expect(stateOf(look)).toContain('EgressClosed True Closed');
    expect(look.remaining).toContainEqual({ what });
    expect(look.remaining).toContainEqual({
      what: expect.stringContaining("poster-egress in namespace billing exists already and wasn't"),
    });
    expect(look.errors).toEqual([]);
    expect(client.all(resources.ciliumNetworkPolicies)).toMatchObject([{ metadata }]);
  });

  it('and what allows hosts goes where it cannot be turned into the deny', async () => {
    served = ['CiliumNetworkPolicy'];
    const [workflow] = client.all(resources.workflows);
    if (workflow === undefined) throw new Error('no Workflow');
    const entries = [{ host: 'api.example.com', reason: 'an API' }];
    client.put(resources.ciliumNetworkPolicies, cilium.allow({ workflow, entries, dns: [] }));
    client.beforeWrite = ({ kind, verb }) => {
      if (kind === 'CiliumNetworkPolicy' && verb !== 'delete') {
        throw new ApiError('not here', { status: 403, reason: 'Forbidden' });
      }
    };
    expect(stateOf(await climb())).toContain('EgressClosed True Closed');
    expect(client.all(resources.ciliumNetworkPolicies)).toEqual([]);
  });
});

describe('one look', () => {
  it('takes everything away, and keeps what others had', async () => {
    const first = await climb();
    expect(standing()).toEqual([]);
    expect(client.all(resources.networkPolicies)[0]?.spec.egress).toEqual([]);
    expect(stateOf(first)).toEqual(reached.with(3, 'TokensRevoked False Expiring'));
    expect(first.dueMs).toBe(tokensDieMs);
    expect(first.remaining).toEqual([
      { what: expect.stringContaining('Tokens'), until: '2026-05-01T00:00:12Z' },
    ]);
    expect(killSwitch().metadata.annotations?.[annotation.restoreServiceAccount]).toBe(
      '{"poster":{"annotations":{"cloud.example/role":"r"},"imagePullSecrets":[{"name":"registry"}]}}',
    );
    now += tokensDieMs;
    expect(stateOf(await climb())).toEqual(reached);
    expect(ladder.isQuiet(killSwitch())).toBe(true);
  });

  it('writes down what undo needs before it acts', async () => {
    await climb();
    const order = client.writes.map(({ verb, kind }) => `${verb} ${kind}`);
    expect(order.indexOf('patch KillSwitch')).toBeLessThan(order.indexOf('delete ServiceAccount'));
  });

  it('asks for nothing again that was verified', async () => {
    await climb();
    now += tokensDieMs;
    await climb();
    client.writes.length = client.reads = client.reviews = 0;
    expect(stateOf(await climb())).toEqual(reached);
    expect([client.writes.length, client.reads, client.reviews]).toEqual([0, 0, 0]);
  });

  it('asks about a token that was published, with its own audience, until it is dead', async () => {
    const audience = 'https://vault.example.com';
    const claims = Buffer.from(JSON.stringify({ aud: [audience], iat: 1, exp: 2 }));
    const token = `e.${claims.toString('base64url')}.s`;
    const name = secretNameOf('poster', 'ci');
    client.put(resources.secrets, {
      metadata: child('AutomationIdentity', 'poster', 'aid-poster', name),
      data: { token: Buffer.from(token).toString('base64') },
    });
    const identity = client.find(resources.automationIdentities, { namespace, name: 'poster' })!;
    const status = { name: 'ci', secretName: name, audience };
    client.put(resources.automationIdentities, { ...identity, status: { tokens: [status] } });
    client.good.add(`${token} ${audience}`);
    await climb();
    expect(standing()).toEqual([]);
    now += tokensDieMs;
    const waiting = await climb();
    expect(stateOf(waiting)[3]).toBe('TokensRevoked False StillAccepted');
    expect(waiting.isLagging).toBe(true);
    expect(waiting.remaining).toEqual([{ what: `Tokens of Secret ${name}` }]);
    client.good.clear();
    expect(stateOf(await climb())).toEqual(reached);
    client.reviews = 0;
    await climb();
    expect(client.reviews).toBe(0);
  });

  it('tells of a token until it expires, and then no longer', async () => {
    const identity = client.find(resources.automationIdentities, { namespace, name: 'poster' })!;
    const until = '2026-05-01T00:10:00Z';
    const status = { name: 'ci', secretName: 's', audience: 'vault', expirationTime: until };
    client.put(resources.automationIdentities, { ...identity, status: { tokens: [status] } });
    await climb();
    now += tokensDieMs;
    expect((await climb()).remaining).toMatchObject([{ until }]);
    expect(ladder.isQuiet(killSwitch())).toBe(true);
    now = Date.parse(until);
    expect(ladder.isQuiet(killSwitch())).toBe(false);
    expect((await climb()).remaining).toEqual([]);
    expect(ladder.isQuiet(killSwitch())).toBe(true);
  });

  it('takes again what shows up again', async () => {
    await climb();
    provision('poster');
    expect(ladder.isQuiet(killSwitch())).toBe(false);
    await climb();
    expect(standing()).toEqual([`${namespace}/${secretName}`]);
    expect(client.all(resources.networkPolicies)[0]?.spec.egress).toEqual([]);
  });

  it('verifies all of it anew after the fence was lost', async () => {
    await climb();
    provision('poster');
    await climb('poster', 'Allowed');
    await climb();
    expect(standing()).toEqual([]);
  });

  it.each(['Allowed', 'Unknown'] as const)(
    'takes all but the ServiceAccount while the fence is not proven (%s)',
    async (answer) => {
      const result = await climb('poster', answer);
      expect(standing()).toEqual([`${namespace}/poster`]);
      expect(stateOf(result)[2]).toBe('IdentityRevoked False WaitingForFence');
      expect(stateOf(result)[3]).toBe('TokensRevoked False IdentityStands');
      expect(result.isLagging).toBe(true);
    },
  );

  it.each(['RoleBinding', 'Secret', 'ServiceAccount', 'KillSwitch', 'NetworkPolicy'])(
    'does the rest where a write of a %s fails, says so, and goes on next time',
    async (kind) => {
      client.beforeWrite = (write) => {
        if (write.kind === kind) throw new Error('etcd is slow');
      };
      const result = await climb();
      expect(result.errors).toHaveLength(1);
      const open = stateOf(result).filter((text) => !text.includes(' True '));
      expect(open).toContainEqual(expect.stringMatching(/ Unknown NotVerified$/));
      client.beforeWrite = () => undefined;
      await climb();
      now += tokensDieMs;
      expect(stateOf(await climb())).toEqual(reached);
      expect(killSwitch().metadata.annotations?.[annotation.restoreServiceAccount]).toContain(
        'cloud.example/role',
      );
    },
  );
});

it('takes the ServiceAccount where nothing more can be written down, and tells what is lost', async () => {
  client.beforeWrite = ({ kind }) => {
    if (kind !== 'KillSwitch') return;
    throw new ApiError('metadata.annotations: Too long', { status: 422, reason: 'Invalid' });
  };
  const result = await climb();
  expect(standing()).toEqual([]);
  expect(result.cut).toEqual(['poster']);
  expect(result.errors).toEqual([]);
});

describe('what is not ours', () => {
  it('is left alone and named', async () => {
    for (const resource of [resources.serviceAccounts, resources.secrets] as Resource[]) {
      for (const { metadata } of client.all(resource)) {
        const { name } = metadata;
        client.remove(resource, metadata);
        client.put(resource, { metadata: { name, namespace } });
      }
    }
    const result = await climb();
    expect(standing()).toEqual([`${namespace}/poster`, `${namespace}/${secretName}`]);
    expect(stateOf(result).slice(1, 4)).toEqual([
      'SecretsWithdrawn False ForeignObject',
      'IdentityRevoked False ForeignObject',
      'TokensRevoked False ForeignObject',
    ]);
    expect(result.remaining.map(({ what }) => what)).toEqual([
      expect.stringContaining(`Secret ${secretName}`),
      expect.stringContaining('Tokens of ServiceAccount poster'),
    ]);
    expect(result.errors).toEqual([]);
  });

  it('but grants it something is named once the authorizer had time, and asked for now and then', async () => {
    client.allowed.add(`system:serviceaccount:${namespace}:poster list`);
    expect(stateOf(await climb())[0]).toBe('PermissionsRevoked False Revoking');
    now += 6_000;
    const named = await climb();
    expect(stateOf(named)[0]).toBe('PermissionsRevoked False GrantedElsewhere');
    expect(named.findings[0]?.message).toContain('poster: list configmaps');
    client.reviews = 0;
    now += 1_000;
    const again = await climb();
    expect(client.reviews).toBe(0);
    expect(again.dueMs).toBeLessThanOrEqual(9_000);
    expect(again.remaining.map(({ what }) => what)).toEqual(
      named.remaining.map(({ what }) => what),
    );
    now += 10_000;
    client.allowed.clear();
    expect(stateOf(await climb())[0]).toBe('PermissionsRevoked True Revoked');
  });
});

describe('copies in a vault', () => {
  const left = { what: `Copy in vault secret/${namespace}/poster/erp` };

  beforeEach(() => {
    const identity = client.find(resources.automationIdentities, { namespace, name: 'poster' });
    if (identity === undefined) throw new Error('no identity');
    const secrets = [{ name: 'erp', secretName, store: 'Vault' as const }];
    client.put(resources.automationIdentities, { ...identity, status: { secrets } });
  });

  it('go with the Secrets', async () => {
    const look = await climb();
    expect(withdrawals).toEqual(['poster/erp']);
    expect(stateOf(look)).toContain('SecretsWithdrawn True Withdrawn');
  });

  it('hold up no other rung while the vault is away, are told of, and tried again', async () => {
    isVaultAway = true;
    await climb();
    now += tokensDieMs;
    const look = await climb();
    expect(stateOf(look)).toEqual(reached.with(1, 'SecretsWithdrawn False CopiesRemain'));
    expect(look.remaining).toEqual([left]);
    expect(look.dueMs).toBe(20_000);
    isVaultAway = false;
    expect(stateOf(await climb())).toEqual(reached);
  });

  it('remain though their identity is deleted meanwhile, until they are gone', async () => {
    isVaultAway = true;
    await climb();
    client.remove(resources.automationIdentities, { namespace, name: 'poster' });
    for (let looks = 0; looks < 2; looks++) {
      const look = await climb();
      expect(stateOf(look)).toContain('SecretsWithdrawn False CopiesRemain');
      expect(look.remaining).toContainEqual(left);
    }
    isVaultAway = false;
    const look = await climb();
    expect(stateOf(look)).toContain('SecretsWithdrawn False CopiesRemain');
    expect(look.findings[1]?.message).toContain('nobody knows whose it is');
    isOrphanThere = false;
    expect(stateOf(await climb())).toContain('SecretsWithdrawn True Withdrawn');
  });

  it('remain though another identity has that name by now', async () => {
    isVaultAway = true;
    await climb();
    const key = { namespace, name: 'poster' };
    client.remove(resources.automationIdentities, key);
    client.put(resources.automationIdentities, {
      metadata: { ...key, uid: 'aid-successor' },
      spec: { permissions: [] },
    });
    isVaultAway = false;
    expect((await climb()).remaining).toContainEqual(left);
  });

  describe('in a place where the settings no longer lead', () => {
    const records = { namespace: operatorNamespace };
    const former = { what: `Copy in vault https://before secret/${namespace}/poster/erp` };

    /** @param uid of the identity that made the copy */
    async function written(uid: string): Promise<void> {
      const ledger = new CopyLedger({ client, ...records, logger: silentLogger() });
      const key: CopyKey = { namespace, identity: 'poster', uid, name: 'erp' };
      await ledger.record({ key, place: `vault https://before secret/${namespace}/poster/erp` });
    }

    function strikeAll(): void {
      for (const one of client.all(resources.configMaps)) {
        client.put(resources.configMaps, { ...one, data: {} });
      }
    }

    it('remain, whatever the vault of now says, until they are no longer written down', async () => {
      await written('aid-poster');
      const look = await climb();
      expect(withdrawals).toEqual(['poster/erp']);
      expect(stateOf(look)).toContain('SecretsWithdrawn False CopiesRemain');
      expect(look.findings[1]?.message).toContain('not told of that place any more');
      expect(look.remaining).toContainEqual(former);
      expect(look.dueMs).toBeLessThanOrEqual(60_000);
      strikeAll();
      expect(stateOf(await climb())).toContain('SecretsWithdrawn True Withdrawn');
    });

    it('remain though their identity is deleted meanwhile', async () => {
      await written('aid-poster');
      await climb();
      client.remove(resources.automationIdentities, { namespace, name: 'poster' });
      isOrphanThere = false;
      expect((await climb()).remaining).toContainEqual(former);
      strikeAll();
      expect(stateOf(await climb())).toContain('SecretsWithdrawn True Withdrawn');
    });

    it('are none of a kill where another identity of that name made them', async () => {
      await written('aid-before');
      expect(stateOf(await climb())).toContain('SecretsWithdrawn True Withdrawn');
    });

    it('pass for gone neither where what is written down cannot be read', async () => {
      await written('aid-poster');
      client.failing = 'ConfigMap';
      expect(stateOf(await climb())).toContain('SecretsWithdrawn Unknown NotVerified');
    });
  });

  it('take no request where no credential is in a vault', async () => {
    const key = { namespace, name: 'poster' };
    const identity = client.find(resources.automationIdentities, key);
    if (identity === undefined) throw new Error('no identity');
    client.put(resources.automationIdentities, { ...identity, status: {} });
    client.failing = 'ConfigMap';
    expect(stateOf(await climb())).toContain('SecretsWithdrawn True Withdrawn');
  });

  it('are still told of where a look at the Secrets fails', async () => {
    isVaultAway = true;
    await climb();
    client.put(resources.secrets, {
      metadata: child('AutomationIdentity', 'poster', 'aid-poster', secretName),
    });
    client.beforeWrite = ({ kind }) => {
      if (kind === 'Secret') throw new ApiError('not now', { status: 500, reason: 'X' });
    };
    const look = await climb();
    expect(stateOf(look)).toContain('SecretsWithdrawn Unknown NotVerified');
    expect(look.remaining).toContainEqual(left);
  });

  it('are told of with the words of whoever asked last', async () => {
    isVaultAway = true;
    const said = (await climb()).findings[1]?.message;
    isVaultAsked = false;
    vaultSays = 'the connection failed';
    expect((await climb()).findings[1]?.message).toBe(said);
    isVaultAsked = true;
    expect((await climb()).findings[1]?.message).toContain(vaultSays);
  });
});

describe('a whole namespace', () => {
  it('loses what each of its automations has', async () => {
    provision('importer');
    client.put(resources.serviceAccounts, { metadata: { name: 'default', namespace } });
    engage('namespace', true);
    await climb('namespace');
    expect(standing()).toEqual([`${namespace}/default`]);
    expect(
      client.all(resources.networkPolicies).every(({ spec }) => spec.egress?.length === 0),
    ).toBe(true);
    const kept = killSwitch('namespace').metadata.annotations?.[annotation.restoreServiceAccount];
    expect(Object.keys(JSON.parse(kept ?? '{}') as object)).toEqual(['importer', 'poster']);
  });
});
