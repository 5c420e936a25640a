import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tiers, type Tier } from '../../../src/api/guardrail-policy.ts';
import { annotation, label, MANAGED_BY, secretNameOf } from '../../../src/api/names.ts';
import type { KubeObject } from '../../../src/api/objects.ts';
import { resources, type Resource } from '../../../src/api/resources.ts';
import { tokenMarks } from '../../../src/api/token-marks.ts';
import { childMetadata, markNameOf } from '../../../src/guardrails/identity/plan.ts';
import { waitFor } from '../../control-plane/wait.ts';
import { path, type Answer, type Api, type CallOptions } from './api.ts';
import { AdmissionCluster, markBinding, name } from './cluster.ts';
import { pod } from './workloads.ts';

const {
  automationIdentities,
  configMaps,
  jobs,
  namespaces,
  networkPolicies,
  pods,
  roleBindings,
  roles,
  secrets,
  serviceAccounts,
} = resources;

const rbacGroup = 'rbac.authorization.k8s.io';
const dryRun = { dryRun: true };

let cluster: AdmissionCluster;
let admin: Api;
let operator: Api;
/** Holds ClusterRole `admin`, which people have in their own namespaces. */
let owner: Api;
let node: Api;

beforeAll(async () => {
  cluster = await AdmissionCluster.start();
  ({ admin, operator } = cluster);
  owner = admin.as('owner');
  node = admin.as('system:node:node-1', 'system:nodes');
  await cluster.controlPlane.apply([
    clusterRoleBinding('admin', 'owner'),
    // Who may read and write is not what is tested here.
    clusterRoleBinding('edit', 'system:node:node-1'),
  ]);
});

afterAll(() => cluster?.stop());

