/* oxlint-disable typescript/no-unsafe-type-assertion -- storage and requests hold what was sent */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeApiServer } from '../../test/fault/fake-api-server.ts';
import { annotation, label, MANAGED_BY } from '../api/names.ts';
import type { KubeObject, NetworkPolicy, Role, RoleBinding, Secret } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import { Applier, ForeignObjectError } from './applier.ts';
import { ApiServerClient, type KubeClient } from './client.ts';
import type { Drift } from './drift.ts';
import { ApiError, isAlreadyExists, isConflict } from './errors.ts';
import type { PooledKubeConfig } from './kube-config.ts';

const { roles, roleBindings, networkPolicies, secrets, namespaces } = resources;
const owner = { apiVersion: 'example.com/v1', kind: 'Owner', name: 'owner', uid: 'uid-of-owner' };
const key = { namespace: 'billing', name: 'poster' };
const metadata = {
  ...key,
  labels: { app: 'poster' },
  ownerReferences: [{ ...owner, controller: true, blockOwnerDeletion: true }],
};
const role: Role = {
  metadata,
  rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list'] }],
};

/** An apply that says which object it means is refused as the real API server does it. */
const admit: FakeApiServer['admit'] = ({ request, object, previous }) => {
  if (request.headers['content-type'] !== 'application/apply-patch+yaml') return object;
  const { uid } = (request.body as KubeObject).metadata;
  if (uid === undefined || uid === previous?.metadata.uid) return object;
  if (previous === undefined) throw new ApiError('uid mismatch', { status: 409 });
  throw new ApiError('metadata.uid: Invalid value', { status: 422, reason: 'Invalid' });
};

let server: FakeApiServer;
let kubeConfig: PooledKubeConfig;
let applier: Applier;

beforeEach(async () => {
  server = await new FakeApiServer({ admit }).start();
  kubeConfig = server.kubeConfig();
  applier = new Applier({ client: new ApiServerClient({ kubeConfig, userAgent: 'test/1' }) });
});

afterEach(async () => {
  await kubeConfig.closeConnections();
  await server.stop();
});

/** What was written since the last call. */
function writes(): string[] {
  return server.requests
    .splice(0)
    .filter(({ verb }) => verb !== 'get')
    .map(({ verb, plural }) => `${verb} ${plural}`);
}

function stored(plural: string, group = 'rbac.authorization.k8s.io/v1'): Record<string, unknown> {
  return { ...server.storage.get(`${group}/${plural}`, 'billing/poster') };
}

async function failureOf(call: Promise<unknown>): Promise<Error> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof Error) return error;
  throw new Error('the call did not fail');
}

/** An object as it stands after somebody else changed it. */
function edited<T extends KubeObject>(live: T, change: (copy: T) => void): T {
  const copy = structuredClone(live);
  change(copy);
  return copy;
}

