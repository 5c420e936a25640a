import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { isTrue } from '../../src/api/conditions.ts';
import type { Condition, KubeObject } from '../../src/api/objects.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation } from '../operator/automation.ts';
import { getObject, guardrailsInForce, listObjects } from '../operator/cluster.ts';
import { Incident } from '../operator/incident.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';
import { Api } from '../integration/admission/api.ts';
import { ArgoCd } from './argocd.ts';
import { guidesPolicy, writeAutomation, writeGuardrails } from './guide.ts';
import { findArgoCd } from './programs.ts';

type Stated = KubeObject & {
  spec: { enforcement?: string };
  status?: { conditions?: Condition[] };
};

const name = 'invoice';
const namespace = 'finance';
const guardrails = 'automation-guardrails';

let controlPlane: ControlPlane;
let argoCd: ArgoCd;
let admin: Api;
let incident: Incident;
let operator: OperatorProcess | undefined;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 200 });
  argoCd = await ArgoCd.start(controlPlane, await findArgoCd((line) => console.log(line)));
  admin = Api.asAdmin(controlPlane);
}, 900_000);

afterAll(async () => {
  await Promise.all([argoCd?.stop(), admin?.close(), operator?.stop()]);
  await controlPlane?.stop();
});

/**
 * An automation with one workload. The namespace is Argo CD's to create.
 *
 * @param workflow fields of its spec
 * @param more other objects
 * @returns the commit
 */
async function pushAutomation(workflow: object = {}, more: object[] = []): Promise<string> {
  const manifests = automation({ namespace, name }) as { kind: string; spec: object }[];
  const kinds = ['AutomationIdentity', 'Workflow', 'Deployment'];
  const kept = manifests.filter(({ kind }) => kinds.includes(kind));
  for (const one of kept) {
    if (one.kind !== 'Workflow') continue;
    const targets = [{ group: 'apps', kind: 'Deployment', name: `${name}-poster` }];
    one.spec = { ...one.spec, targets, ...workflow };
  }
  await writeAutomation(argoCd.repository, namespace, [...kept, ...more]);
  return argoCd.push();
}

async function shows(application: string, sync: string, health: string): Promise<void> {
  onTestFailed(() => console.log(argoCd.logTail()));
  await waitFor(
    `Application ${application} to be ${sync} and ${health}`,
    async () => {
      const { operationState, ...status } = await argoCd.status(application);
      if (status.sync?.status === sync && status.health?.status === health) return true;
      throw new Error(JSON.stringify({ ...status, resources: [], operationState }));
    },
    { timeoutMs: 600_000, intervalMs: 500 },
  );
}

async function stored(kind: string, of: string, within = ''): Promise<Stated> {
  const found = await getObject<Stated>(controlPlane, kind, of, within);
  if (found === undefined) throw new Error(`there is no ${kind} ${of}`);
  return found;
}

/** An Application shows the worst of all: which of them it is about isn't said. */
async function isSuspended(kind: string): Promise<void> {
  await waitFor(
    `${kind} to be suspended`,
    async () => (await argoCd.healthOf(await stored(kind, name, namespace))) === 'Suspended',
    { intervalMs: 500 },
  );
}

describe('Argo CD', () => {
  it('installs the operator from Git, its kinds before the policies that need them', async () => {
    await writeGuardrails(argoCd.repository);
    await argoCd.push();
    await argoCd.follow(guardrails);
    const kubeconfigPath = await waitFor(
      'Argo CD to install the operator',
      () => guardrailsInForce(controlPlane),
      { timeoutMs: 600_000 },
    );
    operator = await startOperator({ kubeconfigPath });
    await shows(guardrails, 'Synced', 'Healthy');

    const created = async (kinds: string): Promise<string[]> =>
      (await listObjects<KubeObject>(controlPlane, kinds, ''))
        .filter(({ metadata }) => metadata.name.includes('automation'))
        .map(({ metadata }) => metadata.creationTimestamp ?? '')
        .toSorted();
    const kinds = await created('customresourcedefinitions');
    const policies = await created('validatingadmissionpolicies,mutatingadmissionpolicies');
    expect(kinds).toHaveLength(9);
    expect(policies.length).toBeGreaterThan(9);
    expect(kinds.at(-1)?.localeCompare(policies[0] ?? '')).toBeLessThanOrEqual(0);

    const policy = await stored('guardrailpolicy', 'default');
    expect(isTrue(policy.status?.conditions, 'Ready')).toBe(true);
    expect(await argoCd.healthOf(policy)).toBe('Healthy');
  });

  it('brings a change of the policy into force', async () => {
    await writeGuardrails(argoCd.repository, {
      ...guidesPolicy(),
      spec: { ...guidesPolicy().spec, enforcement: 'Warn' },
    });
    await argoCd.push();
    await waitFor(
      'the policy of Git to be in the cluster',
      async () => (await stored('guardrailpolicy', 'default')).spec.enforcement === 'Warn',
      { timeoutMs: 120_000, intervalMs: 500 },
    );
    await shows(guardrails, 'Synced', 'Healthy');
  });

  it('shows an automation that lacks something as degraded, and healthy when that is there', async () => {
    await pushAutomation({ owner: { team: 'payments' } });
    await argoCd.follow(namespace);
    await shows(namespace, 'Synced', 'Degraded');
    await pushAutomation();
    await shows(namespace, 'Synced', 'Healthy');
  });

  it('shows one that is stopped as suspended until it is released', async () => {
    incident = await Incident.handledBy(controlPlane, admin);
    await incident.engage({ namespace, name });
    const killSwitch = await incident.reached({ namespace, name }, 'Ready');
    await shows(namespace, 'OutOfSync', 'Suspended');
    expect(await argoCd.healthOf(killSwitch)).toBe('Healthy');
    for (const kind of ['awf', 'aid']) await isSuspended(kind);

    // What the guide warns of: a later wave waits for whoever is suspended.
    const later = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'later', namespace, annotations: { 'argocd.argoproj.io/sync-wave': '1' } },
    };
    const commit = await pushAutomation({}, [later]);
    await waitFor(
      'a sync with two waves to wait for the automation',
      async () => {
        const { operationState: { phase, message = '', operation } = {} } =
          await argoCd.status(namespace);
        return (
          phase === 'Running' &&
          operation?.sync?.revision === commit &&
          message.startsWith('waiting for healthy state of automationguardrails.dev/')
        );
      },
      { timeoutMs: 600_000, intervalMs: 500 },
    );
    expect(await getObject(controlPlane, 'configmap', 'later', namespace)).toBeUndefined();

    await incident.askForRelease({ namespace, name });
    await incident.released({ namespace, name });
    await shows(namespace, 'Synced', 'Healthy');
    const hasLater = async (): Promise<boolean> =>
      (await getObject(controlPlane, 'configmap', 'later', namespace)) !== undefined;
    expect(await hasLater()).toBe(true);
    // While it is in Git, there are two waves, and the second one waits for whoever is suspended.
    await pushAutomation();
    await waitFor('the second wave to be pruned', async () => !(await hasLater()), {
      timeoutMs: 600_000,
      intervalMs: 500,
    });
    await shows(namespace, 'Synced', 'Healthy');
  });

  it('shows one that waits for approval as suspended', async () => {
    await pushAutomation({ risk: 'High', change: { version: '2', reason: 'posts credit notes' } });
    await shows(namespace, 'Synced', 'Suspended');
    await isSuspended('awf');
  });
});