function clusterRoleBinding(role: string, user: string): object {
  return {
    apiVersion: `${rbacGroup}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: `always-on-${role}` },
    roleRef: { apiGroup: rbacGroup, kind: 'ClusterRole', name: role },
    subjects: [{ apiGroup: rbacGroup, kind: 'User', name: user }],
  };
}

/** A guarded namespace in which `invoice` is the ServiceAccount of an identity. */
async function markedNamespace(namespace: string): Promise<string> {
  await cluster.guardedNamespace(namespace);
  expect((await operator.create(roleBindings, markBinding(namespace))).message).toBe('');
  await waitFor('the mark to be known', async () => {
    const { status } = await admin.create(pods, podWith(namespace, { hostNetwork: true }), dryRun);
    return status === 403;
  });
  return namespace;
}

/** A pod of `invoice`, with further fields of its spec and of its first container. */
function podWith(
  namespace: string,
  spec: object,
  container: object = {},
  account: string = name,
): KubeObject {
  const base = pod(namespace, 'work', account) as KubeObject & {
    spec: { containers: object[] };
  };
  const [first] = base.spec.containers;
  return {
    ...base,
    spec: { ...base.spec, containers: [{ ...first, ...container }], ...spec },
  } as KubeObject;
}

function tokenSecret(namespace: string, account: string, secret = 'token'): KubeObject {
  return {
    metadata: {
      namespace,
      name: secret,
      annotations: { 'kubernetes.io/service-account.name': account },
    },
    type: 'kubernetes.io/service-account-token',
  } as KubeObject;
}

const ephemeral: CallOptions = { subresource: 'ephemeralcontainers' };

function debug(api: Api, namespace: string, of: string, container: object): Promise<Answer> {
  const added = {
    name: 'debug',
    image: 'registry.example/debug:1',
    terminationMessagePolicy: 'File',
    imagePullPolicy: 'Always',
    ...container,
  };
  const patch = { spec: { ephemeralContainers: [added] } };
  return api.merge(pods, { namespace, name: of }, patch, { ...ephemeral, ...dryRun });
}

describe('the mark of an identity', () => {
  const namespace = 'marks';

  beforeAll(() => markedNamespace(namespace));

  it('is given by nobody who doesn’t hold what it stands for', async () => {
    const { metadata, ...rest } = markBinding(namespace);
    const unlabelled = { metadata: { namespace, name: 'mine' }, ...rest };
    expect((await owner.create(roleBindings, unlabelled)).message).toContain(
      'attempting to grant RBAC permissions not currently held',
    );
    expect(
      (await owner.create(roleBindings, { metadata: { ...metadata, name: 'x' }, ...rest })).status,
    ).toBe(403);
  });

  it('is that of one ServiceAccount in one namespace', async () => {
    const hostNetwork = { hostNetwork: true };
    const elsewhere = await cluster.guardedNamespace('marks-elsewhere');
    const answers = await Promise.all([
      admin.create(pods, podWith(namespace, hostNetwork), dryRun),
      admin.create(pods, podWith(namespace, hostNetwork, {}, 'other'), dryRun),
      admin.create(pods, podWith(namespace, hostNetwork, {}, 'default'), dryRun),
      admin.create(pods, podWith(elsewhere, hostNetwork), dryRun),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([403, 201, 201, 201]);
  });

  it('is none of a ServiceAccount that doesn’t exist', async () => {
    const { message } = await owner.create(secrets, tokenSecret(namespace, 'nobody'), dryRun);
    expect(message).toBe('');
  });

  it('holds while its ServiceAccount is gone', async () => {
    const other = await markedNamespace('marks-kept');
    await admin.delete(serviceAccounts, { namespace: other, name });
    expect((await owner.create(secrets, tokenSecret(other, name), dryRun)).status).toBe(403);
  });

  it('keeps its name for the operator, while its ServiceAccount is gone', async () => {
    const account = { metadata: { namespace: 'marks-kept', name } };
    const { message } = await owner.create(serviceAccounts, account);
    expect(message).toContain('an AutomationIdentity of this name has its ServiceAccount from');
    const other = { metadata: { namespace: 'marks-kept', name: 'somebody' } };
    expect((await owner.create(serviceAccounts, other)).message).toBe('');
    expect((await operator.create(serviceAccounts, account)).message).toBe('');
  });
});

describe('a Secret that asks for a token', () => {
  const namespace = 'token-secrets';

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    await owner.create(secrets, tokenSecret(namespace, name, 'earlier'));
    await markedNamespace(namespace);
  });

  it('is refused for an identity, whoever asks, and says what to do instead', async () => {
    for (const api of [owner, admin]) {
      const { status, message } = await api.create(secrets, tokenSecret(namespace, name));
      expect(status).toBe(403);
      expect(message).toContain(
        'the ServiceAccount invoice is that of an AutomationIdentity, and has no tokens that never expire: run in a pod with serviceAccountName: invoice',
      );
    }
  });

  it('is not turned into one for an identity', async () => {
    const secret = tokenSecret(namespace, 'other', 'turned');
    expect((await owner.create(secrets, secret)).message).toBe('');
    const annotations = { 'kubernetes.io/service-account.name': name };
    const { status } = await owner.annotate(secrets, { namespace, name: 'turned' }, annotations);
    expect(status).toBe(403);
  });

  it('is left to be labelled and deleted where it stands already', async () => {
    const earlier = { namespace, name: 'earlier' };
    const labelled = await owner.merge(secrets, earlier, { metadata: { labels: { a: 'b' } } });
    expect(labelled.message).toBe('');
    expect((await owner.delete(secrets, earlier)).status).toBe(200);
  });

  it('is no business of ours for another ServiceAccount, nor is another type', async () => {
    const plain = {
      ...tokenSecret(namespace, name, 'plain'),
      type: 'Opaque',
    } as KubeObject;
    for (const secret of [tokenSecret(namespace, 'default', 'own'), plain]) {
      expect((await owner.create(secrets, secret)).message).toBe('');
    }
  });
});

describe('a request for a token', () => {
  const namespace = 'token-requests';

  beforeAll(async () => {
    await markedNamespace(namespace);
    await admin.create(pods, pod(namespace, 'running'));
    await admin.create(secrets, { metadata: { namespace, name: 'bound' } });
  });

  function ask(
    api: Api,
    spec: { kind?: string; seconds?: number },
    account: string = name,
  ): Promise<Answer> {
    const { kind, seconds } = spec;
    const bound = kind === 'Pod' ? 'running' : 'bound';
    return api.create(
      serviceAccounts,
      {
        metadata: { namespace, name: account },
        spec: {
          ...(kind !== undefined && {
            boundObjectRef: { apiVersion: 'v1', kind, name: bound },
          }),
          ...(seconds !== undefined && { expirationSeconds: seconds }),
        },
      } as KubeObject,
      { subresource: 'token' },
    );
  }

  it('is answered to the kubelet, for the pod, and as long as it asks by itself', async () => {
    for (const seconds of [600, 3600]) {
      const { object, message } = await ask(node, { kind: 'Pod', seconds });
      expect(message).toBe('');
      expect(object.status?.token).toBeDefined();
    }
    expect((await ask(node, { kind: 'Pod' })).message).toBe('');
  });

  it('is answered to who issues tokens, bound to a Secret', async () => {
    expect((await ask(admin, { kind: 'Secret' })).message).toBe('');
    expect((await ask(admin, { kind: 'Secret', seconds: 3600 })).message).toBe('');
  });

  it.each([
    ['unbound', {}],
    ['bound to a pod, from elsewhere', { kind: 'Pod' }],
    ['bound to a Secret', { kind: 'Secret' }],
  ])('is refused to anybody else: %s', async (_, spec) => {
    const { status, message } = await ask(owner, spec);
    expect(status).toBe(403);
    expect(message).toContain(
      'the ServiceAccount invoice is that of an AutomationIdentity: its tokens are bound to a pod or a Secret and requested by the node or the operator. Run in a pod with serviceAccountName: invoice',
    );
  });

  it.each([
    ['unbound, even from who issues tokens', () => ask(admin, {})],
    ['unbound, from a node', () => ask(node, {})],
    ['bound to a Secret, from a node', () => ask(node, { kind: 'Secret' })],
    ['from who calls himself a node', () => ask(admin.as('system:node:node-1'), { kind: 'Pod' })],
  ])('is refused %s', async (_, request) => {
    expect((await request()).message).toContain('is that of an AutomationIdentity');
  });

  it.each([
    ['from a node', () => ask(node, { kind: 'Pod', seconds: 3607 }), 3607],
    ['from who issues tokens', () => ask(admin, { kind: 'Secret', seconds: 3607 }), 3607],
  ])('for longer than an hour is refused %s', async (_, request, seconds) => {
    expect((await request()).message).toContain(
      `tokens of the AutomationIdentity invoice live at most 3600 s, and ${seconds} s were asked for`,
    );
  });

  it('is no business of ours for another ServiceAccount', async () => {
    expect((await ask(owner, { seconds: 86_400 }, 'other')).message).toBe('');
  });
});

describe('the operator, or whoever has its token', () => {
  const namespace = 'reach';
  const says = 'its credentials are in the wrong hands';
  const hookOf = (
    account: string,
    annotations: Record<string, string>,
  ): KubeObject & { spec: object } => ({
    metadata: { namespace, name: `hook-of-${account}`, annotations },
    spec: {
      template: {
        spec: {
          serviceAccountName: account,
          restartPolicy: 'Never',
          containers: [{ name: 'main', image: 'registry.example/hook:1' }],
        },
      },
    },
  });
  const tokenOf = (of: { namespace: string; name: string }): Promise<Answer> =>
    operator.send({
      method: 'POST',
      url: `/api/v1/namespaces/${of.namespace}/serviceaccounts/${of.name}/token`,
      body: {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: { audiences: [], expirationSeconds: 600 },
      },
    });

  beforeAll(() => markedNamespace(namespace));

  it.each([
    ['of its namespace', { namespace, name: 'default' }],
    ['of the system', { namespace: 'kube-system', name: 'default' }],
  ])('gets no token of a ServiceAccount that is no identity’s: %s', async (_, of) => {
    const { status, message } = await tokenOf(of);
    expect(status).toBe(403);
    expect(message).toContain(says);
  });

  it.each<[string, KubeObject & { type?: string }]>([
    ['of another name', { metadata: { namespace, name: 'theirs' }, type: 'Opaque' }],
    ['in an unguarded namespace', { metadata: { namespace: 'default', name: 'x' } }],
    [
      'that asks for a token',
      {
        metadata: {
          namespace,
          name: secretNameOf(name, 'x'),
          annotations: { 'kubernetes.io/service-account.name': 'default' },
        },
        type: 'kubernetes.io/service-account-token',
      },
    ],
  ])('makes no Secret %s', async (_, secret) => {
    const { status, message } = await operator.create(secrets, secret);
    expect(status).toBe(403);
    expect(message).toContain(says);
  });

  it('changes and deletes no Secret of others', async () => {
    const metadata = { namespace, name: 'others' };
    expect((await admin.create(secrets, { metadata })).message).toBe('');
    const changed = await operator.merge(secrets, metadata, { data: { key: 'eA==' } });
    expect(changed.message).toContain(says);
    expect((await operator.delete(secrets, metadata)).message).toContain(says);
    expect((await owner.delete(secrets, metadata)).status).toBe(200);
  });

  it('makes Jobs of hooks alone, which run as identities', async () => {
    const marked = { [annotation.rotationHook]: 'Set' };
    for (const [account, annotations] of [
      ['default', marked],
      [name, {}],
    ] as const) {
      const { message } = await operator.create(jobs, hookOf(account, annotations), dryRun);
      expect(message).toContain(says);
    }
    expect((await operator.create(jobs, hookOf(name, marked), dryRun)).message).toBe('');
    expect((await admin.create(jobs, hookOf('default', {}), dryRun)).message).toBe('');
  });

  it('makes Jobs that nobody else forges, changes or deletes', async () => {
    const job = hookOf(name, { [annotation.rotationHook]: 'Set' });
    const labels = { [label.managedBy]: MANAGED_BY, [label.identity]: name };
    const marked = { ...job, metadata: { ...job.metadata, labels } };
    expect((await owner.create(jobs, marked)).message).toContain('leave it out');
    expect((await operator.create(jobs, marked)).message).toBe('');
    const suspended = await owner.merge(jobs, marked.metadata, { spec: { suspend: true } });
    expect(suspended.message).toContain(`kubectl edit aid ${name} -n ${namespace}`);
    expect((await owner.delete(jobs, marked.metadata)).status).toBe(403);
    expect((await operator.delete(jobs, marked.metadata)).status).toBe(200);
  });

  it('binds nobody where no automation is guarded, and writes what stands there', async () => {
    const unguarded = await cluster.namespace('reach-unguarded');
    for (const elsewhere of ['kube-system', unguarded]) {
      const { message } = await operator.create(roleBindings, markBinding(elsewhere), dryRun);
      expect(message).toContain(says);
    }
    const mark = markBinding(unguarded);
    expect((await admin.create(roleBindings, mark)).message).toBe('');
    const annotated = { metadata: { annotations: { kept: 'yes' } } };
    expect((await operator.merge(roleBindings, mark.metadata, annotated)).message).toBe('');
    const more = { subjects: [{ kind: 'ServiceAccount', name: 'default', namespace: unguarded }] };
    expect((await operator.merge(roleBindings, mark.metadata, more)).message).toContain(says);
    expect((await operator.delete(roleBindings, mark.metadata)).status).toBe(200);
  });

  it('is told from a ServiceAccount with cluster-admin', async () => {
    const admins = 'system:serviceaccount:ci:admins';
    await cluster.controlPlane.apply([clusterRoleBinding('cluster-admin', admins)]);
    const theirs = { metadata: { namespace, name: 'theirs' } };
    await waitFor('its rights to be known', async () => {
      const { status } = await admin.as(admins).create(secrets, theirs, dryRun);
      return status === 201;
    });
  });
});

describe('a Secret named as generated ones are', () => {
  const namespace = 'names';

  beforeAll(() => cluster.guardedNamespace(namespace));

  it.each([secretNameOf(name, 'erp'), 'aid.', 'aid.x'])(
    'is not created by others: %s',
    async (secret) => {
      const { status, message } = await owner.create(secrets, {
        metadata: { namespace, name: secret },
      });
      expect(status).toBe(secret === 'aid.' ? 422 : 403);
      if (secret !== 'aid.') expect(message).toContain('names that begin with aid. are those of');
    },
  );

  it('is not created by a generated name either', async () => {
    const metadata = { namespace, generateName: 'aid.x.y-' };
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the API server names it
    const { message } = await owner.create(secrets, { metadata } as unknown as KubeObject);
    expect(message).toContain('names that begin with aid. are those of');
  });

  it('is created by the operator', async () => {
    const { message } = await operator.create(secrets, {
      metadata: { namespace, name: secretNameOf(name, 'erp') },
    });
    expect(message).toBe('');
  });

  it.each(['a.b.c', 'aide.x.y', 'x.aid.y'])(
    'is anybody’s with another beginning: %s',
    async (secret) => {
      const { message } = await owner.create(secrets, { metadata: { namespace, name: secret } });
      expect(message).toBe('');
    },
  );
});

describe('what was copied to a vault', () => {
  const record = { namespace: 'automation-guardrails', name: 'vault-copies-1' };
  const labels = { [label.copies]: 'recorded' };

  it('is written down by the operator alone, and neither changed, forged nor deleted by others', async () => {
    const found = await admin.create(configMaps, { metadata: { ...record, labels } });
    expect(found.message).toBe('');
    const forged = { ...record, name: 'vault-copies-2' };
    const said = 'a ConfigMap with the label automationguardrails.dev/copies is written by';
    const attempts = [
      owner.create(configMaps, { metadata: { ...forged, labels } }),
      owner.merge(configMaps, record, { data: { x: 'forged' } }),
      owner.merge(configMaps, record, { metadata: { labels: { [label.copies]: null } } }),
      owner.delete(configMaps, record),
    ];
    for (const { message } of await Promise.all(attempts)) expect(message).toContain(said);
    // As the migration of stored versions writes it.
    expect((await owner.merge(configMaps, record, { metadata: { labels } })).message).toBe('');
    expect((await owner.create(configMaps, { metadata: forged })).message).toBe('');
  });
});

describe('a Secret of an identity', () => {
  const namespace = 'pod-secrets';
  const foreign = secretNameOf('other', 'erp');
  const env = (secret: string): object => ({
    env: [
      { name: 'A', value: 'a' },
      { name: 'P', valueFrom: { secretKeyRef: { name: secret, key: 'password' } } },
    ],
  });
  const envFrom = (secret: string): object => ({
    envFrom: [{ configMapRef: { name: 'a' } }, { secretRef: { name: secret } }],
  });
  const volume = (source: object): object => ({
    volumes: [
      { name: 'first', emptyDir: {} },
      { name: 'credential', ...source },
    ],
  });
  const container = (fields: object): object => ({
    name: 'second',
    image: 'registry.example/automation:1',
    ...fields,
  });
  /** By where the Secret is named: whole spec, or fields of the first container. */
  const references: [string, (secret: string) => { spec?: object; container?: object }][] = [
    ['env', (secret) => ({ container: env(secret) })],
    ['envFrom', (secret) => ({ container: envFrom(secret) })],
    [
      'env of an init container',
      (secret) => ({ spec: { initContainers: [container(env(secret))] } }),
    ],
    [
      'envFrom of an init container',
      (secret) => ({ spec: { initContainers: [container(envFrom(secret))] } }),
    ],
    [
      'imagePullSecrets',
      (secret) => ({ spec: { imagePullSecrets: [{ name: 'a' }, { name: secret }] } }),
    ],
    ['secret', (secretName) => ({ spec: volume({ secret: { secretName } }) })],
    [
      'projected',
      (secret) => ({
        spec: volume({
          projected: { sources: [{ configMap: { name: 'a' } }, { secret: { name: secret } }] },
        }),
      }),
    ],
    [
      'csi',
      (secret) => ({
        spec: volume({ csi: { driver: 'd.example', nodePublishSecretRef: { name: secret } } }),
      }),
    ],
    [
      'azureFile',
      (secretName) => ({ spec: volume({ azureFile: { secretName, shareName: 's' } }) }),
    ],
    [
      'cephfs',
      (secret) => ({ spec: volume({ cephfs: { monitors: ['m'], secretRef: { name: secret } } }) }),
    ],
    [
      'cinder',
      (secret) => ({ spec: volume({ cinder: { volumeID: 'v', secretRef: { name: secret } } }) }),
    ],
    [
      'flexVolume',
      (secret) => ({
        spec: volume({ flexVolume: { driver: 'd/x', secretRef: { name: secret } } }),
      }),
    ],
    [
      'iscsi',
      (secret) => ({
        spec: volume({
          iscsi: {
            targetPortal: '1.2.3.4',
            iqn: 'iqn.2001-04.com.example:storage.disk1',
            lun: 0,
            chapAuthSession: true,
            secretRef: { name: secret },
          },
        }),
      }),
    ],
    [
      'rbd',
      (secret) => ({
        spec: volume({ rbd: { monitors: ['m'], image: 'i', secretRef: { name: secret } } }),
      }),
    ],
    [
      'scaleIO',
      (secret) => ({
        spec: volume({
          scaleIO: { gateway: 'g', system: 's', volumeName: 'v', secretRef: { name: secret } },
        }),
      }),
    ],
    [
      'storageos',
      (secret) => ({
        spec: volume({
          storageos: { volumeName: 'v', volumeNamespace: 'n', secretRef: { name: secret } },
        }),
      }),
    ],
  ];

  beforeAll(() => markedNamespace(namespace));

  function create(
    reference: (secret: string) => { spec?: object; container?: object },
    secret: string,
    account?: string,
  ): Promise<Answer> {
    const { spec = {}, container: fields } = reference(secret);
    return admin.create(pods, podWith(namespace, spec, fields, account), dryRun);
  }

  it.each(references)('is used by pods of that identity alone: %s', async (_, reference) => {
    for (const account of [name, 'default']) {
      const { status, message } = await create(reference, foreign, account);
      expect(status).toBe(403);
      expect(message).toMatch(
        /(container (main|second)|volume credential|imagePullSecret aid\.other\.erp): a Secret aid\.IDENTITY\.NAME is for pods that run as that identity/,
      );
      expect(message).toContain(`this one runs as ${account}`);
    }
    expect((await create(reference, foreign, 'other')).message).toBe('');
  });

  it.each(references)('and other Secrets by anybody: %s', async (_, reference) => {
    for (const secret of ['erp', 'a.b.c', 'other.erp', 'aide.other.erp']) {
      expect((await create(reference, secret)).message).toBe('');
    }
  });

  it('is told by its whole name', async () => {
    // `invoice` is the beginning of another identity's name.
    const [, reference] = references[0] ?? [];
    if (reference === undefined) throw new Error('no reference');
    for (const secret of ['aid.invoice-2.erp', 'aid.invoice', 'aid.', 'aid.x']) {
      expect((await create(reference, secret)).status).toBe(secret === 'aid.' ? 422 : 403);
    }
  });

  it('is not reached by an ephemeral container', async () => {
    for (const [account, expected] of [
      ['default', 403],
      ['other', 200],
    ] as const) {
      expect((await admin.create(pods, pod(namespace, account, account))).message).toBe('');
      for (const fields of [env(foreign), envFrom(foreign)]) {
        expect((await debug(admin, namespace, account, fields)).status).toBe(expected);
      }
      expect((await debug(admin, namespace, account, env('erp'))).message).toBe('');
    }
  });

  it('is looked for in large pods too', async () => {
    const many = Array.from({ length: 2_000 }, (_, index) => ({
      name: `V${index}`,
      valueFrom: { secretKeyRef: { name: `secret-${index}`, key: 'password' } },
    }));
    expect((await create(() => ({ container: { env: many } }), 'a')).message).toBe('');
    const last = { name: 'LAST', valueFrom: { secretKeyRef: { name: foreign, key: 'k' } } };
    const { message } = await create(() => ({ container: { env: [...many, last] } }), 'a');
    expect(message).toContain('container main: a Secret aid.IDENTITY.NAME');
  });
});

describe('a credential in a spec', () => {
  const namespace = 'in-the-open';
  const { deployments } = resources;
  // Of the form of a token of GitHub, and none.
  const token = `ghp_${'0123456789abcdefABCDEFghijklmnopqrst'.slice(0, 36)}`;
  const says = (api: Api, resource: Resource, object: KubeObject, options = dryRun) =>
    api.create(resource, object, options).then(({ message }) => message);

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    await cluster.controlPlane.apply([
      clusterRoleBinding('automation-guardrails-secret-allower', 'sue'),
    ]);
  });

  const workloadWith = (container: object, metadata: object = {}): KubeObject =>
    ({
      metadata: { namespace, name: 'work', ...metadata },
      spec: {
        replicas: 0,
        selector: { matchLabels: { app: 'work' } },
        template: {
          metadata: { labels: { app: 'work' } },
          spec: (podWith(namespace, {}, container, 'default') as KubeObject & { spec: object })
            .spec,
        },
      },
    }) as KubeObject;

  it.each<[string, object]>([
    ['env', { env: [{ name: 'ERP_TOKEN', value: token }] }],
    ['args', { args: ['sh', '-c', `curl -H "Authorization: ${token}"`] }],
    ['a command', { command: ['post', `--with=${token}`] }],
  ])('in %s is refused, by its place and not by its value', async (_, container) => {
    for (const [resource, object] of [
      [pods, podWith(namespace, {}, container, 'default')],
      [deployments, workloadWith(container)],
    ] as const) {
      const message = await says(owner, resource, object);
      expect(message).toContain('something looks like a credential');
      expect(message).toContain('env' in container ? 'env ERP_TOKEN of container main' : 'in args');
      expect(message).not.toContain(token.slice(4, 10));
    }
  });

  it('is a reference, a name or a long text otherwise', async () => {
    const valueFrom = { secretKeyRef: { name: 'erp', key: 'token' } };
    const fine = {
      env: [
        { name: 'ERP_TOKEN', valueFrom },
        { name: 'TOKEN', value: 'ghp_short' },
      ],
    };
    expect(await says(owner, deployments, workloadWith(fine))).toBe('');
    const long = { args: Array.from({ length: 40 }, () => 'x'.repeat(4_000)) };
    expect(await says(owner, deployments, workloadWith(long))).toBe('');
    // As much as is looked through, twice.
    const most = { args: Array.from({ length: 29 }, () => 'x'.repeat(1_000)) };
    expect(await says(owner, deployments, workloadWith(most), { dryRun: false })).toBe('');
    const patch = {
      spec: {
        template: {
          spec: { containers: [{ name: 'main', ...most, image: 'registry.example/a:2' }] },
        },
      },
    };
    const key = { namespace, name: 'work' };
    expect((await owner.merge(deployments, key, patch)).message).toBe('');
    const worse = { metadata: { annotations: { note: token } } };
    expect((await owner.merge(deployments, key, { spec: { template: worse } })).message).toContain(
      'looks like a credential',
    );
  });

  it('is let pass where who may has said why, and stays where it stood', async () => {
    const container = { env: [{ name: 'ERP_TOKEN', value: token }] };
    const annotations = { 'automationguardrails.dev/allow-secret-in-spec': 'a test' };
    const allowed = { name: 'allowed', annotations };
    expect(await says(owner, deployments, workloadWith(container, allowed))).toContain(
      'takes the verb allow-secret-in-spec',
    );
    const key = { namespace, name: 'allowed' };
    const bare = { ...workloadWith({}, { name: 'allowed' }) };
    expect(await says(owner, deployments, bare, { dryRun: false })).toBe('');
    const sue = admin.as('sue');
    expect((await sue.merge(deployments, key, { metadata: { annotations } })).message).toBe('');
    const image = 'registry.example/automation:1';
    const patch = {
      spec: { template: { spec: { containers: [{ name: 'main', image, ...container }] } } },
    };
    expect((await owner.merge(deployments, key, patch)).message).toBe('');
    const asAnother = { spec: { template: { spec: { serviceAccountName: 'other' } } } };
    expect((await owner.merge(deployments, key, asAnother, dryRun)).message).toContain(
      'takes the verb allow-secret-in-spec',
    );
    expect((await sue.merge(deployments, key, asAnother, dryRun)).message).toBe('');
    // What a kill writes, once nobody allows it any more.
    const off = {
      metadata: { annotations: { 'automationguardrails.dev/allow-secret-in-spec': null } },
    };
    expect((await owner.merge(deployments, key, off)).message).toBe('');
    expect((await owner.merge(deployments, key, { spec: { replicas: 1 } })).message).toBe('');
    await waitFor('its pod, which its controller makes', async () => {
      const { object } = await admin.get(deployments, key);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a Deployment
      return ((object.status ?? {}) as { replicas?: number }).replicas === 1;
    });
  });
});

describe('a generated token', () => {
  const { guardrailPolicies } = resources;
  const tokenOf = (tier: Tier): string => tokenMarks[tier] + 'x'.repeat(25);
  const base64 = (value: string | Uint8Array): string => Buffer.from(value).toString('base64');
  const secretWith = (namespace: string, data: object, metadata: object = {}): KubeObject =>
    ({ metadata: { namespace, name: 'copy', ...metadata }, data }) as KubeObject;
  const says = (api: Api, resource: Resource, object: KubeObject): Promise<string> =>
    api.create(resource, object, dryRun).then(({ message }) => message);
  const environments = { dev: 'dev', test: 'test', prod: 'prod', staging: 'staging' } as const;
  const at = (environment: keyof typeof environments): string => `tokens-of-${environment}`;

  beforeAll(async () => {
    for (const environment of Object.values(environments)) {
      await cluster.namespace(at(environment), { [label.environment]: environment });
    }
  });

  it.each([
    ['dev', 'dev'],
    ['test', 'test'],
    ['prod', 'prod'],
    ['staging', 'test'],
  ] as const)('gets into no namespace of another tier: %s', async (environment, own) => {
    for (const tier of tiers) {
      const data = { token: base64(tokenOf(tier)) };
      const message = await says(owner, secrets, secretWith(at(environment), data));
      if (tier === own) {
        expect(message, tier).toBe('');
      } else {
        expect(message).toContain(`this holds a token of an automation of ${tier}`);
        expect(message).not.toContain('xxx');
      }
    }
  });

  it('is found wherever it stands, and beside what is no text', async () => {
    const binary = base64(new Uint8Array(64).fill(255));
    for (const before of ['', 'T=', 'TOKEN', '{"token":"']) {
      const file = base64(`${before}${tokenOf('prod')}"}\n`);
      expect(await says(owner, secrets, secretWith(at('dev'), { binary, file }))).toContain(
        'this is a namespace of dev',
      );
      const inBinary = { metadata: { namespace: at('dev'), name: 'c' }, binaryData: { file } };
      expect(await says(owner, configMaps, inBinary as KubeObject)).toContain('of prod');
    }
    const settings = { settings: `token: ${tokenOf('prod')}` };
    expect(await says(owner, configMaps, secretWith(at('dev'), settings))).toContain('of prod');
    expect(await says(owner, secrets, secretWith(at('dev'), { binary }))).toBe('');
    // As large as a Secret can be.
    const large = base64(new Uint8Array(1_040_000).fill(120));
    expect(await says(owner, secrets, secretWith(at('dev'), { large }))).toBe('');
    expect(
      await says(owner, secrets, secretWith(at('dev'), { large, z: base64(tokenOf('prod')) })),
    ).toContain('of prod');
  });

  it('is more than the mark that it begins with, of which a ConfigMap may speak', async () => {
    const mark = tokenMarks.prod;
    const rules = `Regex (${mark})[0-9A-Za-z_-]{25} $1***\nif [ "$t${mark}1" = yes ]; then`;
    expect(await says(owner, configMaps, secretWith(at('dev'), { rules }))).toBe('');
    // As large as a ConfigMap can be: what is looked for costs by the length.
    const large = rules.padEnd(1_040_000, ' ');
    expect(await says(owner, configMaps, secretWith(at('dev'), { large }))).toBe('');
    const token = `${large}${tokenOf('prod')}`;
    expect(await says(owner, configMaps, secretWith(at('dev'), { token }))).toContain('of prod');
  });

  it('is written by the operator, and locks nothing where it stands', async () => {
    const data = { token: base64(tokenOf('prod')) };
    const ofOperator = secretWith(at('dev'), data, { name: secretNameOf(name, 'erp') });
    expect(await says(operator, secrets, ofOperator)).toBe('');
    const stood = secretWith(at('dev'), data, { name: 'stood' });
    expect((await admin.create(secrets, stood)).message).toBe('');
    const key = { namespace: at('dev'), name: 'stood' };
    const other = { data: { other: base64('x') }, metadata: { labels: { seen: 'true' } } };
    expect((await owner.merge(secrets, key, other)).message).toBe('');
    const test = { data: { other: base64(tokenOf('test')) } };
    expect((await owner.merge(secrets, key, test)).message).toContain('of test');
  });

  it('belongs to the tier that the GuardrailPolicy says', async () => {
    const namespace = await cluster.namespace('tokens-of-lab', { [label.environment]: 'lab' });
    const policy = { name: 'default' };
    const spec = { environments: [{ name: 'lab', tier: 'dev' }] };
    const created = await admin.create(guardrailPolicies, { metadata: policy, spec } as KubeObject);
    expect(created.message).toBe('');
    try {
      const data = { token: base64(tokenOf('prod')) };
      await waitFor('the policy to be in force', async () =>
        (await says(owner, secrets, secretWith(namespace, data))).includes('counts lab as dev'),
      );
      const own = { token: base64(tokenOf('dev')) };
      expect(await says(owner, secrets, secretWith(namespace, own))).toBe('');
    } finally {
      expect((await admin.delete(guardrailPolicies, policy)).status).toBe(200);
    }
    const data = { token: base64(tokenOf('prod')) };
    await waitFor(
      'the policy to be gone',
      async () =>
        !(await says(owner, secrets, secretWith(namespace, data))).includes('counts lab as dev'),
    );
  });

  it('is not written into a spec, of whatever tier', async () => {
    const env = [{ name: 'T', value: tokenOf('dev') }];
    const message = await says(owner, pods, podWith(at('dev'), {}, { env }, 'default'));
    expect(message).toContain('env T of container main');
  });

  it('or another credential is not copied with the marks by which it is known', async () => {
    const annotations = { [annotation.rotatedAt]: '2026-01-01T00:00:00Z' };
    const data = { password: base64('x') };
    const copy = secretWith(at('test'), data, { annotations });
    expect(await says(owner, secrets, copy)).toContain('this is a copy of a generated credential');
    const key = { namespace: at('test'), name: 'plain' };
    expect((await owner.create(secrets, secretWith(at('test'), data, key))).message).toBe('');
    const marked = await owner.merge(secrets, key, { metadata: { annotations } });
    expect(marked.message).toContain('this is a copy of a generated credential');
    const ofOperator = { annotations, name: secretNameOf(name, 'erp') };
    expect(await says(operator, secrets, secretWith(at('test'), data, ofOperator))).toBe('');
  });
});