describe('Applier.ensure', () => {
  test('creates what is missing, then writes nothing more', async () => {
    const { action, object } = await applier.ensure(roles, role, undefined);
    expect(action).toBe('created');
    expect(writes()).toEqual(['create roles']);
    expect(await applier.ensure(roles, role, object)).toEqual({ action: 'none', object });
    expect(await applier.ensure(roles, role, undefined)).toMatchObject({ action: 'none' });
    expect(writes()).toEqual(['create roles']);
  });

  test('repairs what was edited, with what was seen or what it finds', async () => {
    const { object } = await applier.ensure(roles, role, undefined);
    for (const isSeen of [true, false]) {
      const live = server.put(
        roles,
        edited(object, (copy) => {
          delete copy.metadata.resourceVersion;
          copy.rules?.[0]?.verbs.push('*');
        }),
      );
      writes();
      const repaired = await applier.ensure(roles, role, isSeen ? live : undefined);
      expect(repaired.action).toBe('updated');
      expect(repaired.object.rules).toEqual(role.rules);
      expect(writes().at(-1)).toBe('patch roles');
    }
  });

  test('leaves what others add beside it', async () => {
    const { object } = await applier.ensure(roles, role, undefined);
    const live = edited(object, (copy) => {
      copy.metadata.annotations = { seen: 'yes' };
      copy.metadata.labels = { ...copy.metadata.labels, team: 'finance' };
      copy.metadata.finalizers = ['example.com/wait'];
      copy.metadata.ownerReferences?.unshift({ ...owner, name: 'other', uid: 'uid-of-other' });
    });
    expect(await applier.ensure(roles, role, live)).toMatchObject({ action: 'none' });
  });

  test.each<[string, (copy: Role) => void]>([
    ['a label changed', (copy) => (copy.metadata.labels = { app: 'other' })],
    ['labels gone', (copy) => delete copy.metadata.labels],
    [
      'an owner without its block',
      ({ metadata: { ownerReferences: [reference] = [] } }) => {
        if (reference !== undefined) reference.blockOwnerDeletion = false;
      },
    ],
    ['a rule more', ({ rules }) => rules?.push({ apiGroups: [''], verbs: ['*'] })],
    ['a rule less', ({ rules }) => rules?.pop()],
    ['a verb less', ({ rules }) => rules?.[0]?.verbs.pop()],
    [
      'verbs in another order',
      ({ rules: [rule] = [] }) => rule?.verbs.push(rule.verbs.shift() ?? ''),
    ],
    [
      'a field more in a rule',
      ({ rules }) => Object.assign(rules?.[0] ?? {}, { resourceNames: ['x'] }),
    ],
    ['no rules', (copy) => delete copy.rules],
  ])('sees %s', async (_, change) => {
    const { object } = await applier.ensure(roles, role, undefined);
    const live = edited(object, change);
    expect(await applier.ensure(roles, role, live)).toMatchObject({ action: 'updated' });
  });

  test.each<[string, (copy: Role) => void]>([
    ['an annotation changed', (copy) => (copy.metadata.annotations = { note: 'other' })],
    ['a finalizer gone', (copy) => (copy.metadata.finalizers = ['example.com/other'])],
  ])('sees %s', async (_, change) => {
    const desired = {
      ...role,
      metadata: { ...metadata, annotations: { note: 'ours' }, finalizers: ['example.com/ours'] },
    };
    const { object } = await applier.ensure(roles, desired, undefined);
    expect(await applier.ensure(roles, desired, object)).toMatchObject({ action: 'none' });
    const live = edited(object, change);
    expect(await applier.ensure(roles, desired, live)).toMatchObject({ action: 'updated' });
  });

  const policy: NetworkPolicy = {
    metadata,
    spec: {
      podSelector: { matchLabels: { app: 'poster' } },
      policyTypes: ['Egress'],
      egress: [
        {
          to: [{ podSelector: { matchLabels: { app: 'db' } } }],
          ports: [{ protocol: 'TCP', port: 5432 }],
        },
      ],
    },
  };

  test.each<[string, (spec: NetworkPolicy['spec']) => void]>([
    [
      'selects fewer pods',
      ({ podSelector }) => Object.assign(podSelector.matchLabels ?? {}, { x: 'y' }),
    ],
    [
      'selects by an expression more',
      ({ podSelector }) => {
        podSelector.matchExpressions = [{ key: 'x', operator: 'Exists' }];
      },
    ],
    [
      'allows another namespace',
      ({ egress }) => Object.assign(egress?.[0]?.to?.[0] ?? {}, { namespaceSelector: {} }),
    ],
    [
      'allows a range of ports',
      ({ egress }) => Object.assign(egress?.[0]?.ports?.[0] ?? {}, { endPort: 65_535 }),
    ],
    ['allows all ports', ({ egress }) => delete egress?.[0]?.ports],
    ['allows all peers', ({ egress }) => delete egress?.[0]?.to],
  ])('sees a policy that %s', async (_, change) => {
    const { object } = await applier.ensure(networkPolicies, policy, undefined);
    const live = edited(object, ({ spec }) => change(spec));
    expect(await applier.ensure(networkPolicies, policy, live)).toMatchObject({
      action: 'updated',
    });
  });

  test.each<[string, object, object]>([
    ['an empty list that is gone', { egress: [] }, { egress: undefined }],
    ['an empty list that is null', { egress: [] }, { egress: null }],
    ['an empty list inside that is gone', { egress: [{ to: [] }] }, { egress: [{}] }],
    ['an empty list that appeared', { egress: [{}] }, { egress: [{ to: [], ports: null }] }],
    ['what is undefined', { egress: undefined }, { egress: [{}] }],
  ])('sees no difference in %s', async (_, desired, live) => {
    const wanted = { ...policy, spec: { ...policy.spec, ...desired } };
    const { object } = await applier.ensure(networkPolicies, wanted, undefined);
    const found = { ...object, spec: { ...object.spec, ...live } };
    expect(await applier.ensure(networkPolicies, wanted, found)).toMatchObject({ action: 'none' });
  });

  test('sees no difference in what the server or the cache says of the type', async () => {
    const { object } = await applier.ensure(roles, role, undefined);
    const { apiVersion: _, kind: __, ...untyped } = object;
    const typed = { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'Role', ...role };
    expect(await applier.ensure(roles, typed, untyped)).toMatchObject({ action: 'none' });
  });

  test.each<[string, KubeObject['metadata']['ownerReferences']]>([
    ['nobody', undefined],
    ['another of the same name', [{ ...owner, uid: 'uid-of-another', controller: true }]],
    ['the right owner, which does not control it', [{ ...owner, controller: false }]],
  ])('never touches an object that belongs to %s', async (_, ownerReferences) => {
    const { metadata: own, ...rest } = role;
    const foreign = server.put(roles, {
      ...rest,
      rules: [],
      metadata: {
        namespace: own.namespace ?? '',
        name: own.name,
        ...(ownerReferences && { ownerReferences }),
      },
    });
    for (const live of [undefined, foreign]) {
      const error = await failureOf(applier.ensure(roles, role, live));
      expect(error).toBeInstanceOf(ForeignObjectError);
      expect(error).toMatchObject({ code: 'FOREIGN_OBJECT' });
      expect(error.message).toContain('Role poster in namespace billing');
      expect(error.message).toContain('kubectl -n billing delete roles poster');
    }
    expect(stored('roles')).toEqual(foreign);
  });

  test('names an object without a namespace as such', () => {
    const { message } = new ForeignObjectError(namespaces, { metadata: { name: 'billing' } });
    expect(message).toContain('Namespace billing exists');
    expect(message).toContain('kubectl delete namespaces billing');
  });

  test.each(['foreign', 'ours', 'nothing'])(
    'forces its way over no object that it has not seen: %s came to the name since',
    async (newcomer) => {
      const { object } = await applier.ensure(roles, role, undefined);
      server.remove(roles, 'billing/poster');
      if (newcomer !== 'nothing') {
        const { ownerReferences } = metadata;
        server.put(roles, {
          metadata: {
            namespace: 'billing',
            name: 'poster',
            ...(newcomer === 'ours' && { ownerReferences }),
          },
        });
      }
      const before = stored('roles');
      const stale = edited(object, (copy) => delete copy.rules);
      expect(isConflict(await failureOf(applier.ensure(roles, role, stale)))).toBe(true);
      expect(stored('roles')).toEqual(before);
    },
  );

  test('leaves what is being deleted to go', async () => {
    const { object } = await applier.ensure(roles, role, undefined);
    const live = edited(object, (copy) => {
      copy.metadata.deletionTimestamp = '2026-01-01T00:00:00Z';
      delete copy.rules;
    });
    writes();
    expect(await applier.ensure(roles, role, live)).toEqual({ action: 'none', object: live });
    expect(writes()).toEqual([]);
  });

  test('deletes and creates a binding to another role', async () => {
    const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'poster' };
    const binding: RoleBinding = { metadata, roleRef, subjects: [] };
    const { object } = await applier.ensure(roleBindings, binding, undefined);
    const other = { ...binding, roleRef: { ...roleRef, name: 'admin' } };
    const live = { ...object, roleRef: other.roleRef };
    writes();
    const { action, object: created } = await applier.ensure(roleBindings, binding, live);
    expect([action, created.roleRef.name]).toEqual(['created', 'poster']);
    expect(writes()).toEqual(['delete rolebindings', 'create rolebindings']);
    expect(created.metadata.uid).not.toBe(object.metadata.uid);
  });

  test('tries a bounded number of requests, whatever the server answers', async () => {
    server.faults.next('create', { kind: 'status', status: 409, reason: 'AlreadyExists' }, 100);
    expect(isAlreadyExists(await failureOf(applier.ensure(roles, role, undefined)))).toBe(true);
    expect(server.requests).toHaveLength(2);
  });

  test('plans nothing without an owner', async () => {
    const { ownerReferences: _, ...unowned } = metadata;
    const plan = { ...role, metadata: unowned };
    expect(await failureOf(applier.ensure(roles, plan, undefined))).toBeInstanceOf(TypeError);
    expect(server.requests).toEqual([]);
  });

  test('passes the signal on', async () => {
    const signal = AbortSignal.abort(new Error('over'));
    const failure = await failureOf(applier.ensure(roles, role, undefined, { signal }));
    expect(failure.message).toBe('over');
  });
});

