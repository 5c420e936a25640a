import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { label } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation } from '../operator/automation.ts';
import {
  getObject,
  installGuardrails,
  listObjects,
  waitForCondition,
} from '../operator/cluster.ts';
import { Incident } from '../operator/incident.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';
import { Witness, type Pod } from '../operator/witness.ts';
import { Api } from '../integration/admission/api.ts';
import { ArgoCd } from './argocd.ts';
import { Flux } from './flux.ts';
import { findArgoCd, findFlux } from './programs.ts';

interface Workload extends KubeObject {
  spec: { replicas?: number; suspend?: boolean; schedule?: string };
}

/** Long enough for every back-off of Argo CD's to have run out once: its longest is 5 minutes. */
const WATCHED_MS = 310_000;

const name = 'invoice';
/** One automation each, named after how it is applied. */
const flux = 'flux';
/** Argo CD as it comes. */
const argoClient = 'argo-client';
/** Stays `Synced` at 0 replicas: its diff is computed by a dry run, and kept. */
const argoServer = 'argo-server';
const argoNamespaces = [argoClient, argoServer] as const;
const namespaces = [flux, ...argoNamespaces] as const;

/** What Git holds: image and replicas differ from one revision to the next. */
const revisions = {
  first: { image: 'registry.example/automation:1', deployment: 3, statefulSet: 2, note: 'first' },
  second: { image: 'registry.example/automation:2', deployment: 5, statefulSet: 3, note: 'second' },
  // Nothing but replicas: all that it changes is what a kill hides.
  third: { image: 'registry.example/automation:2', deployment: 4, statefulSet: 1, note: 'second' },
} as const;
type Revision = (typeof revisions)[keyof typeof revisions];

let controlPlane: ControlPlane;
let operators: OperatorProcess[] = [];
let admin: Api;
let incident: Incident;
let witness: Witness;
let fluxCd: Flux;
let argoCd: ArgoCd;

beforeAll(async () => {
  const log = (line: string): void => console.log(line);
  controlPlane = await startControlPlane({ controllerManagerQps: 200 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  fluxCd = await Flux.start(controlPlane, await findFlux(log));
  argoCd = await ArgoCd.start(controlPlane, await findArgoCd(log));
  operators = [await startOperator({ kubeconfigPath }), await startOperator({ kubeconfigPath })];
  admin = Api.asAdmin(controlPlane);
  incident = await Incident.handledBy(controlPlane, admin);
  witness = await Witness.of(controlPlane, name);
  for (const namespace of namespaces) {
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
      },
    ]);
  }
}, 900_000);

afterAll(async () => {
  await Promise.all([witness?.stop(), admin?.close(), fluxCd?.stop(), argoCd?.stop()]);
  await Promise.all(operators.map((operator) => operator.stop()));
  await controlPlane?.stop();
});

/** Workflow, identity and workloads, and a ConfigMap that no kill touches. */
function inGit(namespace: string, revision: Revision): object[] {
  const kinds = ['AutomationIdentity', 'Workflow', 'Deployment', 'StatefulSet', 'CronJob'];
  const manifests = automation({ namespace, name }) as {
    kind: string;
    spec: {
      replicas?: number;
      schedule?: string;
      targets?: { kind: string }[];
      template?: { spec: { containers: { image: string }[] } };
    };
  }[];
  const kept = manifests.filter(({ kind }) => kinds.includes(kind));
  for (const { kind, spec } of kept) {
    if (kind === 'Workflow') {
      spec.targets = spec.targets?.filter((target) => kinds.includes(target.kind)) ?? [];
    }
    if (kind === 'Deployment') spec.replicas = revision.deployment;
    if (kind === 'StatefulSet') spec.replicas = revision.statefulSet;
    if (kind === 'CronJob') spec.schedule = '* * * * *';
    for (const container of spec.template?.spec.containers ?? []) container.image = revision.image;
  }
  return [
    ...kept,
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'note', namespace },
      data: { revision: revision.note },
    },
  ];
}

async function push(revision: Revision): Promise<void> {
  for (const namespace of argoNamespaces) await argoCd.push(namespace, inGit(namespace, revision));
  const id = `main@sha1:${Object.values(revisions).indexOf(revision) + 1}`;
  await fluxCd.publish(flux, id, inGit(flux, revision));
}

function toolLogs(): void {
  onTestFailed(() => console.log(`${fluxCd.logTail()}\n${argoCd.logTail()}`));
}

/** The pods of Deployment and StatefulSet run as a revision says, and no other one does. */
async function runs(namespace: string, revision: Revision): Promise<void> {
  const count = (all: Pod[], component: string): number =>
    all.filter(
      ({ metadata, spec, status }) =>
        metadata.labels?.['component'] === component &&
        spec.containers[0]?.image === revision.image &&
        status?.phase === 'Running',
    ).length;
  await waitFor(
    `${namespace} to run ${revision.deployment} and ${revision.statefulSet} pods of ${revision.image}`,
    async () => {
      const all = (await listObjects<Pod>(controlPlane, 'pods', namespace)).filter(
        ({ metadata }) =>
          metadata.deletionTimestamp === undefined && metadata.labels?.['component'] !== 'import',
      );
      return (
        all.length === revision.deployment + revision.statefulSet &&
        count(all, 'poster') === revision.deployment &&
        count(all, 'store') === revision.statefulSet
      );
    },
    { timeoutMs: 120_000, intervalMs: 500 },
  );
}