describe('a pod of an identity', () => {
  const namespace = 'inside';

  beforeAll(() => markedNamespace(namespace));

  const host = 'a pod of an identity has no hostNetwork, hostPID or hostIPC';
  const privileged = 'a pod of an identity has no privileged container';
  const isPrivileged = { securityContext: { privileged: true } };
  const second = { name: 'second', image: 'registry.example/automation:1', ...isPrivileged };
  const token = (expirationSeconds: number): object => ({
    volumes: [
      {
        name: 'token',
        projected: { sources: [{ serviceAccountToken: { path: 'token', expirationSeconds } }] },
      },
    ],
  });

  it.each<[string, object, object, string]>([
    ['hostNetwork', { hostNetwork: true }, {}, host],
    [
      'a token that it mounts unasked',
      { automountServiceAccountToken: true },
      {},
      'mount a projected volume of the sources serviceAccountToken: {path: token, expirationSeconds: 3600}',
    ],
    ['hostPID', { hostPID: true }, {}, host],
    ['hostIPC', { hostIPC: true }, {}, host],
    [
      'hostPath',
      { volumes: [{ name: 'root', hostPath: { path: '/' } }] },
      {},
      'a pod of an identity has no hostPath volume',
    ],
    ['a privileged container', {}, isPrivileged, privileged],
    ['a privileged init container', { initContainers: [second] }, {}, privileged],
    [
      'a long grace period',
      { terminationGracePeriodSeconds: 301 },
      {},
      'a pod of an identity ends within 300 s, so that stopping it does',
    ],
    ['a long token', token(3601), {}, 'tokens of an identity live at most 3600 s'],
    ['the token of the kubelet', token(3607), {}, 'tokens of an identity live at most 3600 s'],
  ])('has no %s', async (_, spec, container, expected) => {
    const { status, message } = await admin.create(
      pods,
      podWith(namespace, spec, container),
      dryRun,
    );
    expect(status).toBe(403);
    expect(message).toContain(expected);
    expect(message).toContain('this one runs as the AutomationIdentity invoice');
    const other = await admin.create(pods, podWith(namespace, spec, container, 'other'), dryRun);
    expect(other.message).toBe('');
  });

  it('has no privileged ephemeral container', async () => {
    for (const [account, expected] of [
      [name, 403],
      ['other', 200],
    ] as const) {
      expect((await admin.create(pods, pod(namespace, account, account))).message).toBe('');
      expect((await debug(admin, namespace, account, isPrivileged)).status).toBe(expected);
      expect((await debug(admin, namespace, account, {})).message).toBe('');
    }
  });

  it('has everything else', async () => {
    const spec = {
      ...token(3600),
      terminationGracePeriodSeconds: 300,
      securityContext: { runAsNonRoot: true },
      initContainers: [{ ...second, securityContext: { privileged: false } }],
    };
    expect((await admin.create(pods, podWith(namespace, spec), dryRun)).message).toBe('');
  });
});

