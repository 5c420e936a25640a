import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KubeObject } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import { auditEvents } from '../control-plane/audit-log.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { Api } from '../integration/admission/api.ts';
import { automation, automationPods } from '../operator/automation.ts';
import { installGuardrails, listObjects, waitForCondition } from '../operator/cluster.ts';
import { Incident } from '../operator/incident.ts';
import { Load } from '../operator/load.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const namespace = 'races';
const invoice = { namespace, name: 'invoice' };
const perSecond = 100;

let controlPlane: ControlPlane;
let admin: Api;
let incident: Incident;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500, audit: 'Request' });
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

interface Write {
  resource: Resource;
  name: string;
  patch: (index: number) => object;
  subresource?: string;
}

const podTemplate = (fields: object): object => ({ spec: { template: fields } });

/** What the owners' tools, autoscalers and people go on writing. */
const writes: Write[] = [
  ...[
    { resource: resources.deployments, name: 'invoice-poster' },
    { resource: resources.statefulSets, name: 'invoice-store' },
    { resource: resources.replicaSets, name: 'invoice-worker' },
  ].map((target) => ({ ...target, patch: (i: number) => ({ spec: { replicas: 1 + (i % 3) } }) })),
  {
    resource: resources.deployments,
    name: 'invoice-poster',
    subresource: 'scale',
    patch: (i) => ({ spec: { replicas: 2 + (i % 2) } }),
  },
  {
    resource: resources.deployments,
    name: 'invoice-poster',
    patch: (i) =>
      podTemplate({
        spec: { containers: [{ name: 'main', image: `registry.example/automation:${i % 5}` }] },
      }),
  },
  {
    resource: resources.statefulSets,
    name: 'invoice-store',
    patch: (i) => ({ metadata: { annotations: { 'example.com/deployed': String(i) } } }),
  },
  {
    resource: resources.daemonSets,
    name: 'invoice-agent',
    patch: (i) =>
      podTemplate({ metadata: { annotations: { 'example.com/restarted': String(i) } } }),
  },
  {
    resource: resources.cronJobs,
    name: 'invoice-import',
    patch: () => ({ spec: { suspend: false } }),
  },
  {
    resource: resources.jobs,
    name: 'invoice-backfill',
    patch: () => ({ spec: { suspend: false } }),
  },
];

interface AuditEvent {
  verb: string;
  requestURI: string;
  user: { username: string };
  objectRef?: { resource?: string; namespace?: string; name?: string; subresource?: string };
  responseStatus?: { code?: number; message?: string };
  requestObject?: { spec?: { serviceAccountName?: string } };
  /** RFC 3339 with microseconds. */
  requestReceivedTimestamp: string;
  stageTimestamp: string;
}

/** Nothing pauses this kind, so that its controller asks for its pod again, kill or no kill. */
const unpaused = {
  apiVersion: 'v1',
  kind: 'ReplicationController',
  metadata: { name: 'invoice-unpaused', namespace },
  spec: {
    replicas: 1,
    selector: { app: 'unpaused' },
    template: {
      metadata: { labels: { app: 'unpaused' } },
      spec: {
        serviceAccountName: 'invoice',
        automountServiceAccountToken: false,
        terminationGracePeriodSeconds: 5,
        containers: [{ name: 'main', image: 'registry.example/automation:1' }],
      },
    },
  },
};

const operatorUser = 'system:serviceaccount:automation-guardrails:automation-guardrails';

