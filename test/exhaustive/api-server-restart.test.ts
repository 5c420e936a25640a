import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KubeObject } from '../../src/api/objects.ts';
import { resources } from '../../src/api/resources.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { Api, type Answer } from '../integration/admission/api.ts';
import { automation } from '../operator/automation.ts';
import { installGuardrails, listObjects, waitForCondition } from '../operator/cluster.ts';
import { Incident } from '../operator/incident.ts';
import { Load } from '../operator/load.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const restarts = 3;
const namespace = 'restart';
const unguarded = 'unguarded';
const invoice = { namespace, name: 'invoice' };

let controlPlane: ControlPlane;
let admin: Api;
let incident: Incident;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  admin = Api.asAdmin(controlPlane);
  incident = await Incident.handledBy(controlPlane, admin);
  operator = await startOperator({ kubeconfigPath });
});

afterAll(async () => {
  await operator?.stop();
  await admin?.close();
  await controlPlane?.stop();
});

/** Something that is tried again and again. */
interface Attempt {
  name: string;
  send: () => Promise<Answer>;
}

function podSpec(serviceAccountName: string): object {
  return {
    serviceAccountName,
    automountServiceAccountToken: false,
    containers: [{ name: 'main', image: 'registry.example/automation:1' }],
  };
}

function podOf(where: string, name: string, serviceAccountName: string): KubeObject {
  return {
    metadata: { namespace: where, name },
    spec: podSpec(serviceAccountName),
  } as KubeObject;
}

let count = 0;
const unique = (): string => `attempt-${count++}`;

function deploymentOf(where: string, name: string, serviceAccountName: string): KubeObject {
  return {
    metadata: { namespace: where, name },
    spec: {
      replicas: 1,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: podSpec(serviceAccountName),
      },
    },
  } as KubeObject;
}

/** Whatever would start something of the stopped automation. */
const attacks: Attempt[] = [
  {
    name: 'create a pod',
    send: () => admin.create(resources.pods, podOf(namespace, unique(), 'invoice')),
  },
  {
    name: 'ask for a token',
    send: () =>
      admin.create(
        resources.serviceAccounts,
        { metadata: invoice, spec: { audiences: ['erp'] } } as KubeObject,
        { subresource: 'token' },
      ),
  },
  {
    name: 'ask for replicas',
    send: () =>
      admin.merge(
        resources.deployments,
        { namespace, name: 'invoice-poster' },
        { spec: { replicas: 4 } },
      ),
  },
  {
    name: 'resume a CronJob',
    send: () =>
      admin.merge(
        resources.cronJobs,
        { namespace, name: 'invoice-import' },
        { spec: { suspend: false } },
      ),
  },
  {
    name: 'create a Deployment',
    send: () =>
      admin.create(resources.deployments, deploymentOf(namespace, unique(), 'invoice'), {
        dryRun: true,
      }),
  },
];

/** Whether an answer says that something starts, or will. */
function startsSomething({ status, object }: Answer): boolean {
  if (status >= 300) return false;
  const { replicas, suspend } = object.spec ?? {};
  return !(replicas === 0 || suspend === true);
}

/** What has nothing to do with it. */
const unrelated: Attempt[] = [unguarded, 'kube-system'].flatMap((where) => [
  {
    name: `create a pod in ${where}`,
    send: () => admin.create(resources.pods, podOf(where, unique(), 'default'), { dryRun: true }),
  },
  {
    name: `create a Deployment in ${where}`,
    send: () =>
      admin.create(resources.deployments, deploymentOf(where, unique(), 'default'), {
        dryRun: true,
      }),
  },
]);

const neighbour: Attempt = {
  name: 'create a pod of somebody else in the guarded namespace',
  send: () => admin.create(resources.pods, podOf(namespace, unique(), 'default'), { dryRun: true }),
};

/** Tries again and again while the API server is away and after it is back. */
async function throughRestart(
  attempt: Attempt,
  judge: (answer: Answer) => void,
  until: Promise<void>,
): Promise<number> {
  let answers = 0;
  const load = new Load({
    perSecond: 10,
    inFlight: 4,
    call: async () => {
      judge(await attempt.send());
      answers++;
    },
  });
  try {
    await until;
  } finally {
    await load.stop();
  }
  return answers;
}

const isOfAdmissionPolicy = ({ message }: Answer): boolean => /AdmissionPolicy/.test(message);

/** Why an API server that was restarted refuses a neighbour; see docs/decisions/0020. */
const reasons = {
  'our kinds unknown': 'failed to find resource referenced by paramKind',
  'our objects unread': 'not yet synced to use for admission',
};