describe('labels of pods', () => {
  const namespace = 'labels';
  const { identity } = label;

  beforeAll(() => markedNamespace(namespace));

  function labelsOf({ object }: Answer): Record<string, string> {
    return object.metadata.labels ?? {};
  }

  it('say whom a pod runs as, whatever it says itself', async () => {
    for (const account of [name, 'other', 'default']) {
      const base = pod(namespace, account, account);
      base.metadata.labels = { [identity]: 'somebody', app: 'a' };
      expect(labelsOf(await admin.create(pods, base))).toEqual({ [identity]: account, app: 'a' });
    }
  });

  it('are left out where they can’t be written', async () => {
    const account = `long-${'x'.repeat(60)}`;
    await admin.create(serviceAccounts, { metadata: { namespace, name: account } });
    const { object, message } = await admin.create(pods, pod(namespace, 'long', account), dryRun);
    expect(message).toBe('');
    expect(object.metadata.labels).toBeUndefined();
  });

  it.each<[string, CallOptions]>([
    ['', {}],
    [' by a write of its status', { subresource: 'status' }],
  ])('don’t change%s', async (_, options) => {
    const target = { namespace, name };
    for (const labels of [
      { [identity]: 'other' },
      { [identity]: null },
      { 'automationguardrails.dev/workflow': 'x' },
    ]) {
      const { status, message } = await admin.merge(
        pods,
        target,
        { metadata: { labels } },
        options,
      );
      expect(status).toBe(403);
      expect(message).toContain("automationguardrails.dev/ don't change");
    }
    const own = { metadata: { labels: { app: `b${options.subresource ?? ''}` } } };
    expect((await admin.merge(pods, target, own, options)).message).toBe('');
  });
});