describe('an object that outlives its owner', () => {
  const annotations = { [annotation.ownerUid]: owner.uid };
  const labels = { [label.managedBy]: MANAGED_BY, [label.workflow]: 'poster' };
  const marked: Role = { ...role, metadata: { ...key, labels, annotations } };
  const withReference: Role = { ...role, metadata: { ...marked.metadata, ...metadata } };

  test('loses the reference that an earlier version gave it, and nothing else', async () => {
    const { object } = await applier.ensure(roles, withReference, undefined);
    writes();
    const { action, object: after } = await applier.ensure(roles, marked, object);
    expect(action).toBe('updated');
    expect(after.metadata.ownerReferences ?? []).toEqual([]);
    expect(after.rules).toEqual(role.rules);
    expect(after.metadata.uid).toBe(object.metadata.uid);
    writes();
    expect((await applier.ensure(roles, marked, after)).action).toBe('none');
    expect(writes()).toEqual([]);
  });

  test.each<[string, Partial<KubeObject['metadata']>, boolean]>([
    ['as it was made', {}, true],
    [
      'made for a predecessor of the same name',
      { annotations: { [annotation.ownerUid]: 'x' } },
      true,
    ],
    ['whose label somebody took', { labels: {} }, true],
    [
      'made for a predecessor, and without the label',
      { annotations: { [annotation.ownerUid]: 'x' }, labels: {} },
      false,
    ],
    ['without a mark', { annotations: {} }, false],
    [
      'of another Workflow',
      {
        annotations: { [annotation.ownerUid]: 'x' },
        labels: { ...labels, [label.workflow]: 'other' },
      },
      false,
    ],
    [
      'that somebody else controls',
      { ownerReferences: [{ ...owner, uid: 'x', controller: true }] },
      false,
    ],
  ])('is known: %s', async (_what, changes, isOurs) => {
    const { object } = await applier.ensure(roles, marked, undefined);
    const live = edited(object, (copy) => Object.assign(copy.metadata, changes));
    const ensured = applier.ensure(roles, marked, live);
    if (isOurs) expect((await ensured).object.metadata.annotations).toMatchObject(annotations);
    else await expect(ensured).rejects.toThrow(ForeignObjectError);
  });

  test('is none where a reference is planned', async () => {
    const { object } = await applier.ensure(roles, marked, undefined);
    await expect(applier.ensure(roles, role, object)).rejects.toThrow(ForeignObjectError);
  });
});

