import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { policyName } from '../../../src/admission/policies.ts';
import { label, MANAGED_BY } from '../../../src/api/names.ts';
import type { RoleBinding } from '../../../src/api/objects.ts';
import { resources, type Resource } from '../../../src/api/resources.ts';
import { forEachBounded } from '../../../src/runtime/parallel.ts';
import { waitFor } from '../../control-plane/wait.ts';
import type { Api } from './api.ts';
import { AdmissionCluster, identity, markBinding, name } from './cluster.ts';

const { automationIdentities, roleBindings } = resources;
const policy = policyName('identity-role-bindings');
const apiGroup = 'rbac.authorization.k8s.io';
const dryRun = { dryRun: true };

const configMaps: Resource = {
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  plural: 'configmaps',
  namespaced: true,
};

type Subject = NonNullable<RoleBinding['subjects']>[number];

let cluster: AdmissionCluster;
let admin: Api;
let operator: Api;
/** Holds ClusterRole `admin`, which people have in their own namespaces. */
let owner: Api;

beforeAll(async () => {
  cluster = await AdmissionCluster.start();
  ({ admin, operator } = cluster);
  owner = admin.as('owner');
  await cluster.controlPlane.apply([
    {
      apiVersion: `${apiGroup}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: 'role-bindings-owner' },
      roleRef: { apiGroup, kind: 'ClusterRole', name: 'admin' },
      subjects: [{ apiGroup, kind: 'User', name: 'owner' }],
    },
  ]);
});

afterAll(() => cluster?.stop());

const user = (who: string): Subject => ({ apiGroup, kind: 'User', name: who });
const group = (which: string): Subject => ({ apiGroup, kind: 'Group', name: which });
const account = (namespace: string, of = name): Subject => ({
  kind: 'ServiceAccount',
  name: of,
  namespace,
});

function binding(namespace: string, subjects: Subject[], metadata: object = {}): RoleBinding {
  return {
    metadata: { namespace, name: 'mine', ...metadata },
    roleRef: { apiGroup, kind: 'ClusterRole', name: 'view' },
    subjects,
  };
}

/** Makes `invoice` of a namespace an identity, as the operator does. */
async function identify(namespace: string): Promise<void> {
  expect((await operator.create(roleBindings, markBinding(namespace))).message).toBe('');
  expect((await admin.create(automationIdentities, identity(namespace))).message).toBe('');
  await waitFor('the identity to be known', async () => {
    const asked = binding(namespace, [account(namespace)]);
    return (await admin.create(roleBindings, asked, dryRun)).status === 403;
  });
}

describe('a new RoleBinding in the namespace of an identity', () => {
  const namespace = 'bound';

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    await identify(namespace);
  });

  it.each<[string, Subject, string]>([
    ['its ServiceAccount', account(namespace), 'the ServiceAccount invoice: take the subject out'],
    [
      'its user',
      user(`system:serviceaccount:${namespace}:${name}`),
      'the ServiceAccount invoice: take the subject out',
    ],
    [
      'the ServiceAccounts of the namespace',
      group(`system:serviceaccounts:${namespace}`),
      'every ServiceAccount of the namespace, invoice among them',
    ],
    ['all ServiceAccounts', group('system:serviceaccounts'), 'every ServiceAccount'],
    ['everybody', group('system:authenticated'), 'every ServiceAccount'],
  ])('is refused for %s, whoever asks, with what to do instead', async (_, subject, who) => {
    const asked = binding(namespace, [user('alice'), subject]);
    for (const api of [owner, admin]) {
      const { status, message } = await api.create(roleBindings, asked, dryRun);
      expect(status).toBe(403);
      expect(message).toContain(`ValidatingAdmissionPolicy '${policy}'`);
      expect(message).toContain(who);
      expect(message).toContain(`kubectl edit aid invoice -n ${namespace}`);
    }
  });

  it.each<[string, Subject[]]>([
    ['nobody', []],
    ['people', [user('alice'), group('finance')]],
    ['another ServiceAccount', [account(namespace, 'other')]],
    ['its namesake in another namespace', [account('elsewhere')]],
    ['the ServiceAccounts of another namespace', [group('system:serviceaccounts:elsewhere')]],
    ['a person of its name', [user(name)]],
    ['who is not known', [group('system:unauthenticated')]],
    ['three others', ['a', 'b', 'c'].map((other) => account(namespace, other))],
  ])('is none of our business for %s', async (_, subjects) => {
    const { message } = await owner.create(roleBindings, binding(namespace, subjects), dryRun);
    expect(message).toBe('');
  });

  it('is the operator’s, by a label that nobody else writes', async () => {
    const labelled = binding(namespace, [account(namespace)], {
      labels: { [label.managedBy]: MANAGED_BY },
    });
    const { message } = await owner.create(roleBindings, labelled, dryRun);
    expect(message).toContain(`ValidatingAdmissionPolicy '${policyName('children')}'`);
    const own = { ...labelled, roleRef: markBinding(namespace).roleRef };
    expect((await operator.create(roleBindings, own, dryRun)).message).toBe('');
  });

  it('is refused to kubectl apply, to server-side apply and to kubectl auth reconcile', async () => {
    const manifest = { apiVersion: `${apiGroup}/v1`, kind: 'RoleBinding' };
    const asked = { ...manifest, ...binding(namespace, [account(namespace)]) };
    const kubectl = (args: string[], object: object = asked) =>
      cluster.controlPlane.kubectl([...args, '-f', '-'], { input: JSON.stringify(object) });
    for (const args of [['apply'], ['apply', '--server-side']]) {
      const { code, stderr } = await kubectl(args);
      expect(code).not.toBe(0);
      expect(stderr).toContain('is in its spec.permissions');
    }
    // That of 1.36 says it by a panic, whoever refuses.
    const reconcile = ['auth', 'reconcile'];
    expect((await kubectl(reconcile)).code).not.toBe(0);
    expect((await admin.get(roleBindings, { namespace, name: 'mine' })).status).toBe(404);
    expect((await kubectl(reconcile, { ...asked, subjects: [user('alice')] })).code).toBe(0);
    expect((await kubectl(reconcile)).code).not.toBe(0);
    const { object } = await admin.get(roleBindings, { namespace, name: 'mine' });
    expect(object).toMatchObject({ subjects: [{ name: 'alice' }] });
  });

  it('is allowed in other namespaces, where it is found and reported', async () => {
    const elsewhere = await cluster.guardedNamespace('bound-elsewhere');
    const asked = binding(elsewhere, [account(namespace), group('system:authenticated')]);
    expect((await admin.create(roleBindings, asked, dryRun)).message).toBe('');
  });
});

describe('a RoleBinding from before the identity', () => {
  const namespace = 'bound-before';
  const target = { namespace, name: 'mine' };
  const replace = async (subjects: Subject[]): Promise<string> =>
    (await owner.merge(roleBindings, target, { subjects })).message;

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    const stood = binding(namespace, [account(namespace), user('alice')]);
    expect((await admin.create(roleBindings, stood)).message).toBe('');
    const { object: keeper } = await admin.create(configMaps, {
      metadata: { namespace, name: 'keeper' },
    });
    const { uid = '' } = keeper.metadata;
    const ownerReferences = [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'keeper', uid }];
    const owned = binding(namespace, [account(namespace)], { name: 'owned', ownerReferences });
    expect((await admin.create(roleBindings, owned)).message).toBe('');
    await identify(namespace);
  });

  it('may be labelled, given to others and taken from them', async () => {
    const labelled = { metadata: { labels: { team: 'finance' } } };
    expect((await owner.merge(roleBindings, target, labelled)).message).toBe('');
    expect(await replace([account(namespace), user('alice'), user('bob')])).toBe('');
    expect(await replace([account(namespace)])).toBe('');
  });

  it('may be taken away, and then doesn’t come back', async () => {
    expect(await replace([user('alice')])).toBe('');
    expect(await replace([user('alice'), account(namespace)])).toContain(policy);
    expect(await replace([group(`system:serviceaccounts:${namespace}`)])).toContain(policy);
    expect((await owner.delete(roleBindings, target)).status).toBe(200);
  });

  it('is released by the garbage collector', async () => {
    const { code, stderr } = await cluster.controlPlane.kubectl([
      'delete',
      'configmap',
      'keeper',
      `-n=${namespace}`,
      '--cascade=orphan',
    ]);
    expect(code, stderr).toBe(0);
    await waitFor('the binding to be released', async () => {
      const { object } = await admin.get(roleBindings, { namespace, name: 'owned' });
      return object.metadata.ownerReferences === undefined;
    });
  });
});

describe('where a ServiceAccount of the name of an identity is somebody else’s', () => {
  it('it is his to bind: nothing is marked', async () => {
    const namespace = await cluster.guardedNamespace('bound-foreign');
    expect((await admin.create(automationIdentities, identity(namespace))).message).toBe('');
    await waitFor('the identity to be known', async () => {
      const everybody = binding(namespace, [group('system:authenticated')]);
      return (await admin.create(roleBindings, everybody, dryRun)).status === 403;
    });
    const asked = binding(namespace, [account(namespace)]);
    expect((await admin.create(roleBindings, asked, dryRun)).message).toBe('');
  });
});

describe('in a namespace without an identity, or that isn’t guarded', () => {
  it('everything may be bound', async () => {
    const empty = await cluster.guardedNamespace('bound-empty');
    const unguarded = await cluster.namespace('bound-unguarded');
    expect((await admin.create(roleBindings, markBinding(unguarded))).message).toBe('');
    expect((await admin.create(automationIdentities, identity(unguarded))).message).toBe('');
    for (const namespace of [empty, unguarded]) {
      const asked = binding(namespace, [account(namespace), group('system:authenticated')]);
      expect((await admin.create(roleBindings, asked, dryRun)).message).toBe('');
    }
  });
});

describe('with 1,000 identities in one namespace', () => {
  it('a RoleBinding is still written, and what it costs is printed', async () => {
    const crowded = await cluster.guardedNamespace('bound-crowded');
    const empty = await cluster.guardedNamespace('bound-uncrowded');
    const created = await forEachBounded(
      Array.from({ length: 1_000 }, (_, index) => `identity-${index}`),
      24,
      async (one) => {
        const object = identity(crowded);
        const metadata = { ...object.metadata, name: one };
        return admin.create(automationIdentities, { ...object, metadata });
      },
    );
    expect(created.every((one) => 'result' in one && one.result.status === 201)).toBe(true);
    await waitFor('the last of them to be known', async () => {
      const everybody = binding(crowded, [group('system:authenticated')]);
      return (await admin.create(roleBindings, everybody, dryRun)).status === 403;
    });
    const cost = async (namespace: string, subjects: Subject[]): Promise<string> => {
      const times: number[] = [];
      for (let run = 0; run < 20; run++) {
        const from = performance.now();
        await owner.create(roleBindings, binding(namespace, subjects), dryRun);
        times.push(performance.now() - from);
      }
      return `${times.toSorted((a, b) => a - b)[10]?.toFixed(1)} ms`;
    };
    const people = [user('alice'), user('bob')];
    console.log(
      `median of 20 RoleBinding writes: ${await cost(empty, people)} without identities, ${await cost(crowded, people)} with 1,000 of them, ${await cost(crowded, [group('system:authenticated')])} where it is refused for all`,
    );
  });
});