describe('what the operator created', () => {
  const namespace = 'children';
  /** The only names of Secrets that the operator may write. */
  const child = secretNameOf(name, 's');
  const metadata = (): KubeObject['metadata'] => ({
    namespace,
    name: child,
    labels: { [label.managedBy]: MANAGED_BY, [label.identity]: name },
  });
  const kinds: [string, Resource, object, object][] = [
    ['ServiceAccount', serviceAccounts, {}, { automountServiceAccountToken: true }],
    [
      'Secret',
      secrets,
      { type: 'Opaque', data: { password: 'eA==' } },
      { data: { password: 'eQ==' } },
    ],
    [
      'Role',
      roles,
      { rules: [] },
      { rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] },
    ],
    [
      'RoleBinding',
      roleBindings,
      { roleRef: { apiGroup: rbacGroup, kind: 'Role', name: child } },
      { subjects: [{ kind: 'ServiceAccount', name: 'default', namespace }] },
    ],
    [
      'NetworkPolicy',
      networkPolicies,
      { spec: { podSelector: {}, policyTypes: ['Egress'] } },
      { spec: { egress: [{}] } },
    ],
  ];

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    for (const [, resource, body] of kinds) {
      const object = { metadata: metadata(), ...body } as KubeObject;
      expect((await operator.create(resource, object)).message).toBe('');
    }
  });

  const target = { namespace, name: child };
  const kept =
    'the operator made this and keeps it as it is; change what it is made from instead: kubectl edit aid invoice -n children';

  it.each(kinds)('is not created by others: %s', async (_, resource, body) => {
    const object = { metadata: { ...metadata(), name: 'forged' }, ...body } as KubeObject;
    const { status, message } = await owner.create(resource, object);
    expect(status).toBe(403);
    expect(message).toContain(
      'the label app.kubernetes.io/managed-by: automation-guardrails is for what the operator creates: leave it out',
    );
    const own = { metadata: { namespace, name: 'own' }, ...body } as KubeObject;
    expect((await owner.create(resource, own)).message).toBe('');
    const claimed = await owner.merge(
      resource,
      { namespace, name: 'own' },
      { metadata: { labels: { [label.managedBy]: MANAGED_BY } } },
    );
    expect(claimed.message).toContain('is for what the operator creates');
    expect((await owner.delete(resource, { namespace, name: 'own' })).status).toBe(200);
  });

  it.each(kinds)('is not changed by others: %s', async (_, resource, __, change) => {
    const labels = { labels: { [label.managedBy]: null } };
    for (const patch of [
      change,
      { metadata: labels },
      { metadata: labels, ...change },
      { metadata: { labels: { a: 'b' } } },
      { metadata: { ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'x', uid: 'x' }] } },
      { metadata: { finalizers: ['example.com/stay'] } },
      { metadata: { annotations: { 'automationguardrails.dev/rotation': '7' } } },
    ]) {
      const { status, message } = await owner.merge(resource, target, patch);
      expect(status, JSON.stringify(patch)).toBe(403);
      expect(message).toContain(kept);
    }
  });

  it.each(kinds)('is written back as it is by anybody: %s', async (_, resource) => {
    const { object } = await admin.get(resource, target);
    const again = await owner.replace(resource, object);
    expect(again.message).toBe('');
    expect(again.object.metadata.resourceVersion).toBe(object.metadata.resourceVersion);
    expect((await owner.merge(resource, target, {})).message).toBe('');
  });

  it.each(kinds)(
    'is changed and migrated by the operator and the cluster: %s',
    async (_, resource) => {
      const users = [
        operator,
        admin.as('system:serviceaccount:kube-system:generic-garbage-collector'),
        admin.as('system:serviceaccount:kube-system:storage-version-migrator-controller'),
        admin.as('system:kube-controller-manager'),
      ];
      await cluster.controlPlane.apply([
        {
          apiVersion: `${rbacGroup}/v1`,
          kind: 'ClusterRoleBinding',
          metadata: { name: 'always-on-writers' },
          roleRef: { apiGroup: rbacGroup, kind: 'ClusterRole', name: 'admin' },
          subjects: [
            { kind: 'ServiceAccount', namespace: 'kube-system', name: 'generic-garbage-collector' },
            {
              kind: 'ServiceAccount',
              namespace: 'kube-system',
              name: 'storage-version-migrator-controller',
            },
            { apiGroup: rbacGroup, kind: 'User', name: 'system:kube-controller-manager' },
          ],
        },
      ]);
      for (const [index, api] of users.entries()) {
        await waitFor('the writer to be allowed', async () => {
          const patch = { metadata: { labels: { writer: String(index) } } };
          return (await api.merge(resource, target, patch)).status === 200;
        });
      }
    },
  );

  it('takes annotations and imagePullSecrets of others on a ServiceAccount', async () => {
    const cloud = { metadata: { annotations: { 'eks.amazonaws.com/role-arn': 'arn:x' } } };
    const pull = { imagePullSecrets: [{ name: 'registry' }] };
    for (const patch of [
      cloud,
      pull,
      { metadata: { annotations: { 'eks.amazonaws.com/role-arn': null } } },
    ]) {
      expect((await owner.merge(serviceAccounts, target, patch)).message).toBe('');
    }
    const both = { ...cloud, automountServiceAccountToken: true };
    expect((await owner.merge(serviceAccounts, target, both)).message).toContain(kept);
    for (const resource of [secrets, roles, roleBindings, networkPolicies]) {
      expect((await owner.merge(resource, target, cloud)).message).toContain(kept);
    }
  });

  it.each(kinds)('is not deleted by others: %s', async (_, resource) => {
    const { status, message } = await owner.delete(resource, target);
    expect(status).toBe(403);
    expect(message).toContain(kept);
    const { code } = await cluster.controlPlane.kubectl([
      'delete',
      resource.plural,
      '--all',
      `-n=${namespace}`,
      '--as=owner',
      '--wait=false',
    ]);
    expect(code).not.toBe(0);
    expect((await admin.get(resource, target)).status).toBe(200);
    expect((await operator.delete(resource, target)).status).toBe(200);
  });
});

