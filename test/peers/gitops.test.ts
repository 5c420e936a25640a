import { dump } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { label } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation } from '../operator/automation.ts';
import {
  getObject,
  installGuardrails,
  kubectlOk,
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

/** After the last thing that anybody does: what resets Argo CD's back-off must not end the watch early. */
const WATCHED_MS = 310_000;
/**
 * Heals of one revision that have to be seen: Argo CD waits 2, 6, 18, 54 and 162 s between them, so
 * whoever only wins the first few loses later.
 */
const HEALS = 6;

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
  // Pushed after the release.
  fourth: { image: 'registry.example/automation:2', deployment: 2, statefulSet: 2, note: 'fourth' },
} as const;
type Revision = (typeof revisions)[keyof typeof revisions];

let controlPlane: ControlPlane;
let operators: OperatorProcess[] = [];
let admin: Api;
let incident: Incident;
let witness: Witness;
let fluxCd: Flux;
let argoCd: ArgoCd;
let first: { commit: string };

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

/** To all of them. @returns the commit that Argo CD has to come to, and the revision that Flux has to */
async function push(revision: Revision): Promise<{ commit: string; artifact: string }> {
  let commit = '';
  for (const namespace of argoNamespaces) {
    commit = await argoCd.push(namespace, inGit(namespace, revision));
  }
  const artifact = `main@sha1:${Object.values(revisions).indexOf(revision) + 1}`;
  await fluxCd.publish(flux, artifact, inGit(flux, revision));
  return { commit, artifact };
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
    { timeoutMs: 300_000, intervalMs: 500 },
  );
}

async function workload(kind: string, namespace: string, component: string): Promise<Workload> {
  const found = await getObject<Workload>(controlPlane, kind, `${name}-${component}`, namespace);
  if (found === undefined) throw new Error(`there is no ${kind} ${component} in ${namespace}`);
  return found;
}

/** What the tools did while everything was to stay stopped. */
class Watch {
  /** Pods that ran or were created. */
  readonly offences = new Set<string>();
  /** Automated syncs of Argo CD by Application, as `revision, heal`. */
  readonly syncs = new Map<string, Set<string>>(argoNamespaces.map((one) => [one, new Set()]));
  reconciles = 0;

  async look(): Promise<void> {
    for (const namespace of namespaces) {
      for (const offence of await witness.offenders(namespace)) {
        this.offences.add(`${namespace}: ${offence}`);
      }
    }
    for (const [application, seen] of this.syncs) {
      const { operationState: { operation, syncResult } = {} } = await argoCd.status(application);
      if (operation?.initiatedBy?.automated !== true || syncResult === undefined) continue;
      seen.add(`${syncResult.revision}, ${operation.sync?.autoHealAttemptsCount ?? 0}`);
    }
  }

  /** Has Flux reconcile, and looks until it has. */
  async reconcile(): Promise<void> {
    const mark = await fluxCd.reconcile(flux);
    await this.until(
      'Flux to reconcile on demand',
      async () => (await fluxCd.status(flux)).lastHandledReconcileAt === mark,
    );
    this.reconciles += 1;
  }

  /** Looks until something has happened. */
  until(
    what: string,
    happened: () => boolean | Promise<boolean>,
    intervalMs = 500,
  ): Promise<boolean> {
    return waitFor(
      what,
      async () => {
        await this.look();
        return happened();
      },
      { timeoutMs: 600_000, intervalMs },
    );
  }

  /** How often Argo CD has healed one commit; its own count. */
  heals(application: string, commit: string): number {
    const seen = [...(this.syncs.get(application) ?? [])].map((sync) => sync.split(', '));
    return Math.max(0, ...seen.flatMap(([of, count]) => (of === commit ? [Number(count)] : [])));
  }

  summary(): string {
    const syncs = [...this.syncs].map(([application, seen]) => `${application} ${seen.size}`);
    return `Automated syncs: ${syncs.join(', ')}; reconciles of Flux on demand: ${this.reconciles}.`;
  }
}

describe('Flux and Argo CD', () => {
  it('bring up an automation each', async () => {
    toolLogs();
    first = await push(revisions.first);
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
    const watch = new Watch();

    // Argo CD heals by itself, Flux when asked.
    await watch.until('Argo CD to heal twice', () => watch.heals(argoClient, first.commit) >= 2);
    await watch.reconcile();

    await push(revisions.second);
    for (const namespace of namespaces) await noteIs(namespace, revisions.second.note);
    await watch.reconcile();
    for (const namespace of namespaces) {
      const deployment = await workload('deployment', namespace, 'poster');
      expect(deployment.spec.replicas).toBe(0);
      expect(deployment).toMatchObject({
        spec: { template: { spec: { containers: [{ image: revisions.second.image }] } } },
      });
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
        await watch.reconcile();
      }
    }

    const { commit, artifact } = await push(revisions.third);
    for (const namespace of argoNamespaces) {
      await watch.until(
        `Argo CD to compare ${namespace} with the third revision`,
        async () => (await argoCd.status(namespace)).sync?.revision === commit,
      );
    }
    const begun = performance.now();
    await watch.until(
      `five minutes to pass, and Argo CD to heal ${HEALS} times`,
      async () => {
        await watch.reconcile();
        return performance.now() - begun > WATCHED_MS && watch.heals(argoClient, commit) >= HEALS;
      },
      5000,
    );
    console.log(watch.summary());
    expect([...watch.offences]).toEqual([]);
    expect((await fluxCd.status(flux)).lastAppliedRevision).toContain(artifact);
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
  it('own what they apply: an apply of theirs without force, with other numbers, meets no conflict', async () => {
    for (const [namespace, manager] of [
      [flux, 'kustomize-controller'],
      [argoServer, 'argocd-controller'],
    ] as const) {
      const kinds = ['Deployment', 'StatefulSet', 'CronJob'];
      const manifests = (inGit(namespace, revisions.fourth) as Workload[]).filter(({ kind = '' }) =>
        kinds.includes(kind),
      );
      await kubectlOk(
        controlPlane,
        ['apply', '--server-side', `--field-manager=${manager}`, '--dry-run=server', '-f', '-'],
        { input: manifests.map((one) => dump(one)).join('---\n') },
      );
    }
  });

  it('bring up the next revision', async () => {
    toolLogs();
    await push(revisions.fourth);
    for (const namespace of namespaces) await runs(namespace, revisions.fourth);
    for (const namespace of argoNamespaces) await isSynced(namespace);
  });
});
