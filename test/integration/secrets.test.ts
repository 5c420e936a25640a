import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AutomationIdentity, SecretStatus } from '../../src/api/automation-identity.ts';
import { annotation, label, secretNameOf } from '../../src/api/names.ts';
import type { ConfigMap, KubeObject, Secret } from '../../src/api/objects.ts';
import { projectWorkload } from '../../src/api/workload.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import type { FakeVault } from '../fault/fake-vault.ts';
import {
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
} from '../operator/cluster.ts';
import { startClusterVault, type ClusterVault } from '../operator/cluster-vault.ts';
import {
  startOperator,
  type OperatorOptions,
  type OperatorProcess,
} from '../operator/operator-process.ts';

const namespace = 'secrets';
const owner = { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' };

let controlPlane: ControlPlane;
let settings: OperatorOptions;
let operator: OperatorProcess;

/** Each test has identities of its own; the operator is the one that users run. */
beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  clusterVault = await startClusterVault(controlPlane, [namespace]);
  const { args } = clusterVault;
  ({ vault } = clusterVault);
  vault.onSecret = (text) => inVault.add(text);
  settings = { kubeconfigPath, args: ['--leader-elect=false', ...args] };
  operator = await startOperator(settings);
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
    },
  ]);
});

/** Values that the vault was given, and tokens that it issued. */
const inVault = new Set<string>();
let clusterVault: ClusterVault | undefined;
let vault: FakeVault;

afterAll(async () => {
  await operator?.stop();
  await clusterVault?.stop();
  await controlPlane?.stop();
});

function identity(name: string, secrets: object[], spec: object = {}): object {
  return {
    apiVersion: 'automationguardrails.dev/v1alpha1',
    kind: 'AutomationIdentity',
    metadata: { name, namespace },
    spec: { purpose: 'posts invoices', owner, secrets, ...spec },
  };
}

/** Reads the secret `s` of its identity when it starts. */
function podSpec(name: string): object {
  const env = [
    { name: 'P', valueFrom: { secretKeyRef: { name: secretNameOf(name, 's'), key: 'password' } } },
  ];
  return {
    serviceAccountName: name,
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image: 'registry.example/automation:1', env }],
  };
}

function deployment(name: string, of: string, spec: object = {}): object {
  const labels = { app: name };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace },
    spec: {
      replicas: 1,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: podSpec(of) },
      ...spec,
    },
  };
}

async function identityWhere(
  name: string,
  what: string,
  test: (identity: AutomationIdentity) => unknown,
): Promise<AutomationIdentity> {
  return waitFor(what, async () => {
    const found = await getObject<AutomationIdentity>(controlPlane, 'aid', name, namespace);
    return found !== undefined && test(found) ? found : undefined;
  });
}

function reasonOf(found: AutomationIdentity, type: string): string | undefined {
  return found.status?.conditions?.find((condition) => condition.type === type)?.reason;
}

const provisioned = (name: string): Promise<AutomationIdentity> =>
  identityWhere(
    name,
    `${name} to be ready`,
    (found) =>
      reasonOf(found, 'Ready') === 'Provisioned' &&
      found.status?.observedGeneration === found.metadata.generation,
  );

const secretOf = (name: string, secret = 's'): Promise<Secret | undefined> =>
  getObject<Secret>(controlPlane, 'secret', secretNameOf(name, secret), namespace);

async function statusWhere(
  name: string,
  what: string,
  test: (status: SecretStatus) => unknown,
): Promise<void> {
  await identityWhere(name, what, ({ status }) => status?.secrets?.some(test));
}

const annotate = (name: string, key: string, value: string): Promise<string> =>
  kubectlOk(controlPlane, [
    'annotate',
    '--overwrite',
    'aid',
    name,
    `-n=${namespace}`,
    `${key}=${value}`,
  ]);

const plain = (encoded = ''): string => Buffer.from(encoded, 'base64').toString();