describe('a NetworkPolicy that lets the pods of an identity out', () => {
  it('is refused in every environment but those of development and test', async () => {
    const [lab, abroad] = await Promise.all([
      cluster.guardedNamespace('out-of-test'),
      cluster.namespace('out-of-prod-eu', { [label.environment]: 'prod-eu' }),
    ]);
    const letOut = (namespace: string): Promise<Answer> =>
      owner.create(
        networkPolicies,
        {
          metadata: { namespace, name: 'out' },
          spec: { podSelector: {}, policyTypes: ['Egress'], egress: [{}] },
        } as KubeObject,
        dryRun,
      );
    for (const namespace of [lab, abroad]) {
      const identity = { metadata: { namespace, name }, spec: { purpose: 'posts invoices' } };
      expect((await admin.create(automationIdentities, identity)).message).toBe('');
    }
    await waitFor('the identities to be known', async () =>
      (await letOut(abroad)).message.includes('takes the verb widen'),
    );
    expect((await letOut(lab)).message).toBe('');
  });

  it('is refused where the GuardrailPolicy counts a lenient environment as prod', async () => {
    const { guardrailPolicies } = resources;
    const [mapped, unmapped, spared] = await Promise.all(
      ['staging', 'qa', 'test'].map((environment) =>
        cluster.namespace(`out-of-mapped-${environment}`, { [label.environment]: environment }),
      ),
    );
    for (const namespace of [mapped, unmapped, spared]) {
      expect((await operator.create(roleBindings, markBinding(namespace ?? ''))).message).toBe('');
    }
    const letOut = async (namespace = '', podSelector: object = {}): Promise<string> => {
      const spec = { podSelector, policyTypes: ['Egress'], egress: [{}] };
      const object = { metadata: { namespace, name: 'out' }, spec } as KubeObject;
      return (await owner.create(networkPolicies, object, dryRun)).message;
    };
    expect(await letOut(mapped)).toBe('');
    const policy = { name: 'default' };
    const spec = { environments: [{ name: 'staging', tier: 'prod' }] };
    const created = await admin.create(guardrailPolicies, { metadata: policy, spec } as KubeObject);
    expect(created.message).toBe('');
    try {
      await waitFor('the policy to be in force', async () =>
        (await letOut(mapped)).includes('counts staging as prod'),
      );
      const runsAs = (account: string): object => ({ matchLabels: { [label.identity]: account } });
      await waitFor('the mark to be known', async () =>
        (await letOut(mapped, runsAs(name))).includes('takes the verb widen'),
      );
      expect(await letOut(mapped, runsAs('web'))).toBe('');
      // A policy of one's own maps it, or nothing does.
      expect(await letOut(unmapped)).toContain('takes the verb widen');
      expect(await letOut(spared)).toBe('');
    } finally {
      expect((await admin.delete(guardrailPolicies, policy)).status).toBe(200);
    }
    await waitFor('the policy to be gone', async () => (await letOut(mapped)) === '');
  });
});