describe('a kill while the targets are written 100 times a second', () => {
  it('completes, and nothing is admitted once the fence was proven', async () => {
    await controlPlane.apply([...automation({ namespace }), unpaused]);
    await waitForCondition(controlPlane, { kind: 'awf', ...invoice }, 'Ready');
    await podsRun();

    // Each tool writes one after the other; they race with one another, and with the operator.
    const racing = writes.map(
      ({ resource, name, patch, subresource }) =>
        new Load({
          perSecond: perSecond / writes.length,
          inFlight: 2,
          call: async (index) => {
            const options = subresource === undefined ? {} : { subresource };
            const answer = await admin.merge(resource, { namespace, name }, patch(index), options);
            if (answer.status >= 300) throw new Error(answer.message);
          },
        }),
    );
    const sum = (of: (load: Load) => number): number =>
      racing.reduce((total, load) => total + of(load), 0);
    const ended = (): number => sum((load) => load.ended);
    const starting = new Load({
      perSecond: 10,
      call: async (index) => {
        const pod = {
          metadata: { namespace, name: `by-hand-${index}` },
          spec: {
            serviceAccountName: 'invoice',
            automountServiceAccountToken: false,
            containers: [{ name: 'main', image: 'registry.example/automation:1' }],
          },
        } as KubeObject;
        const answer = await admin.create(resources.pods, pod);
        if (answer.status >= 300) throw new Error(answer.message);
      },
    });
    let atFence = 0;
    try {
      await waitFor('the race to be on', () => ended() > 200 && starting.ended > 5);
      await incident.engage(invoice);
      await incident.reached(invoice, 'Fenced');
      atFence = ended();
      await waitFor('500 more writes', () => ended() > atFence + 500, { timeoutMs: 120_000 });
    } finally {
      await Promise.all([...racing, starting].map((load) => load.stop()));
    }
    console.log(
      `${ended()} writes, ${sum((load) => load.rate).toFixed(0)} of ${perSecond} a second, ${sum((load) => load.failed)} refused; ${starting.ended} pods by hand, ${starting.failed} refused`,
    );
    await incident.reached(invoice, 'Ready');
    await waitFor('the last pod to be gone', async () => {
      return (await listObjects(controlPlane, 'pods', namespace)).length === 0;
    });

    const events = await auditEvents<AuditEvent>(controlPlane);
    const proof = events.find(
      ({ user, objectRef, requestURI, responseStatus }) =>
        user.username === operatorUser &&
        objectRef?.resource === 'killswitches' &&
        objectRef.namespace === namespace &&
        requestURI.includes('dryRun=All') &&
        responseStatus?.message?.includes('automation-guardrails-fence-pods') === true,
    );
    const provenAt = proof?.stageTimestamp ?? '';
    expect(provenAt).not.toBe('');
    // Those of the controllers among them, not only those by hand.
    const asked = await waitFor(
      'the controllers to have asked for pods, too',
      async () => {
        const all = (await auditEvents<AuditEvent>(controlPlane)).filter(
          ({ verb, objectRef, requestReceivedTimestamp }) =>
            verb === 'create' &&
            objectRef?.resource === 'pods' &&
            objectRef.subresource === undefined &&
            objectRef.namespace === namespace &&
            requestReceivedTimestamp > provenAt,
        );
        const isOfController = ({ user }: AuditEvent): boolean =>
          user.username.startsWith('system:serviceaccount:kube-');
        return all.some(isOfController) && all;
      },
      { intervalMs: 1_000 },
    );
    expect(asked.length).toBeGreaterThan(20);
    expect(asked.filter(({ responseStatus }) => (responseStatus?.code ?? 0) < 400)).toEqual([]);
  });

  it('is released with what was asked for last', async () => {
    for (const { resource, name, patch, subresource } of writes) {
      if (subresource === undefined) await admin.merge(resource, { namespace, name }, patch(2));
    }
    await incident.askForRelease(invoice);
    await incident.released(invoice);
    for (const { resource, name, patch, subresource } of writes) {
      const asked = patch(2) as { spec?: { replicas?: number; suspend?: boolean } };
      if (subresource !== undefined) continue;
      const { object } = await admin.get(resource, { namespace, name });
      if (asked.spec?.replicas !== undefined) {
        expect(object.spec?.replicas, name).toBe(asked.spec.replicas);
      }
      if (asked.spec?.suspend !== undefined) expect(object.spec?.suspend, name).toBe(false);
    }
  });
});

async function podsRun(): Promise<void> {
  await waitFor(
    'all pods to run',
    async () => {
      const pods = await listObjects<{ status?: { phase?: string } }>(
        controlPlane,
        'pods',
        namespace,
      );
      return pods.filter(({ status }) => status?.phase === 'Running').length === automationPods + 1;
    },
    { timeoutMs: 120_000 },
  );
}