describe('Applier.ensure with ifUnchanged', () => {
  const secret: Secret = { metadata, type: 'Opaque', data: { password: 'bmV3' } };
  const ifUnchanged = true;

  test('writes over exactly the version that was seen', async () => {
    const { object } = await applier.ensure(secrets, secret, undefined, { ifUnchanged });
    const next = { ...secret, data: { password: 'bmV4dA==' } };
    const { action, object: written } = await applier.ensure(secrets, next, object, {
      ifUnchanged,
    });
    expect([action, written.data]).toEqual(['updated', next.data]);
    const late = applier.ensure(secrets, { ...secret, data: { password: 'bGF0ZQ==' } }, object, {
      ifUnchanged,
    });
    expect(isConflict(await failureOf(late))).toBe(true);
    expect(stored('secrets', '/v1')['data']).toEqual(next.data);
  });

  test('writes nothing over what exists where nothing was seen', async () => {
    await applier.ensure(secrets, secret, undefined, { ifUnchanged });
    const other = { ...secret, data: { password: 'b3RoZXI=' } };
    const failure = await failureOf(applier.ensure(secrets, other, undefined, { ifUnchanged }));
    expect(isAlreadyExists(failure)).toBe(true);
    expect(failure.message).not.toContain('b3RoZXI=');
    expect(stored('secrets', '/v1')['data']).toEqual(secret.data);
  });

  test('writes nothing without a version', async () => {
    const { object } = await applier.ensure(secrets, secret, undefined);
    const { resourceVersion: _, ...versionless } = object.metadata;
    const live = { ...object, metadata: versionless, data: {} };
    const failure = await failureOf(applier.ensure(secrets, secret, live, { ifUnchanged }));
    expect(failure).toBeInstanceOf(TypeError);
  });
});