describe('what goes beyond a ceiling of the GuardrailPolicy', () => {
  const { guardrailPolicies, workflows } = resources;
  const namespace = 'ceilings';
  const policy = { name: 'default' };
  const change = { version: '1', reason: 'r', requestedBy: 'ann', ticket: 'T-1' };
  const complete = { description: 'posts', change, limits: { timeout: '1h' } };
  const entry = (cidr: string): object => ({ egress: [{ cidr, reason: 'ERP' }] });
  const password = { name: 'erp', type: 'Password' };
  const token = { name: 'vault', audience: 'vault' };
  const keeps = { accessReview: { every: '720h' } };

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    const ceilings = {
      tokenLifetime: '30m',
      rotationInterval: '24h',
      reviewInterval: '720h',
      egressPrefixIPv4: 24,
      egressPrefixIPv6: 64,
    };
    const required = ['Description', 'Version', 'ChangeReason', 'RequestedBy', 'Ticket', 'Timeout'];
    const spec = { tiers: [{ name: 'test', ceilings, required }] };
    const created = await admin.create(guardrailPolicies, { metadata: policy, spec } as KubeObject);
    expect(created.message).toBe('');
    await waitFor('the policy to be in force', async () =>
      (await says(workflows, {})).includes('beyond the ceiling required'),
    );
  });

  afterAll(async () => {
    expect((await admin.delete(guardrailPolicies, policy)).status).toBe(200);
    await waitFor('the policy to be gone', async () => (await says(workflows, {})) === '');
  });

  const says = async (resource: Resource, asked: object): Promise<string> => {
    const targets = [{ group: 'apps', kind: 'Deployment', name }];
    const spec = resource === workflows ? { targets, ...asked } : { purpose: 'posts', ...asked };
    const object = { metadata: { namespace, name }, spec } as KubeObject;
    return (await admin.create(resource, object, dryRun)).message;
  };

  it.each<[string, Resource, object]>([
    ['egressPrefixIPv4', workflows, { ...complete, ...entry('10.0.0.0/23') }],
    ['egressPrefixIPv6', workflows, { ...complete, ...entry('2001:db8::/63') }],
    ['tokenLifetime', automationIdentities, { ...keeps, tokens: [token] }],
    [
      'tokenLifetime',
      automationIdentities,
      { ...keeps, tokens: [{ ...token, expirationSeconds: 1801 }] },
    ],
    ['rotationInterval', automationIdentities, { ...keeps, secrets: [password] }],
    [
      'rotationInterval',
      automationIdentities,
      { ...keeps, secrets: [{ ...password, rotation: { every: '25h' } }] },
    ],
    [
      'rotationInterval',
      automationIdentities,
      { ...keeps, secrets: [{ ...password, rotation: { schedule: '0 3 * * *' } }] },
    ],
    ['reviewInterval', automationIdentities, {}],
    ['reviewInterval', automationIdentities, { accessReview: { every: '721h' } }],
  ])('is refused by its name: %s', async (ceiling, resource, spec) => {
    expect(await says(resource, spec)).toContain(
      `beyond the ceiling ${ceiling} of the GuardrailPolicy default in test: `,
    );
  });

  it.each<[string, object]>([
    ['spec.description', { ...complete, description: ' ' }],
    ['spec.change.version', { ...complete, change: { ...change, version: undefined } }],
    ['spec.change.reason', { ...complete, change: { ...change, reason: undefined } }],
    ['spec.change.requestedBy', { ...complete, change: { ...change, requestedBy: undefined } }],
    ['spec.change.ticket', { ...complete, change: { ...change, ticket: undefined } }],
    ['spec.limits.timeout', { ...complete, limits: {} }],
  ])('is refused for want of %s', async (field, spec) => {
    expect(await says(workflows, spec)).toContain(
      `beyond the ceiling required of the GuardrailPolicy default in test: missing ${field}`,
    );
  });

  it('is nothing that keeps to all of them', async () => {
    const tokens = [{ ...token, expirationSeconds: 1800 }];
    const rotated = [{ ...password, rotation: { every: '24h' } }];
    expect(await says(automationIdentities, { ...keeps, tokens, secrets: rotated })).toBe('');
    for (const cidr of ['10.0.0.0/24', '2001:db8::/64']) {
      expect(await says(workflows, { ...complete, ...entry(cidr) })).toBe('');
    }
  });
});