describe('types of secrets', () => {
  const name = 'types';

  it('have their keys, and values as the spec asks for', async () => {
    await controlPlane.apply([
      identity(name, [
        {
          name: 'mainframe',
          type: 'Password',
          length: 16,
          characters: { uppercase: 2, digits: 12, symbols: 2, symbolSet: '#$' },
        },
        { name: 'api', type: 'Token', length: 40 },
        { name: 'registry', type: 'BasicAuth', username: 'svc' },
        { name: 'git', type: 'SSHKeyPair' },
      ]),
    ]);
    await provisioned(name);
    const [mainframe, api, registry, git] = await Promise.all(
      ['mainframe', 'api', 'registry', 'git'].map((secret) => secretOf(name, secret)),
    );
    for (const secret of [mainframe, api, registry, git]) expect(secret?.type).toBe('Opaque');
    const password = plain(mainframe?.data?.['password']);
    expect(password).toMatch(/^[A-Z0-9#$]{16}$/);
    expect(password.match(/\d/g)?.length).toBe(12);
    expect(plain(api?.data?.['token'])).toMatch(/^agprod_[\w-]{33}$/);
    expect(plain(registry?.data?.['username'])).toBe('svc');
    expect(Object.keys(registry?.data ?? {}).toSorted()).toEqual(['password', 'username']);
    expect(plain(git?.data?.['ssh-publickey'])).toMatch(/^ssh-ed25519 \S+ aid\.types\.git\n$/);
    expect(plain(git?.data?.['ssh-privatekey'])).toContain('BEGIN OPENSSH PRIVATE KEY');
  });

  it('keep the whole value before, of every type, for the overlap', async () => {
    const rotation = { every: '24h', overlap: '1h' };
    await controlPlane.apply([
      identity('overlap', [
        { name: 'registry', type: 'BasicAuth', username: 'svc', rotation },
        { name: 'git', type: 'SSHKeyPair', rotation },
      ]),
    ]);
    await provisioned('overlap');
    const before = await Promise.all(['registry', 'git'].map((one) => secretOf('overlap', one)));
    await annotate('overlap', annotation.rotate, 'x');
    await identityWhere('overlap', 'the rotation', (f) => f.status?.lastHandledRotation === 'x');
    const after = await Promise.all(['registry', 'git'].map((one) => secretOf('overlap', one)));
    for (const [index, secret] of after.entries()) {
      for (const [key, value] of Object.entries(before[index]?.data ?? {})) {
        expect(secret?.data?.[`previous.${key}`]).toBe(value);
      }
    }
  });
});

describe('an emergency and another owner', () => {
  const name = 'leaked';
  const secret = { name: 's', type: 'Password', rotation: { every: '24h', overlap: '1h' } };

  it('the emergency leaves nothing but a new value, within an overlap too', async () => {
    await controlPlane.apply([identity(name, [secret])]);
    await provisioned(name);
    const first = await secretOf(name);
    await annotate(name, annotation.rotate, 'routine');
    await identityWhere(name, 'a rotation', (f) => f.status?.lastHandledRotation === 'routine');
    const second = await secretOf(name);
    expect(second?.data?.['previous.password']).toBe(first?.data?.['password']);
    await annotate(name, annotation.rotateEmergency, 'INC-4711');
    await identityWhere(
      name,
      'the emergency rotation',
      (f) => f.status?.lastHandledEmergencyRotation === 'INC-4711',
    );
    const third = await secretOf(name);
    expect(Object.keys(third?.data ?? {})).toEqual(['password']);
    expect(third?.data?.['password']).not.toBe(second?.data?.['password']);
    await statusWhere(name, 'the state', ({ state }) => state === 'Retired');
  });

  it('another owner rotates once, with the overlap', async () => {
    const before = await secretOf(name);
    const hr = { ...owner, team: 'hr' };
    await controlPlane.apply([identity(name, [secret], { owner: hr })]);
    const after = await waitFor('the rotation', async () => {
      const now = await secretOf(name);
      return now?.data?.['password'] !== before?.data?.['password'] ? now : undefined;
    });
    expect(after?.data?.['previous.password']).toBe(before?.data?.['password']);
    await provisioned(name);
    await controlPlane.apply([identity(name, [secret], { owner: hr, purpose: 'posts bills' })]);
    await provisioned(name);
    expect((await secretOf(name))?.metadata.resourceVersion).toBe(after?.metadata.resourceVersion);
  });
});

describe('a schedule', () => {
  it('that never comes is said, and causes no write', async () => {
    const never = { schedule: '0 0 31 2 *', timeZone: 'Europe/Berlin' };
    await controlPlane.apply([identity('never', [{ name: 's', type: 'Token', rotation: never }])]);
    const found = await identityWhere(
      'never',
      'the condition',
      (f) => reasonOf(f, 'Ready') === 'RotationNeverDue',
    );
    expect(found.status?.secrets?.[0]).not.toHaveProperty('nextRotationTime');
    const before = await secretOf('never');
    // Whatever was to come of it has come when another identity is done.
    await controlPlane.apply([identity('after', [{ name: 's', type: 'Token' }])]);
    await provisioned('after');
    expect((await secretOf('never'))?.metadata).toEqual(before?.metadata);
  });

  it('in a time zone comes at that place’s hour', async () => {
    const rotation = { schedule: '0 3 * * *', timeZone: 'Asia/Kolkata' };
    await controlPlane.apply([identity('zoned', [{ name: 's', type: 'Token', rotation }])]);
    const { status } = await provisioned('zoned');
    const next = new Date(status?.secrets?.[0]?.nextRotationTime ?? 0);
    // 03:00 in India, and up to half an hour of spread.
    expect(next.toISOString()).toMatch(/T(21:3\d|21:[45]\d|22:00):/);
  });
});

describe('consumers', () => {
  async function restarted(name: string): Promise<string | undefined> {
    const found = await getObject<KubeObject>(controlPlane, 'deployment', name, namespace);
    return found && projectWorkload('Deployment', found).restartedAt;
  }

  it('restart as many at a time as asked, the next when those are available', async () => {
    const name = 'bounded';
    const rotation = {
      every: '24h',
      overlap: '1h',
      restartConsumers: true,
      maxConcurrentRestarts: 1,
    };
    await controlPlane.apply([identity(name, [{ name: 's', type: 'Password', rotation }])]);
    await provisioned(name);
    // Its pods count as available after an hour only, so it holds the others up.
    const slow = { minReadySeconds: 3600, progressDeadlineSeconds: 7200 };
    await controlPlane.apply([
      deployment('b-slow', name, slow),
      deployment('c-slow', name, slow),
      deployment('d-idle', name, { replicas: 0 }),
      deployment('a-quick', name),
    ]);
    await waitFor('a-quick to be available', async () => {
      const found = await getObject<KubeObject>(controlPlane, 'deployment', 'a-quick', namespace);
      return found !== undefined && projectWorkload('Deployment', found).isRolledOut;
    });
    await annotate(name, annotation.rotate, 'x');
    await waitFor('the first', () => restarted('a-quick'));
    await waitFor('the second', () => restarted('b-slow'));
    await statusWhere(name, 'the state', ({ state }) => state === 'Published');
    expect(await restarted('c-slow')).toBeUndefined();

    await controlPlane.apply([deployment('b-slow', name, { ...slow, minReadySeconds: 0 })]);
    await waitFor('the third', () => restarted('c-slow'));
    await statusWhere(name, 'the restarts to be recorded', ({ state }) => state === 'Converging');
    expect(await restarted('d-idle')).toBeUndefined();
    const stamps = await Promise.all(['a-quick', 'b-slow', 'c-slow'].map(restarted));
    expect(new Set(stamps)).toEqual(
      new Set([(await secretOf(name))?.metadata.annotations?.[annotation.rotatedAt]]),
    );
  });

  it('keep the value before readable until the last pod that read it is gone', async () => {
    const name = 'converging';
    const rotation = { every: '24h', overlap: '1s' };
    await controlPlane.apply([identity(name, [{ name: 's', type: 'Password', rotation }])]);
    await provisioned(name);
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'long-run', namespace },
        spec: { ...podSpec(name), restartPolicy: 'Never' },
      },
    ]);
    await waitFor('the pod to run', async () => {
      const pod = await getObject<{ status?: { phase?: string } }>(
        controlPlane,
        'pod',
        'long-run',
        namespace,
      );
      return pod?.status?.phase === 'Running';
    });
    const first = await secretOf(name);
    await annotate(name, annotation.rotate, 'x');
    const { status } = await identityWhere(
      name,
      'the rotation',
      (f) => f.status?.lastHandledRotation === 'x',
    );
    const overlapEnds = Date.parse(status?.secrets?.[0]?.previousExpirationTime ?? '');
    await waitFor('the overlap to be over', () => Date.now() > overlapEnds + 1000);
    // The operator looks at it again with every change.
    const lookAgain = (purpose: string): Promise<void> =>
      controlPlane.apply([
        identity(name, [{ name: 's', type: 'Password', rotation }], { purpose }),
      ]);
    await lookAgain('posts bills');
    await provisioned(name);
    expect((await secretOf(name))?.data?.['previous.password']).toBe(first?.data?.['password']);
    await statusWhere(name, 'the state', ({ state }) => state === 'Converging');

    await kubectlOk(controlPlane, ['delete', 'pod', 'long-run', `-n=${namespace}`]);
    await lookAgain('posts orders');
    await statusWhere(name, 'the withdrawal', ({ state }) => state === 'Retired');
    expect(Object.keys((await secretOf(name))?.data ?? {})).toEqual(['password']);
  });
});