function reasonOf({ message }: Answer): string {
  const known = Object.entries(reasons).find(([, text]) => message.includes(text));
  return known?.[0] ?? message;
}

describe('a restart of the API server while a kill switch is engaged', () => {
  it('starts nothing of the automation, and refuses nothing else', async () => {
    await controlPlane.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: unguarded } },
      ...automation({ namespace }),
    ]);
    await waitForCondition(controlPlane, { kind: 'awf', ...invoice }, 'Ready');
    await incident.engage(invoice);
    await incident.reached(invoice, 'Ready');

    const started: string[] = [];
    const refused: string[] = [];
    const reopened: string[] = [];
    const unexplained: string[] = [];
    let attacked = 0;
    for (let restart = 1; restart <= restarts; restart++) {
      await controlPlane.stopComponent('apiServer');
      let answeredAt: number | undefined;
      const comeBack = async (): Promise<void> => {
        await controlPlane.startComponent('apiServer');
        const readyAt = performance.now();
        answeredAt ??= readyAt;
        const why = new Set<string>();
        await waitFor(
          'the neighbour to be let in again',
          async () => {
            const answer = await neighbour.send();
            if (answer.status === 201) return true;
            if (isOfAdmissionPolicy(answer)) why.add(reasonOf(answer));
            return false;
          },
          { timeoutMs: 120_000 },
        );
        unexplained.push(...[...why].filter((reason) => !(reason in reasons)));
        const since = (at: number): string => (at - (answeredAt ?? at)).toFixed(0);
        reopened.push(
          `${since(performance.now())} ms (ready after ${since(readyAt)}; ${[...why].join(', ') || 'never refused'})`,
        );
      };
      const isBack = comeBack();
      const counts = await Promise.all([
        ...attacks.map((attack) =>
          throughRestart(
            attack,
            (answer) => {
              if (startsSomething(answer)) started.push(`restart ${restart}: ${attack.name}`);
            },
            isBack,
          ),
        ),
        ...unrelated.map((attempt) =>
          throughRestart(
            attempt,
            (answer) => {
              answeredAt ??= performance.now();
              if (answer.status < 300 || !isOfAdmissionPolicy(answer)) return;
              refused.push(`restart ${restart}: ${attempt.name}: ${answer.message}`);
            },
            isBack,
          ),
        ),
      ]);
      await isBack;
      attacked += counts.slice(0, attacks.length).reduce((sum, one) => sum + one, 0);
    }
    console.log(
      `${attacked} attempts on the automation; others in its namespace let in again, after the first answer: ${reopened.join('; ')}`,
    );
    expect(attacked).toBeGreaterThan(100);
    expect(started).toEqual([]);
    expect(refused).toEqual([]);
    expect(unexplained).toEqual([]);
    expect(await listObjects(controlPlane, 'pods', namespace)).toEqual([]);
    await incident.reached(invoice, 'Ready');
  });

  it('lets unrelated writes through as soon as it is back', async () => {
    for (const { name, send } of unrelated) {
      expect((await send()).status, name).toBe(201);
    }
  });
});

describe('the namespace of an automation', () => {
  it("can't be deleted while its kill switch is engaged", async () => {
    const { status, message } = await admin.delete(resources.namespaces, { name: namespace });
    expect(status).toBeGreaterThanOrEqual(400);
    expect(message).toContain('kill switch');
  });

  it('can be deleted when its kill switch is released', async () => {
    await incident.askForRelease(invoice);
    await incident.released(invoice);
    await admin.delete(resources.namespaces, { name: namespace });
    await isGone(namespace);
  });

  it('goes, when it is deleted while a Workflow in it is being deleted', async () => {
    const other = { namespace: 'restart-terminating', name: 'invoice' };
    await controlPlane.apply(automation({ namespace: other.namespace }));
    await waitForCondition(controlPlane, { kind: 'awf', ...other }, 'Ready');
    await admin.merge(resources.workflows, other, {
      metadata: { finalizers: ['example.com/slow'] },
    });
    await admin.delete(resources.workflows, other);
    await admin.delete(resources.namespaces, { name: other.namespace });
    await admin.merge(resources.workflows, other, { metadata: { finalizers: null } });
    await isGone(other.namespace);
  });
});

async function isGone(name: string): Promise<void> {
  await waitFor(
    `namespace ${name} to be gone`,
    async () => (await admin.get(resources.namespaces, { name })).status === 404,
    { timeoutMs: 120_000 },
  );
}
