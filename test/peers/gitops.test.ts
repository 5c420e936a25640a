import { dump } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { label } from '../../src/api/names.ts';
import { isTrue } from '../../src/api/conditions.ts';
import type { Condition, KubeObject } from '../../src/api/objects.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation } from '../operator/automation.ts';
import { getObject, guardrailsInForce, kubectlOk, listObjects } from '../operator/cluster.ts';
import { Incident } from '../operator/incident.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';
import { Witness, type Pod } from '../operator/witness.ts';
import { Api } from '../integration/admission/api.ts';
import { ArgoCd } from './argocd.ts';
import { Flux } from './flux.ts';
import { writeAutomation, writeGuardrails } from './guide.ts';
import { findArgoCd, findFlux } from './programs.ts';
import { Watch } from './watch.ts';

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
let first: Pushed;

beforeAll(async () => {
  const log = (line: string): void => console.log(line);
  controlPlane = await startControlPlane({ controllerManagerQps: 200 });
  fluxCd = await Flux.start(controlPlane, await findFlux(log));
  argoCd = await ArgoCd.start(controlPlane, await findArgoCd(log));
  admin = Api.asAdmin(controlPlane);
}, 900_000);

afterAll(async () => {
  await Promise.all([witness?.stop(), admin?.close(), fluxCd?.stop(), argoCd?.stop()]);
  await Promise.all(operators.map((operator) => operator.stop()));
  await controlPlane?.stop();
});

/** What the tools have to come to: Argo CD to a commit, Flux to the revision of an artifact. */
interface Pushed {
  commit: string;
  artifact: string;
}

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

/** To all of them. */
async function push(revision: Revision): Promise<Pushed> {
  for (const namespace of argoNamespaces) {
    await writeAutomation(argoCd.repository, namespace, inGit(namespace, revision));
  }
  const guarded = {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: flux, labels: { [label.environment]: 'prod' } },
  };
  await writeAutomation(fluxCd.repository, flux, [guarded, ...inGit(flux, revision)]);
  const artifact = `main@sha1:${Object.values(revisions).indexOf(revision) + 1}`;
  await fluxCd.publish(artifact);
  return { commit: await argoCd.push(), artifact };
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

/** An Application that has come to what is in Git, or, paused, to what the kill leaves of it. */
async function shows(namespace: string, sync: string, health: string): Promise<void> {
  await waitFor(
    `Application ${namespace} to be ${sync} and ${health}`,
    async () => {
      const {
        sync: synced,
        health: healthy,
        resources,
        conditions,
      } = await argoCd.status(namespace);
      if (synced?.status === sync && healthy?.status === health) return true;
      throw new Error(JSON.stringify({ synced: synced?.status, healthy, resources, conditions }));
    },
    { timeoutMs: 600_000, intervalMs: 500 },
  );
}

/** A Kustomization whose objects are all as its health checks want them, at a revision. */
async function isReady(kustomization: string, artifact: string): Promise<void> {
  await waitFor(
    `Kustomization ${kustomization} to be ready at ${artifact}`,
    async () => {
      const { conditions, lastAppliedRevision } = await fluxCd.status(kustomization);
      if (isTrue(conditions, 'Ready') && lastAppliedRevision === artifact) return true;
      throw new Error(JSON.stringify({ lastAppliedRevision, conditions }));
    },
    { timeoutMs: 600_000, intervalMs: 500 },
  );
}

async function workload(kind: string, namespace: string, component: string): Promise<Workload> {
  const found = await getObject<Workload>(controlPlane, kind, `${name}-${component}`, namespace);
  if (found === undefined) throw new Error(`there is no ${kind} ${component} in ${namespace}`);
  return found;
}

describe('Flux and Argo CD', () => {
  it('install the operator, and an automation each once it is there', async () => {
    toolLogs();
    await writeGuardrails(fluxCd.repository);
    first = await push(revisions.first);
    await fluxCd.follow('automation-guardrails');
    await fluxCd.follow('finance', flux);
    await isReady('automation-guardrails', first.artifact);
    const kubeconfigPath = await guardrailsInForce(controlPlane);
    operators = [await startOperator({ kubeconfigPath }), await startOperator({ kubeconfigPath })];
    incident = await Incident.handledBy(controlPlane, admin);
    witness = await Witness.of(controlPlane, name);

    await argoCd.follow('finance', argoClient);
    await argoCd.follow('finance', argoServer, {
      annotations: { 'argocd.argoproj.io/compare-options': 'ServerSideDiff=true' },
      syncOptions: ['ServerSideApply=true'],
    });
    for (const namespace of namespaces) await runs(namespace, revisions.first);
    for (const namespace of argoNamespaces) await shows(namespace, 'Synced', 'Healthy');
    await isReady(flux, first.artifact);
    const policy = await getObject<KubeObject & { status?: { conditions?: Condition[] } }>(
      controlPlane,
      'guardrailpolicy',
      'default',
      '',
    );
    expect(isTrue(policy?.status?.conditions, 'Ready')).toBe(true);
  });

  it('start no pod of it in more than five minutes of a kill, whatever they and their users do', async () => {
    toolLogs();
    for (const namespace of namespaces) await incident.engage({ namespace, name });
    for (const namespace of namespaces) await incident.reached({ namespace, name }, 'Ready');
    const watch = await Watch.start({ fluxCd, argoCd, witness }, { flux, argo: argoNamespaces });
    await shows(argoClient, 'OutOfSync', 'Suspended');
    await shows(argoServer, 'Synced', 'Suspended');

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
    const tries = await watch.tries();
    for (const one of tries) console.log(JSON.stringify(one));
    expect([...watch.offences]).toEqual([]);
    for (const { who, warnings, failed } of tries) {
      expect(warnings, who).toBeGreaterThan(0);
      expect(failed.filter((message) => message.includes('conflict'))).toEqual([]);
    }
    await isReady(flux, artifact);
    await shows(argoClient, 'OutOfSync', 'Suspended');
    await shows(argoServer, 'Synced', 'Suspended');
  });

  it('run the latest revision after the release, and nobody has to ask them to', async () => {
    toolLogs();
    for (const namespace of namespaces) await incident.askForRelease({ namespace, name });
    for (const namespace of namespaces) await incident.released({ namespace, name });
    for (const namespace of namespaces) {
      expect(witness.createdWhileFenced(namespace)).toEqual([]);
    }
    for (const namespace of namespaces) await runs(namespace, revisions.third);
    for (const namespace of argoNamespaces) await shows(namespace, 'Synced', 'Healthy');
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
    for (const namespace of argoNamespaces) await shows(namespace, 'Synced', 'Healthy');
  });
});