/** The part of a revision that no kill touches has arrived. */
async function noteIs(namespace: string, note: string): Promise<void> {
  await waitFor(
    `the ConfigMap of ${namespace} to be of the ${note} revision`,
    async () => {
      const configMap = await getObject<{ data?: Record<string, string> }>(
        controlPlane,
        'configmap',
        'note',
        namespace,
      );
      return configMap?.data?.['revision'] === note;
    },
    { timeoutMs: 120_000, intervalMs: 500 },
  );
}

async function isSynced(namespace: string): Promise<void> {
  await waitFor(
    `Application ${namespace} to be synced and healthy`,
    async () => {
      const { sync, health } = await argoCd.status(namespace);
      if (sync?.status === 'Synced' && health?.status === 'Healthy') return true;
      throw new Error(JSON.stringify({ sync: sync?.status, health }));
    },
    { timeoutMs: 180_000, intervalMs: 500 },
  );
}

async function workload(kind: string, namespace: string, component: string): Promise<Workload> {
  const found = await getObject<Workload>(controlPlane, kind, `${name}-${component}`, namespace);
  if (found === undefined) throw new Error(`there is no ${kind} ${component} in ${namespace}`);
  return found;
}

async function nothingRuns(namespace: string): Promise<void> {
  expect(await witness.offenders(namespace)).toEqual([]);
}

describe('Flux and Argo CD', () => {
  it('bring up an automation each', async () => {
    toolLogs();
    await push(revisions.first);
    await fluxCd.follow(flux);
    await argoCd.follow(argoClient);
    await argoCd.follow(argoServer, {
      annotations: { 'argocd.argoproj.io/compare-options': 'ServerSideDiff=true' },
      syncOptions: ['ServerSideApply=true'],
    });
    for (const namespace of namespaces) await runs(namespace, revisions.first);
    for (const namespace of argoNamespaces) await isSynced(namespace);
    for (const namespace of namespaces) {
      await waitForCondition(controlPlane, { kind: 'awf', name, namespace }, 'Ready');
    }
  });

  it('start no pod of it in more than five minutes of a kill, whatever they and their users do', async () => {
    toolLogs();
    for (const namespace of namespaces) await incident.engage({ namespace, name });
    for (const namespace of namespaces) await incident.reached({ namespace, name }, 'Ready');
    const begun = performance.now();
    const syncs = new Set<string>();
    const look = async (): Promise<void> => {
      for (const namespace of namespaces) await nothingRuns(namespace);
      const { operationState } = await argoCd.status(argoClient);
      if (operationState?.operation?.initiatedBy?.automated === true) {
        syncs.add(operationState.startedAt ?? '');
      }
    };
    const handled = async (): Promise<void> => {
      const mark = await fluxCd.reconcile(flux);
      await waitFor(
        'Flux to reconcile on demand',
        async () => {
          await look();
          return (await fluxCd.status(flux)).lastHandledReconcileAt === mark;
        },
        { timeoutMs: 60_000, intervalMs: 500 },
      );
    };

    // Argo CD heals by itself, Flux when asked.
    await waitFor(
      'Argo CD to heal twice',
      async () => {
        await look();
        return syncs.size >= 2;
      },
      { timeoutMs: 120_000, intervalMs: 200 },
    );
    await handled();
    for (const namespace of namespaces) await nothingRuns(namespace);

    await push(revisions.second);
    for (const namespace of namespaces) await noteIs(namespace, revisions.second.note);
    await handled();
    for (const namespace of namespaces) {
      const deployment = await workload('deployment', namespace, 'poster');
      expect(deployment.spec.replicas).toBe(0);
      expect(deployment).toMatchObject({
        spec: { template: { spec: { containers: [{ image: revisions.second.image }] } } },
      });
      await nothingRuns(namespace);
    }

    for (const namespace of argoNamespaces) {
      for (const force of [false, true]) {
        const before = await workload('deployment', namespace, 'poster');
        const { phase, message } = await argoCd.sync(namespace, ['Replace=true'], force);
        expect(phase, message).toBe('Succeeded');
        const after = await workload('deployment', namespace, 'poster');
        expect(after.metadata.uid === before.metadata.uid).toBe(!force);
        expect(after.spec.replicas).toBe(0);
        expect((await workload('statefulset', namespace, 'store')).spec.replicas).toBe(0);
        expect((await workload('cronjob', namespace, 'import')).spec.suspend).toBe(true);
        await handled();
      }
    }

    await push(revisions.third);
    await waitFor(
      'five minutes to pass',
      async () => {
        await handled();
        return performance.now() - begun > WATCHED_MS;
      },
      { timeoutMs: 600_000, intervalMs: 5000 },
    );
    for (const namespace of namespaces) await nothingRuns(namespace);
    expect((await fluxCd.status(flux)).lastAppliedRevision).toContain('main@sha1:3');
  });

  it('run the latest revision after the release, and nobody has to ask them to', async () => {
    toolLogs();
    for (const namespace of namespaces) await incident.askForRelease({ namespace, name });
    for (const namespace of namespaces) await incident.released({ namespace, name });
    for (const namespace of namespaces) {
      expect(witness.createdWhileFenced(namespace)).toEqual([]);
    }
    for (const namespace of namespaces) await runs(namespace, revisions.third);
    for (const namespace of argoNamespaces) await isSynced(namespace);
    for (const namespace of namespaces) {
      expect((await workload('cronjob', namespace, 'import')).spec.suspend).not.toBe(true);
    }
  });
});
