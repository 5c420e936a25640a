import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PROBE_NAMESPACE } from '../../src/api/names.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { ApiProxy, type ProxiedWrite, type WriteFate } from '../fault/api-proxy.ts';
import { Api } from '../integration/admission/api.ts';
import { installGuardrails } from '../operator/cluster.ts';
import { Incident } from '../operator/incident.ts';
import { Load } from '../operator/load.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const automations = 10;
const rounds = 20;
const namespace = 'stale-fence';
const statusWritesPerSecond = 150;
/** Together with the rest of a status, 8 KB. */
const sizeOfStatus = 7_500;

let controlPlane: ControlPlane;
let admin: Api;
let incident: Incident;
let proxy: ApiProxy;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  admin = Api.asAdmin(controlPlane);
  incident = await Incident.handledBy(controlPlane, admin);
  proxy = new ApiProxy({ controlPlane, kubeconfigPath });
  operator = await startOperator({ kubeconfigPath: await proxy.start() });
});

afterAll(async () => {
  await operator?.stop();
  await proxy?.stop();
  await admin?.close();
  await controlPlane?.stop();
});

const neighbours = Array.from({ length: 20 }, (_, index) => `neighbour-${index}`);

interface Target {
  resource: Resource;
  name: string;
  /** What its owner asked for. */
  asked: { replicas: number } | { suspend: boolean };
}

function targetsOf(name: string): Target[] {
  return [
    { resource: resources.deployments, name: `${name}-poster`, asked: { replicas: 2 } },
    { resource: resources.statefulSets, name: `${name}-store`, asked: { replicas: 1 } },
    { resource: resources.cronJobs, name: `${name}-import`, asked: { suspend: false } },
  ];
}

function manifests(): object[] {
  const owner = { team: 'payments', contact: 'payments@example.com', escalation: '+1 555 0100' };
  const template = (name: string): object => ({
    metadata: { labels: { app: name } },
    spec: {
      serviceAccountName: name,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', image: 'registry.example/automation:1' }],
    },
  });
  return [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'automationguardrails.dev/environment': 'test' } },
    },
    ...neighbours.map((name) => ({
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'Workflow',
      // Where the operator's controllers don't look, so that none answers with a write of its own.
      metadata: { name, namespace: PROBE_NAMESPACE },
      spec: { owner, targets: [{ group: 'apps', kind: 'Deployment', name }] },
    })),
    ...names.flatMap((name) => [
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: `${name}-poster`, namespace },
        spec: {
          replicas: 2,
          selector: { matchLabels: { app: name } },
          template: template(name),
        },
      },
      {
        apiVersion: 'apps/v1',
        kind: 'StatefulSet',
        metadata: { name: `${name}-store`, namespace },
        spec: {
          replicas: 1,
          serviceName: name,
          selector: { matchLabels: { app: name } },
          template: template(name),
        },
      },
      {
        apiVersion: 'batch/v1',
        kind: 'CronJob',
        metadata: { name: `${name}-import`, namespace },
        spec: {
          schedule: '0 3 1 1 *',
          suspend: false,
          jobTemplate: {
            spec: {
              template: {
                ...template(name),
                spec: { ...(template(name) as { spec: object }).spec, restartPolicy: 'Never' },
              },
            },
          },
        },
      },
    ]),
  ];
}

const names = Array.from({ length: automations }, (_, index) => `automation-${index}`);

/** What of a target isn't as its owner wants it. */
async function differences({ resource, name, asked }: Target): Promise<string[]> {
  const { object } = await admin.get(resource, { namespace, name });
  const found = [];
  for (const [field, value] of Object.entries(asked)) {
    const is: unknown = Reflect.get(object.spec ?? {}, field);
    if (is !== value) found.push(`${name}: ${field} is ${String(is)}, not ${String(value)}`);
  }
  const annotations = Object.keys(object.metadata.annotations ?? {});
  for (const key of annotations.filter((one) => one.startsWith('automationguardrails.dev/'))) {
    found.push(`${name}: ${key} is left`);
  }
  return found;
}

/** Writes of the operator to the workloads of an automation. */
function writesTo(targets: readonly Target[]): number {
  return proxy.writes.filter(({ path }) => targets.some(({ name }) => path.endsWith(`/${name}`)))
    .length;
}