describe('the cluster’s own controllers', () => {
  const kinds: [Resource, object][] = [
    [serviceAccounts, { automountServiceAccountToken: false }],
    [secrets, { type: 'Opaque' }],
    [roles, { rules: [] }],
    [networkPolicies, { spec: { podSelector: {}, policyTypes: ['Egress'] } }],
  ];
  const nameOf = (resource: Resource): string =>
    resource === secrets ? secretNameOf(name, 's') : name;

  async function automation(namespace: string): Promise<void> {
    await cluster.guardedNamespace(namespace);
    await admin.delete(serviceAccounts, { namespace, name });
    const identity = await admin.create(automationIdentities, {
      metadata: { namespace, name },
      spec: { purpose: 'posts invoices' },
    } as KubeObject);
    expect(identity.message).toBe('');
    const of = { metadata: identity.object.metadata, spec: {} };
    const metadata = childMetadata(of, name);
    for (const [resource, body] of kinds) {
      const child = { metadata: childMetadata(of, nameOf(resource)), ...body };
      expect((await operator.create(resource, child)).message).toBe('');
    }
    const binding = markBinding(namespace, metadata.ownerReferences);
    expect((await operator.create(roleBindings, binding)).message).toBe('');
  }

  async function gone(namespace: string): Promise<void> {
    await waitFor('all of it to be gone', async () => {
      const found = await Promise.all([
        ...kinds.map(([resource]) => admin.get(resource, { namespace, name: nameOf(resource) })),
        admin.get(roleBindings, { namespace, name: markNameOf(name) }),
      ]);
      return found.every(({ status }) => status === 404);
    });
  }

  it.each(['Background', 'Foreground'])(
    'collect what an identity leaves behind: %s',
    async (policy) => {
      const namespace = `collected-${policy.toLowerCase()}`;
      await automation(namespace);
      const { code, stderr } = await cluster.controlPlane.kubectl([
        'delete',
        'aid',
        name,
        `-n=${namespace}`,
        `--cascade=${policy.toLowerCase()}`,
      ]);
      expect(code, stderr).toBe(0);
      await gone(namespace);
    },
  );

  it('are not asked to leave behind what no kill switch would find any more', async () => {
    const namespace = 'orphaned';
    await automation(namespace);
    const { stderr } = await cluster.controlPlane.kubectl([
      'delete',
      'aid',
      name,
      `-n=${namespace}`,
      '--cascade=orphan',
    ]);
    expect(stderr).toContain('it is not deleted without what the operator made for it');
    const url = path(automationIdentities, { namespace, name });
    const old = await admin.send({ method: 'DELETE', url, body: { orphanDependents: true } });
    expect(old.message).toContain('it is not deleted without');
    const byFinalizer = await admin.merge(
      automationIdentities,
      { namespace, name },
      { metadata: { finalizers: ['orphan'] } },
    );
    expect(byFinalizer.message).toContain('it is not deleted without');
    const held = await admin.merge(
      automationIdentities,
      { namespace, name },
      { metadata: { finalizers: ['example.com/hold'] } },
    );
    expect(held.message).toContain('leave finalizers out');
    expect((await admin.delete(automationIdentities, { namespace, name })).status).toBe(200);
    await gone(namespace);
  });

  it('delete a namespace with an automation in it', async () => {
    const namespace = 'deleted';
    await automation(namespace);
    await waitFor('the mark to be known', async () => {
      const { status } = await admin.create(pods, podWith(namespace, { hostPID: true }), dryRun);
      return status === 403;
    });
    expect((await admin.create(pods, pod(namespace, 'running'))).message).toBe('');
    expect((await admin.delete(namespaces, { name: namespace })).status).toBe(200);
    await waitFor(
      'the namespace to be gone',
      async () => (await admin.get(namespaces, { name: namespace })).status === 404,
      { timeoutMs: 120_000 },
    );
  });
});

describe('in a namespace that isn’t guarded', () => {
  it('none of this holds', async () => {
    const namespace = await cluster.namespace('unguarded');
    const answers = [
      await admin.create(pods, podWith(namespace, { hostNetwork: true }), dryRun),
      await owner.create(secrets, { metadata: { namespace, name: 'aid.x.y' } }),
      await owner.create(serviceAccounts, {
        metadata: { namespace, name: 'x', labels: { [label.managedBy]: MANAGED_BY } },
      }),
    ];
    expect(answers.map(({ message }) => message)).toEqual(['', '', '']);
    expect(answers[0]?.object.metadata.labels).toBeUndefined();
  });
});
