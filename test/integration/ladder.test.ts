import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Condition } from '../../src/api/objects.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  bob,
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitForPods,
  waitUntilGone,
} from '../operator/cluster.ts';
import {
  startOperator,
  startReplicas,
  type OperatorProcess,
} from '../operator/operator-process.ts';

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let operators: OperatorProcess[] = [];

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  operators = await startReplicas({ kubeconfigPath });
});

afterAll(async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  await controlPlane?.stop();
});

const name = 'invoice';

interface KillSwitchObject {
  metadata: { annotations?: Record<string, string> };
  status?: { conditions?: Condition[]; remaining?: { what: string; until?: string }[] };
}

async function provision(namespace: string): Promise<void> {
  await controlPlane.apply(automation({ namespace }));
  await waitForCondition(controlPlane, { kind: 'awf', name, namespace }, 'Ready');
  await waitForCondition(controlPlane, { kind: 'aid', name, namespace }, 'Ready');
  await podsRun(namespace, automationPods);
}

const podsRun = (namespace: string, count: number): Promise<void> =>
  waitForPods(controlPlane, namespace, count);

const kill = (namespace: string, spec: object = { workflow: name }): Promise<string> =>
  kubectlOk(controlPlane, ['create', '-f', '-'], {
    input: JSON.stringify({
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'KillSwitch',
      metadata: { name: 'workflow' in spec ? spec.workflow : 'namespace', namespace },
      spec: { ...spec, reason: 'runaway' },
    }),
  });

const release = (namespace: string, which = name): Promise<string> =>
  kubectlOk(
    controlPlane,
    ['annotate', 'ksw', which, `-n=${namespace}`, 'automationguardrails.dev/release=fixed'],
    bob,
  );

const released = (namespace: string, which = name): Promise<void> =>
  waitUntilGone(controlPlane, { kind: 'ksw', name: which, namespace });

const killSwitchOf = (namespace: string, which = name): Promise<KillSwitchObject | undefined> =>
  getObject<KillSwitchObject>(controlPlane, 'ksw', which, namespace);

const conditionOf = async (namespace: string, type: string): Promise<Condition | undefined> =>
  (await killSwitchOf(namespace))?.status?.conditions?.find((one) => one.type === type);

/** HTTP status of a request with somebody's token. */
async function statusWith(token: string): Promise<number> {
  const { stdout, stderr } = await controlPlane.kubectl([
    'get',
    '--raw=/api',
    `--token=${token}`,
    '--v=6',
  ]);
  const [, status] = /"?status"?="?(\d{3})/i.exec(stderr) ?? [];
  return status === undefined && stdout !== '' ? 200 : Number(status ?? 0);
}

interface SecretObject {
  metadata: { name: string; annotations?: Record<string, string> };
  data?: Record<string, string>;
}

const secretOf = (namespace: string, secret: string): Promise<SecretObject | undefined> =>
  getObject<SecretObject>(controlPlane, 'secret', secret, namespace);

/** The one Secret with a credential of the identity. */
async function credentialOf(namespace: string): Promise<SecretObject> {
  const identity = await getObject<{ status: { secrets: { secretName: string }[] } }>(
    controlPlane,
    'aid',
    name,
    namespace,
  );
  const found = await secretOf(namespace, identity?.status.secrets[0]?.secretName ?? '');
  if (found === undefined) throw new Error('the identity has no credential');
  return found;
}

interface PolicyObject {
  spec: { egress?: object[]; policyTypes: string[] };
}

const policiesOf = (namespace: string): Promise<PolicyObject[]> =>
  listObjects<PolicyObject>(controlPlane, 'networkpolicies', namespace);