async function writeStatus(name: string, status: object): Promise<void> {
  const answer = await admin.merge(
    resources.workflows,
    { namespace: PROBE_NAMESPACE, name },
    { status },
    { subresource: 'status' },
  );
  if (answer.status !== 200) throw new Error(answer.message);
}

/** Whether the fence of an automation still stood when the operator asked. */
function isDeniedSince(index: number, name: string): boolean {
  return proxy.dryRuns
    .slice(index)
    .some(({ path, status = 0 }) => path.endsWith(`/killswitches/${name}`) && status >= 400);
}

describe('releases while the API server lags behind', () => {
  it('lose nothing in 200 kills', async () => {
    await controlPlane.apply(manifests());
    const filler = {
      type: 'Ready',
      status: 'False',
      reason: 'Churn',
      message: 'x'.repeat(sizeOfStatus),
      lastTransitionTime: '2026-01-01T00:00:00Z',
    };
    for (const name of neighbours) await writeStatus(name, { conditions: [filler] });
    const churn = new Load({
      perSecond: statusWritesPerSecond,
      call: (index) =>
        writeStatus(neighbours[index % neighbours.length] ?? '', { observedGeneration: index }),
    });
    let askedAgain = 0;
    let restoredAgain = 0;
    const lost: string[] = [];
    try {
      const outcomes = await forEachBounded(names, automations, async (name) => {
        const automation = { namespace, name };
        const targets = targetsOf(name);
        for (let round = 1; round <= rounds; round++) {
          await incident.engage(automation, `round ${round}`);
          await incident.reached(automation, 'Paused');
          const before = writesTo(targets);
          const asked = proxy.dryRuns.length;
          await incident.askForRelease(automation);
          await incident.released(automation);
          if (isDeniedSince(asked, name)) askedAgain++;
          // The value, then the annotations: what is more was met by a fence that still stood.
          if (writesTo(targets) - before > 2 * targets.length) restoredAgain++;
          const found = await Promise.all(targets.map(differences));
          lost.push(...found.flat().map((what) => `round ${round}: ${what}`));
        }
      });
      assertAllDone(outcomes, 'kills and releases');
    } finally {
      await churn.stop();
    }
    console.log(
      `${automations * rounds} kills and releases, beside ${churn.rate.toFixed(0)} of ${statusWritesPerSecond} status writes a second (${churn.failed} failed); in ${askedAgain} releases the fence that was lifted still stood when it was asked, and in ${restoredAgain} it still rewrote a restore after it had said no more`,
    );
    expect(churn.ended - churn.failed).toBeGreaterThan(1000);
    expect(lost).toEqual([]);
  });

  it('put back what a fence that still stood has rewritten', async () => {
    const [name = ''] = names;
    const automation = { namespace, name };
    const targets = targetsOf(name);
    await incident.engage(automation, 'a fence that stays');
    await incident.reached(automation, 'Paused');

    // The API server that answers the operator has lifted the fence; the one that takes the
    // restores hasn't heard of it.
    const isOfKillSwitch = ({ path }: ProxiedWrite): boolean =>
      path.endsWith(`/killswitches/${name}`);
    const before = proxy.writes.length;
    const rewritten = (): string[] =>
      proxy.writes
        .slice(before)
        .filter(({ status }) => status === 200)
        .flatMap(({ path }) => targets.filter((target) => path.endsWith(`/${target.name}`)))
        .map((target) => target.name);
    proxy.onWrite = (write): WriteFate => (isOfKillSwitch(write) ? 'pretend' : 'pass');
    proxy.onDryRun = (write) => (isOfKillSwitch(write) ? 'pretend' : 'pass');
    await incident.askForRelease(automation);
    await waitFor('a restore of each target, too early', () => new Set(rewritten()).size === 3);
    const found = await Promise.all(targets.map(differences));
    expect(found.flat().filter((what) => / is (0|true), not /.test(what))).toHaveLength(3);

    proxy.onWrite = (): WriteFate => 'pass';
    proxy.onDryRun = (): 'pass' => 'pass';
    await incident.released(automation);
    expect((await Promise.all(targets.map(differences))).flat()).toEqual([]);
  });
});