describe('a rotation with a hook', () => {
  const name = 'hooked';
  const hook = { set: 'hook-set', test: 'hook-test', maxRetries: 0 };
  const secret = { name: 's', type: 'Password', rotation: { every: '24h', overlap: '1h', hook } };

  /** Its pods end by themselves with this exit code; or never. */
  function cronJob(hookName: string, exitCode: string | undefined): object {
    const completes = 'test.automationguardrails.dev/completes';
    const annotations =
      exitCode === undefined
        ? {}
        : { [completes]: 'true', 'test.automationguardrails.dev/exit-code': exitCode };
    const container = {
      name: 'main',
      image: 'registry.example/hook:1',
      volumeMounts: [{ name: 'values', mountPath: '/values', readOnly: true }],
    };
    const template = {
      metadata: { annotations },
      spec: {
        serviceAccountName: name,
        restartPolicy: 'Never',
        terminationGracePeriodSeconds: 0,
        containers: [container],
        volumes: [{ name: 'values', secret: { secretName: secretNameOf(name, 's') } }],
      },
    };
    return {
      apiVersion: 'batch/v1',
      kind: 'CronJob',
      metadata: { name: hookName, namespace },
      spec: { schedule: '0 0 1 1 *', suspend: true, jobTemplate: { spec: { template } } },
    };
  }

  const ofHook = async (kind: 'jobs' | 'pods'): Promise<KubeObject[]> =>
    (await listObjects<KubeObject>(controlPlane, kind, namespace)).filter(({ metadata }) =>
      metadata.name.startsWith(`${name}-s-`),
    );

  it('publishes a value when Jobs of the identity have told and tested it', async () => {
    await controlPlane.apply([
      cronJob('hook-set', '0'),
      cronJob('hook-test', '0'),
      identity(name, [secret]),
    ]);
    await provisioned(name);
    const first = await secretOf(name);
    expect(Object.keys(first?.data ?? {})).toEqual(['password']);
    for (const { metadata } of await ofHook('pods')) {
      expect(metadata.labels?.[label.identity]).toBe(name);
    }
    const jobs = await ofHook('jobs');
    expect(jobs.map(({ metadata }) => metadata.annotations?.[annotation.rotationHook])).toEqual(
      expect.arrayContaining(['Set', 'Test']),
    );
    for (const { metadata } of jobs) {
      expect(metadata.ownerReferences).toMatchObject([{ kind: 'AutomationIdentity', name }]);
    }

    await annotate(name, annotation.rotate, 'x');
    await identityWhere(name, 'the rotation', (f) => f.status?.lastHandledRotation === 'x');
    const second = await secretOf(name);
    expect(Object.keys(second?.data ?? {}).toSorted()).toEqual(['password', 'previous.password']);
    expect(second?.data?.['previous.password']).toBe(first?.data?.['password']);
    expect(await ofHook('jobs')).toHaveLength(4);
  });

  it('keeps the value before when a step fails, and goes on with the new one when asked', async () => {
    const before = await secretOf(name);
    await controlPlane.apply([cronJob('hook-test', '1')]);
    await annotate(name, annotation.rotate, 'y');
    const failed = await identityWhere(
      name,
      'the failure',
      (f) => reasonOf(f, 'Ready') === 'RotationHookFailed',
    );
    expect(failed.status?.lastHandledRotation).toBe('x');
    const waiting = await secretOf(name);
    expect(waiting?.data?.['password']).toBe(before?.data?.['password']);
    const next = waiting?.data?.['next.password'];
    expect(next).toBeDefined();

    await controlPlane.apply([cronJob('hook-test', '0')]);
    await annotate(name, annotation.rotate, 'z');
    await identityWhere(name, 'the rotation', (f) => f.status?.lastHandledRotation === 'z');
    await provisioned(name);
    expect((await secretOf(name))?.data?.['password']).toBe(next);
  });

  it('leaves nothing when the identity goes amid a step', async () => {
    await controlPlane.apply([cronJob('hook-set', undefined)]);
    await annotate(name, annotation.rotate, 'late');
    await statusWhere(name, 'a value that waits', ({ state }) => state === 'Minted');
    await waitFor('a pod of the hook to run', async () =>
      (
        await listObjects<KubeObject & { status?: { phase?: string } }>(
          controlPlane,
          'pods',
          namespace,
        )
      ).some(({ metadata, status }) => {
        return metadata.name.startsWith(`${name}-s-set-`) && status?.phase === 'Running';
      }),
    );
    await kubectlOk(controlPlane, ['delete', 'aid', name, `-n=${namespace}`]);
    await waitFor('everything of it to be gone', async () => {
      const left = [
        ...(await ofHook('jobs')),
        ...(await ofHook('pods')),
        await secretOf(name),
        await getObject(controlPlane, 'serviceaccount', name, namespace),
      ].filter((one) => one !== undefined);
      return left.length === 0;
    });
  });
});