describe('the ladder of a kill', () => {
  const namespace = 'ladder';
  let bound: string;
  let legacy: string;
  let credential: SecretObject;

  beforeAll(async () => {
    // A token Secret from before the namespace was guarded: nothing refuses it then.
    const manifests = automation({ namespace });
    await controlPlane.apply(manifests);
    await waitForCondition(controlPlane, { kind: 'aid', name, namespace }, 'Ready');
    await kubectlOk(controlPlane, [
      'label',
      'namespace',
      namespace,
      'automationguardrails.dev/environment-',
    ]);
    await waitFor('the API server to have heard of that', async () => {
      await controlPlane.apply([
        {
          apiVersion: 'v1',
          kind: 'Secret',
          type: 'kubernetes.io/service-account-token',
          metadata: {
            name: 'legacy',
            namespace,
            annotations: { 'kubernetes.io/service-account.name': name },
          },
        },
      ]);
      return true;
    });
    legacy = await waitFor('the legacy token', async () => {
      const text = (await secretOf(namespace, 'legacy'))?.data?.['token'];
      return text === undefined ? undefined : Buffer.from(text, 'base64').toString();
    });
    bound = (
      await kubectlOk(controlPlane, ['create', 'token', name, `-n=${namespace}`, '--duration=24h'])
    ).trim();
    await kubectlOk(controlPlane, [
      'annotate',
      'serviceaccount',
      name,
      `-n=${namespace}`,
      'cloud.example/role=poster',
    ]);
    await kubectlOk(controlPlane, [
      'patch',
      'serviceaccount',
      name,
      `-n=${namespace}`,
      '--type=merge',
      '-p={"metadata":{"labels":{"team":"finance"}},"imagePullSecrets":[{"name":"registry"}]}',
    ]);
    await provision(namespace);
    credential = await credentialOf(namespace);
    expect(await statusWith(bound)).toBe(200);
    expect(await statusWith(legacy)).toBe(200);
  });

  it('takes permissions, Secrets, the ServiceAccount, its tokens and the egress', async () => {
    await kill(namespace);
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'TokensRevoked');
    expect(await statusWith(bound)).toBe(401);
    expect(await statusWith(legacy)).toBe(401);
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'Effective');
    expect(await getObject(controlPlane, 'rolebinding', name, namespace)).toBeUndefined();
    expect(await getObject(controlPlane, 'serviceaccount', name, namespace)).toBeUndefined();
    expect(await secretOf(namespace, credential.metadata.name)).toBeUndefined();
    const policies = await policiesOf(namespace);
    expect(policies.length).toBeGreaterThan(0);
    for (const { spec } of policies) {
      expect(spec.policyTypes).toContain('Egress');
      expect(spec.egress ?? []).toEqual([]);
    }
    const { status } = (await killSwitchOf(namespace)) ?? {};
    expect(status?.remaining).toBeUndefined();
    expect(status?.conditions?.map(({ type, status: is }) => `${type} ${is}`)).toEqual([
      'Contested False',
      'Fenced True',
      'Paused True',
      'PodsGone True',
      'PermissionsRevoked True',
      'SecretsWithdrawn True',
      'IdentityRevoked True',
      'TokensRevoked True',
      'EgressClosed True',
      'Effective True',
      'Ready True',
    ]);
    const rungs = ['PermissionsRevoked', 'IdentityRevoked', 'TokensRevoked', 'Effective'];
    await waitFor('each rung to be counted', async () => {
      const pages = await Promise.all(
        operators.map(async (operator) => (await fetch(operator.metricsUrl())).text()),
      );
      return rungs.every((rung) =>
        pages
          .join('\n')
          .includes(
            `automation_guardrails_kill_switch_stop_duration_seconds_count{rung="${rung}"}`,
          ),
      );
    });
  });

  it('gives all of it back with the release, and new values', async () => {
    await release(namespace);
    await released(namespace);
    await podsRun(namespace, automationPods);
    const account = await getObject<{
      metadata: { labels: object; annotations: object };
      imagePullSecrets: object;
      automountServiceAccountToken: boolean;
    }>(controlPlane, 'serviceaccount', name, namespace);
    expect(account).toMatchObject({
      metadata: { labels: { team: 'finance' }, annotations: { 'cloud.example/role': 'poster' } },
      imagePullSecrets: [{ name: 'registry' }],
      automountServiceAccountToken: false,
    });
    expect(await getObject(controlPlane, 'rolebinding', name, namespace)).toBeDefined();
    await waitFor('the egress to be back', async () => {
      const reopened = await policiesOf(namespace);
      return reopened.length > 0 && reopened.every(({ spec }) => spec.egress?.length === 2);
    });
    const renewed = await credentialOf(namespace);
    expect(renewed.data).not.toEqual(credential.data);
    expect(await statusWith(bound)).toBe(401);
    await waitForCondition(controlPlane, { kind: 'awf', name, namespace }, 'Ready');
  });

  it('restarts no consumer that has started anew anyway', async () => {
    const { metadata } = await credentialOf(namespace);
    const { annotations = {} } = metadata;
    expect(annotations['automationguardrails.dev/consumers-restarted']).toBe(
      annotations['automationguardrails.dev/rotation'],
    );
    const deployment = await getObject<{
      spec: { template: { metadata: { annotations?: Record<string, string> } } };
    }>(controlPlane, 'deployment', `${name}-poster`, namespace);
    expect(deployment?.spec.template.metadata.annotations).toBeUndefined();
  });

  it('leaves what others had on the ServiceAccount for them to change, without a conflict', async () => {
    const { code, stderr } = await controlPlane.kubectl(
      ['apply', '--server-side', '--field-manager=gitops', '-f', '-'],
      {
        input: JSON.stringify({
          apiVersion: 'v1',
          kind: 'ServiceAccount',
          metadata: { name, namespace, annotations: { 'cloud.example/role': 'reader' } },
          imagePullSecrets: [{ name: 'other' }],
        }),
      },
    );
    expect(code, stderr).toBe(0);
  });
});