describe('what somebody else changed', () => {
  const changed = (live: Role): Role =>
    edited(live, (copy) => {
      copy.rules = [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }];
      copy.metadata.managedFields = [
        { manager: 'kubectl-edit', operation: 'Update', fieldsV1: { 'f:rules': {} } },
      ];
    });

  test('is told once it is repaired, with who it was', async () => {
    const drifts: Drift[] = [];
    const client = new ApiServerClient({ kubeConfig, userAgent: 'test/1' });
    const telling = new Applier({ client, onDrift: (drift) => drifts.push(drift) });
    const { object } = await telling.ensure(roles, role, undefined);
    const live = changed(object);
    server.put(roles, live);
    expect((await telling.ensure(roles, role, live)).action).toBe('updated');
    expect(drifts).toMatchObject([{ manager: 'kubectl-edit', owner: { name: 'owner' } }]);
    expect(drifts[0]?.before).not.toBe(drifts[0]?.after);
    expect((stored('roles') as unknown as Role).rules).toEqual(role.rules);
  });

  test('is told where it was only taken away, and not where the plan or the cache is old', async () => {
    const drifts: Drift[] = [];
    const client = new ApiServerClient({ kubeConfig, userAgent: 'test/1' });
    const telling = new Applier({ client, onDrift: (drift) => drifts.push(drift) });
    const { object } = await telling.ensure(roles, role, undefined);
    const labelled = edited(role, (copy) => (copy.metadata.labels = { tier: 'a' }));
    // Another plan.
    const { object: planned } = await telling.ensure(roles, labelled, object);
    expect(drifts).toEqual([]);
    // Seen late: it was written already.
    await telling.ensure(roles, labelled, object);
    expect(drifts).toEqual([]);
    const bare = edited(planned, (copy) => (copy.metadata.labels = {}));
    const live = server.put(roles, bare) as unknown as Role;
    const { object: repaired } = await telling.ensure(roles, labelled, live);
    expect(repaired.metadata.labels).toMatchObject({ tier: 'a' });
    expect(drifts).toMatchObject([{ manager: undefined, owner: { name: 'owner' } }]);
    const again = edited(repaired, (copy) => (copy.metadata.labels = {}));
    // A process that has just started knows no plan of before.
    const other = new Applier({ client, onDrift: (drift) => drifts.push(drift) });
    await other.ensure(roles, labelled, server.put(roles, again));
    expect(drifts).toHaveLength(1);
  });

  test('is told of what outlives its owner, with whose it is', async () => {
    const drifts: Drift[] = [];
    const client = new ApiServerClient({ kubeConfig, userAgent: 'test/1' });
    const telling = new Applier({ client, onDrift: (drift) => drifts.push(drift) });
    const labels = { [label.managedBy]: MANAGED_BY, [label.workflow]: 'poster' };
    const annotations = { [annotation.ownerUid]: 'uid-1' };
    const marked: Role = { ...role, metadata: { ...key, labels, annotations } };
    const { object } = await telling.ensure(roles, marked, undefined);
    const live = changed(object);
    server.put(roles, live);
    await telling.ensure(roles, marked, live);
    expect(drifts).toMatchObject([{ owner: { kind: 'Workflow', name: 'poster', uid: 'uid-1' } }]);
  });

  test('is repaired where nobody can say who it was, or is asked to', async () => {
    const drifts: Drift[] = [];
    const client = new ApiServerClient({ kubeConfig, userAgent: 'test/1' });
    const silent: Pick<KubeClient, 'get'> = {
      get: () => Promise.reject(new ApiError('no', { status: 500 })),
    };
    const blind = new Proxy(client, {
      get: (target, name) =>
        name === 'get'
          ? silent.get
          : (Reflect.get(target, name) as unknown as () => void).bind(target),
    });
    for (const [using, options] of [
      [blind, {}],
      [client, { isChange: true }],
    ] as const) {
      server.remove(roles, 'billing/poster');
      const telling = new Applier({ client: using, onDrift: (drift) => drifts.push(drift) });
      const { object } = await telling.ensure(roles, role, undefined);
      const live = changed(object);
      server.put(roles, live);
      expect((await telling.ensure(roles, role, live, options)).action).toBe('updated');
    }
    expect(drifts).toEqual([]);
  });
});

describe('Applier.remove', () => {
  test('deletes the object that was seen, and says whether it was there', async () => {
    const { object } = await applier.ensure(roles, role, undefined);
    expect(await applier.remove(roles, object)).toBe(true);
    expect(await applier.remove(roles, object)).toBe(false);
  });

  test('leaves another object of the same name', async () => {
    const { object } = await applier.ensure(roles, role, undefined);
    server.remove(roles, 'billing/poster');
    const newcomer = server.put(roles, { metadata: { namespace: 'billing', name: 'poster' } });
    expect(await applier.remove(roles, object)).toBe(false);
    expect(stored('roles')).toEqual(newcomer);
  });

  test('does not delete twice, nor without a UID', async () => {
    const { object } = await applier.ensure(roles, role, undefined);
    writes();
    const going = edited(
      object,
      (copy) => (copy.metadata.deletionTimestamp = '2026-01-01T00:00:00Z'),
    );
    expect(await applier.remove(roles, going)).toBe(true);
    expect(await failureOf(applier.remove(roles, role))).toBeInstanceOf(TypeError);
    expect(writes()).toEqual([]);
  });
});