describe('a vault', () => {
  const name = 'copied';
  const readable = (): unknown[] =>
    [...vault.readable('secret', `automation-guardrails/${namespace}/${name}/s`).values()].map(
      ({ password }) => password,
    );

  it('has what the Secret has, through a rotation, a kill and a release, and nothing after the end', async () => {
    const entry = {
      name: 's',
      type: 'Password',
      store: 'Vault',
      rotation: { every: '720h', overlap: '1s' },
    };
    await controlPlane.apply([identity(name, [entry])]);
    await provisioned(name);
    const first = plain((await secretOf(name))?.data?.['password']);
    expect(readable()).toEqual([first]);

    await annotate(name, annotation.rotate, '1');
    await statusWhere(name, 'the end of the overlap', ({ state }) => state === 'Retired');
    const second = plain((await secretOf(name))?.data?.['password']);
    await waitFor('the version before to be destroyed', () => readable().length === 1);
    expect(readable()).toEqual([second]);
    expect(second).not.toBe(first);

    // The fence refuses its tokens, and its ServiceAccount goes: the operator destroys as itself.
    const killSwitch = { kind: 'KillSwitch', metadata: { name, namespace } };
    await controlPlane.apply([
      {
        apiVersion: 'automationguardrails.dev/v1alpha1',
        ...killSwitch,
        spec: { workflow: name, reason: 'runaway' },
      },
    ]);
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'SecretsWithdrawn');
    await waitFor('the copy to be destroyed', () => readable().length === 0);
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'Effective');
    await kubectlOk(
      controlPlane,
      ['annotate', 'ksw', name, `-n=${namespace}`, `${annotation.release}=fixed`],
      { as: 'bob', asGroups: ['system:masters'] },
    );
    await waitFor('a new value in the vault', () => readable().length === 1);
    await provisioned(name);
    const third = plain((await secretOf(name))?.data?.['password']);
    expect(readable()).toEqual([third]);
    expect([first, second]).not.toContain(third);

    // Of a vault that is away, and an operator that is killed, what is written down is left.
    expect(await recorded()).toEqual([expect.stringContaining(`/${namespace}/${name}/s"`)]);
    vault.isSealed = true;
    await kubectlOk(controlPlane, ['delete', 'aid', name, `-n=${namespace}`]);
    await waitFor('it to be told', async () => {
      const events = await listObjects<{ reason?: string }>(controlPlane, 'events', namespace);
      return events.some(({ reason }) => reason === 'CopiesRemain');
    });
    expect(await metricsOf(operator)).toContain('secret_store_copies_remaining 1');
    const said = operator.logs;
    operator.kill();
    await operator.exited;
    vault.isSealed = false;
    expect(vault.keys('secret')).toHaveLength(1);
    operator = await startOperator(settings);
    // Once a minute it is tried again.
    const patience = { timeoutMs: 150_000 };
    await waitFor('the end of the copy', () => vault.keys('secret').length === 0, patience);
    await waitFor('it to be struck out', async () => (await recorded()).length === 0, patience);
    await waitFor('it to be counted no more', async () =>
      (await metricsOf(operator)).includes('secret_store_copies_remaining 0'),
    );
    expect(inVault.size).toBeGreaterThan(4);
    const objects = JSON.stringify(
      await listObjects(controlPlane, 'aid,ksw,events,evidencesegments', namespace),
    );
    const everywhere = [...said, ...operator.logs, objects].join('\n');
    for (const canary of inVault) expect(everywhere).not.toContain(canary);
  }, 600_000);
});