describe('what the operator did not make', () => {
  const namespace = 'foreign-account';

  it('is left alone, and named as what remains', async () => {
    const manifests = automation({ namespace }) as { kind: string }[];
    await controlPlane.apply([
      ...manifests.filter(({ kind }) => kind === 'Namespace'),
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
      ...manifests.filter(({ kind }) => !['Namespace', 'AutomationIdentity'].includes(kind)),
    ]);
    await waitForCondition(controlPlane, { kind: 'awf', name, namespace }, 'Held');
    await kill(namespace);
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'PodsGone');
    const effective = await waitFor('what remains', async () => {
      const condition = await conditionOf(namespace, 'Effective');
      return condition?.reason === 'SomethingRemains' ? condition : undefined;
    });
    expect(effective.status).toBe('False');
    expect(await conditionOf(namespace, 'IdentityRevoked')).toMatchObject({
      status: 'False',
      reason: 'ForeignObject',
    });
    const { status } = (await killSwitchOf(namespace)) ?? {};
    expect(status?.remaining?.map(({ what }) => what).join('\n')).toContain(
      `Tokens of ServiceAccount ${name}`,
    );
    expect(await getObject(controlPlane, 'serviceaccount', name, namespace)).toBeDefined();
  });

  it('is told to be effective once somebody has deleted it', async () => {
    await kubectlOk(controlPlane, ['delete', 'serviceaccount', name, `-n=${namespace}`]);
    // Foreign objects aren't watched; any change of the KillSwitch is a reason to look.
    await kubectlOk(controlPlane, ['label', 'ksw', name, `-n=${namespace}`, 'look=now']);
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'Effective');
  });

  it('a binding of somebody else keeps the kill from being effective, by name', async () => {
    const other = 'foreign-binding';
    await provision(other);
    await kubectlOk(controlPlane, [
      'create',
      'clusterrolebinding',
      'sneaky',
      '--clusterrole=view',
      `--user=system:serviceaccount:${other}:${name}`,
    ]);
    await kill(other);
    const found = await waitFor('the binding to be told of', async () => {
      const condition = await conditionOf(other, 'PermissionsRevoked');
      return condition?.reason === 'GrantedElsewhere' ? condition : undefined;
    });
    expect(found).toMatchObject({ status: 'False' });
    expect(found.message).toContain('get configmaps');
    await kubectlOk(controlPlane, ['delete', 'clusterrolebinding', 'sneaky']);
    await kubectlOk(controlPlane, ['label', 'ksw', name, `-n=${other}`, 'look=now']);
    await waitForCondition(
      controlPlane,
      { kind: 'ksw', name, namespace: other },
      'PermissionsRevoked',
    );
  });
});

describe('a kill of a whole namespace, over one of a Workflow', () => {
  const namespace = 'overlap';

  it('keeps the identity away until the last one is released, and then gives it back whole', async () => {
    await provision(namespace);
    await kubectlOk(controlPlane, [
      'annotate',
      'serviceaccount',
      name,
      `-n=${namespace}`,
      'cloud.example/role=poster',
    ]);
    await kill(namespace);
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'IdentityRevoked');
    await kill(namespace, { wholeNamespace: true });
    await waitForCondition(
      controlPlane,
      { kind: 'ksw', name: 'namespace', namespace },
      'IdentityRevoked',
    );
    await release(namespace);
    await released(namespace);
    expect(await getObject(controlPlane, 'serviceaccount', name, namespace)).toBeUndefined();
    await release(namespace, 'namespace');
    await released(namespace, 'namespace');
    await podsRun(namespace, automationPods);
    expect(await getObject(controlPlane, 'serviceaccount', name, namespace)).toMatchObject({
      metadata: { annotations: { 'cloud.example/role': 'poster' } },
    });
  });
});

describe('a release without a leader', () => {
  it('waits, and says for what', async () => {
    const namespace = 'no-leader';
    await provision(namespace);
    await kill(namespace);
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'IdentityRevoked');
    await Promise.all(operators.map((operator) => operator.stop()));
    // Somebody else has the Lease: these replicas work on kills alone.
    await kubectlOk(controlPlane, [
      'patch',
      'lease',
      'automation-guardrails',
      '-n=automation-guardrails',
      '--type=merge',
      `-p=${JSON.stringify({
        spec: {
          holderIdentity: 'somebody-else',
          leaseDurationSeconds: 3600,
          renewTime: new Date().toISOString().replace(/Z$/, '000Z'),
        },
      })}`,
    ]);
    operators = [await startOperator({ kubeconfigPath })];
    await release(namespace);
    const ready = await waitFor('what it waits for', async () => {
      const condition = await conditionOf(namespace, 'Ready');
      return condition?.message.includes('Waiting for the ServiceAccount') === true
        ? condition
        : undefined;
    });
    expect(ready).toMatchObject({ status: 'False', reason: 'Releasing' });
    await kubectlOk(controlPlane, [
      'delete',
      'lease',
      'automation-guardrails',
      '-n=automation-guardrails',
    ]);
    await released(namespace);
    await podsRun(namespace, automationPods);
  });
});