/** Texts of what is written down of copies. */
async function recorded(): Promise<string[]> {
  const found = await listObjects<ConfigMap>(controlPlane, 'configmaps', 'automation-guardrails');
  return found
    .filter(({ metadata }) => metadata.labels?.[label.copies] !== undefined)
    .flatMap(({ data = {} }) => Object.values(data));
}

async function metricsOf({ metricsUrl }: OperatorProcess): Promise<string> {
  return await (await fetch(metricsUrl())).text();
}

describe('a Secret of somebody else', () => {
  it('is watched by its metadata: owner, age, and when it is overdue', async () => {
    const name = 'watching';
    const bank = { name: 'bank', type: 'Existing', secretName: 'bank-api' };
    await controlPlane.apply([identity(name, [{ ...bank, rotation: { every: '1s' } }])]);
    await identityWhere(name, 'the gap', (f) => reasonOf(f, 'Ready') === 'SecretMissing');
    await kubectlOk(controlPlane, [
      'create',
      'secret',
      'generic',
      'bank-api',
      `-n=${namespace}`,
      '--from-literal=key=canary-of-the-bank',
      '--field-manager=bank-sync',
    ]);
    const before = await getObject<Secret>(controlPlane, 'secret', 'bank-api', namespace);
    // The API server writes down who wrote before it says when it was created.
    const writtenAt = await kubectlOk(controlPlane, [
      'get',
      'secret',
      'bank-api',
      `-n=${namespace}`,
      '--show-managed-fields',
      '-o=jsonpath={.metadata.managedFields[0].time}',
    ]);
    // It isn't watched: a change of the spec makes the operator look.
    await controlPlane.apply([
      identity(name, [{ ...bank, rotation: { every: '1s' } }], { purpose: 'looks again' }),
    ]);
    const { status } = await identityWhere(
      name,
      'its age',
      (f) => reasonOf(f, 'RotationOverdue') === 'SecretOverdue',
    );
    expect(status?.secrets).toMatchObject([
      {
        name: 'bank',
        secretName: 'bank-api',
        owner: 'bank-sync',
        lastRotationTime: writtenAt,
      },
    ]);
    await controlPlane.apply([identity(name, [])]);
    await identityWhere(name, 'the end of the watch', (f) => f.status?.secrets?.length === 0);
    const after = await getObject<Secret>(controlPlane, 'secret', 'bank-api', namespace);
    expect(after).toEqual(before);
    expect(operator.logs.join('\n')).not.toContain('canary-of-the-bank');
  });
});
