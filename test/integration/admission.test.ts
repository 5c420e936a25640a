import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { admissionPolicies, isDeniedBy, probePolicyName } from '../../src/admission/index.ts';
import { annotation, GROUP, label, stoppedSelector } from '../../src/api/names.ts';
import type { KubeObject, Secret } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import { flowControlManifests } from '../../src/install/flow-control.ts';
import { waitFor } from '../control-plane/wait.ts';
import { listObjects } from '../operator/cluster.ts';
import type { Answer, Api, Stored } from './admission/api.ts';
import {
  AdmissionCluster,
  annotationsOf,
  killSwitch,
  name,
  valueOf,
  workflow,
} from './admission/cluster.ts';
import {
  daemonSet,
  deployment,
  job,
  ownersOf,
  pod,
  podSpec,
  replicaSet,
  statefulSet,
  testKinds,
} from './admission/workloads.ts';

const validatingPolicies: Resource = {
  group: 'admissionregistration.k8s.io',
  version: 'v1',
  kind: 'ValidatingAdmissionPolicy',
  plural: 'validatingadmissionpolicies',
  namespaced: false,
};

const { killSwitches, workflows, namespaces, pods, serviceAccounts, deployments } = resources;

let cluster: AdmissionCluster;
let admin: Api;
let operator: Api;
let alice: Api;
let git: Api;
let mallory: Api;

beforeAll(async () => {
  cluster = await AdmissionCluster.start();
  ({ admin, operator, alice, git, mallory } = cluster);
});

afterAll(() => cluster?.stop());

const copies = typeCheckedCopies();

describe('the policies', () => {
  it.each(copies)(
    'are well-typed against the schemas that they match: $metadata.name',
    async (copy) => {
      const { message } = await admin.create(validatingPolicies, copy);
      expect(message).toBe('');
      const checked = await waitFor('the types to be checked', async () => {
        const { object } = await admin.get(validatingPolicies, copy.metadata);
        return object.status?.typeChecking;
      });
      expect(checked.expressionWarnings ?? []).toEqual([]);
      await admin.delete(validatingPolicies, copy.metadata);
    },
  );

  it('are stored as they are written: a GitOps tool needs to know no default to see no difference', async () => {
    const { controlPlane } = cluster;
    await controlPlane.apply(flowControlManifests());
    const manifests = [...admissionPolicies(), ...flowControlManifests()] as Written[];
    const stored = new Map<string, unknown>();
    for (const kind of new Set(manifests.map((manifest) => manifest.kind))) {
      for (const { metadata, spec } of await listObjects<Written>(controlPlane, kind, '')) {
        stored.set(`${kind} ${metadata.name}`, spec);
      }
    }
    for (const { kind, metadata, spec } of manifests) {
      expect(stored.get(`${kind} ${metadata.name}`), metadata.name).toEqual(spec);
    }
  });
});

interface Written extends KubeObject {
  kind: string;
  spec: object;
}

/**
 * The API server checks the types of validations alone. A copy of each policy, bound to nothing,
 * has the conditions as validations too.
 */
function typeCheckedCopies(): (KubeObject & { spec: object })[] {
  return admissionPolicies().flatMap(({ metadata, spec }) => {
    const { matchConstraints, paramKind, variables, matchConditions = [], validations = [] } = spec;
    const conditions = matchConditions.map(({ expression }) => ({ expression }));
    const all = [...conditions, ...validations];
    if (matchConstraints === undefined || all.length === 0) return [];
    return [
      {
        metadata: { name: `types-${metadata.name}` },
        spec: {
          matchConstraints,
          ...(paramKind !== undefined && { paramKind }),
          ...(variables !== undefined && { variables }),
          validations: all,
        },
      },
    ];
  });
}

describe.each(testKinds)('a kill and release of a $resource.kind', (kind) => {
  const { resource, manifest, paused, restore, asked, askedLater, running } = kind;
  const namespace = `cycle-${resource.plural}`;
  const work = { namespace, name: 'work' };
  const owners = kind.field === undefined ? [] : ['git'];
  // A Job's restore value is the only one that its owner can ask for.
  const kept = String(running);
  const keptLater = String(asked);

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    const { message } = await git.apply(resource, manifest({ namespace, value: running }), 'git');
    expect(message).toBe('');
    await cluster.engage(namespace);
  });

  it('is paused by a touch, which keeps what was asked for and leaves the field with its owner', async () => {
    const touched = await cluster.touch(kind, namespace);
    expect(touched.message).toBe('');
    expect(touched.warnings).toEqual([]);
    expect(valueOf(kind, touched)).toBe(paused);
    expect(annotationsOf(touched)).toMatchObject({ [restore]: kept });
    expect(ownersOf(kind, touched.object)).toEqual(owners);
  });

  it('is not changed by another touch', async () => {
    const again = await cluster.touch(kind, namespace, 'another');
    expect(valueOf(kind, again)).toBe(paused);
    expect(annotationsOf(again)).toMatchObject({ [restore]: kept });
  });

  it('stays paused when its owner applies, who is told; what he asks for is kept', async () => {
    const applied = await git.apply(resource, manifest({ namespace, value: asked }), 'git');
    expect(applied.message).toBe('');
    expect(valueOf(kind, applied)).toBe(paused);
    expect(annotationsOf(applied)).toMatchObject({ [restore]: keptLater });
    expect(applied.warnings.join()).toContain('nothing of it starts: kill switch: it pays twice');
    expect(ownersOf(kind, applied.object)).toEqual(owners);
  });

  it('keeps the restore annotation while it is paused, with a valid value', async () => {
    const dropped = await mallory.annotate(resource, work, { [restore]: null });
    expect(dropped.message).toContain('holds what release puts back');
    const nonsense = await mallory.annotate(resource, work, { [restore]: '-1' });
    expect(nonsense.message).toContain('its value has to match');
  });

  it('comes back by a touch alone, once the kill switch is being released', async () => {
    await cluster.touch(kind, namespace);
    await cluster.release(namespace);
    const unrelated = await git.merge(resource, work, { metadata: { labels: { a: 'b' } } });
    expect(valueOf(kind, unrelated)).toBe(paused);
    expect(unrelated.warnings).toEqual([]);
    const own = await git.apply(resource, manifest({ namespace, value: paused }), 'git');
    expect(own.message).toBe('');
    expect(valueOf(kind, own)).toBe(paused);
    const dropped = await operator.annotate(resource, work, { [restore]: null });
    expect(dropped.message).toContain('holds what release puts back');

    const thawed = await cluster.touch(kind, namespace, 'release.1');
    expect(thawed.message).toBe('');
    expect(valueOf(kind, thawed)).toBe(asked);
    expect(annotationsOf(thawed)).toMatchObject({ [restore]: keptLater });
    const cleaned = await operator.annotate(resource, work, {
      [restore]: null,
      [annotation.touch]: null,
    });
    expect(cleaned.message).toBe('');
    expect(valueOf(kind, cleaned)).toBe(asked);
  });

  it('does not conflict with the next apply of its owner', async () => {
    await cluster.finishRelease(namespace);
    const applied = await git.apply(resource, manifest({ namespace, value: askedLater }), 'git');
    expect(applied.message).toBe('');
    expect(valueOf(kind, applied)).toBe(askedLater);
    expect(annotationsOf(applied)).not.toHaveProperty(restore);
  });
});

describe('a paused workload that is replaced without our annotations', () => {
  it.each(testKinds.filter((kind) => kind !== job))(
    'stays paused: $resource.kind',
    async (kind) => {
      const { resource, manifest, paused, restore, running, asked } = kind;
      const namespace = await cluster.guardedNamespace(`replaced-${resource.plural}`);
      await git.create(resource, manifest({ namespace, value: running }));
      await cluster.engage(namespace);
      await cluster.touch(kind, namespace);
      const replaced = await git.replace(resource, manifest({ namespace, value: asked }));
      expect(replaced.message).toBe('');
      expect(valueOf(kind, replaced)).toBe(paused);
      expect(annotationsOf(replaced)).toMatchObject({ [restore]: String(asked) });
      const asleep = await git.replace(resource, manifest({ namespace, value: paused }));
      expect(asleep.message).toContain('holds what release puts back');
    },
  );
});

describe('a workload that is stopped by its owner', () => {
  it.each(testKinds)('gets nothing to restore: $resource.kind', async (kind) => {
    const { resource, manifest, paused, restore } = kind;
    const namespace = await cluster.guardedNamespace(`asleep-${resource.plural}`);
    await git.create(resource, manifest({ namespace, value: paused }));
    await cluster.engage(namespace);
    const touched = await cluster.touch(kind, namespace);
    expect(valueOf(kind, touched)).toBe(paused);
    expect(annotationsOf(touched)).not.toHaveProperty(restore);
    await cluster.release(namespace);
    const thawed = await cluster.touch(kind, namespace, 'release.1');
    expect(valueOf(kind, thawed)).toBe(paused);
  });

  it.each(testKinds)('by saying so in the restore annotation: $resource.kind', async (kind) => {
    const { resource, manifest, paused, restore } = kind;
    const namespace = await cluster.guardedNamespace(`off-${resource.plural}`);
    const work = { namespace, name: 'work' };
    await git.create(resource, manifest({ namespace }));
    await cluster.engage(namespace);
    await cluster.touch(kind, namespace);
    const off = String(paused);
    expect((await git.annotate(resource, work, { [restore]: off })).message).toBe('');
    await cluster.release(namespace);
    const thawed = await cluster.touch(kind, namespace, 'release.1');
    expect(valueOf(kind, thawed)).toBe(paused);
    expect((await operator.annotate(resource, work, { [restore]: null })).message).toBe('');
  });
});

describe('a paused workload whose KillSwitch is gone', () => {
  it('can be cleared by whoever may write it', async () => {
    const { resource, manifest, restore } = deployment;
    const namespace = await cluster.guardedNamespace('left-over');
    await git.create(resource, manifest({ namespace, value: 3 }));
    await cluster.engage(namespace);
    await cluster.touch(deployment, namespace);
    await cluster.release(namespace);
    await cluster.finishRelease(namespace);
    await waitFor('the restore annotation to be free', async () => {
      const { status } = await git.annotate(
        resource,
        { namespace, name: 'work' },
        { [restore]: null },
      );
      return status === 200;
    });
  });
});

describe('Jobs under the fence', () => {
  const namespace = 'jobs-under-fence';
  const { resource, manifest, restore } = job;

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    await git.create(resource, manifest({ namespace, name: 'finished' }));
    await finish('finished');
    await cluster.engage(namespace);
  });

  async function finish(of: string): Promise<void> {
    // Set by hand what the Job controller writes when the pod has succeeded.
    await waitFor('the Job to be complete', async () => {
      const { object } = await admin.get(resource, { namespace, name: of });
      if (object.status?.conditions?.some(({ type }) => type === 'Complete')) return true;
      const listed = await cluster.controlPlane.kubectl([
        'get',
        'pods',
        `-n=${namespace}`,
        `-l=job-name=${of}`,
        '-o=name',
      ]);
      for (const podName of listed.stdout.split('\n').filter((line) => line !== '')) {
        const target = { namespace, name: podName.replace('pod/', '') };
        const terminated = { exitCode: 0, finishedAt: new Date().toISOString() };
        await admin.merge(
          pods,
          target,
          {
            status: {
              phase: 'Succeeded',
              containerStatuses: [
                {
                  name: 'main',
                  image: 'x',
                  imageID: 'x',
                  ready: false,
                  restartCount: 0,
                  state: { terminated },
                },
              ],
            },
          },
          { subresource: 'status' },
        );
      }
      return false;
    });
  }

  it('are born suspended, and not started by the release', async () => {
    const born = await git.create(resource, manifest({ namespace, name: 'born', value: false }));
    expect(born.message).toBe('');
    expect(born.object.spec?.suspend).toBe(true);
    expect(annotationsOf(born)).toMatchObject({ [annotation.bornSuspended]: 'true' });
    expect(annotationsOf(born)).not.toHaveProperty(restore);
  });

  it('that are born suspended stay so when their owner asks again, and stay marked', async () => {
    const target = { namespace, name: 'born' };
    const asked = await git.merge(resource, target, { spec: { suspend: false } });
    expect(asked.object.spec?.suspend).toBe(true);
    expect(annotationsOf(asked)).not.toHaveProperty(restore);
    const dropped = await git.annotate(resource, target, { [annotation.bornSuspended]: null });
    expect(dropped.message).toContain('stays until the release');
  });

  it('bring no value of their own for the release to put back', async () => {
    const object = manifest({ namespace, name: 'sneaky', value: false });
    object.metadata = { ...object.metadata, annotations: { [restore]: 'false' } };
    const sneaky = await git.create(resource, object);
    expect(sneaky.message).toContain('created under a kill switch');
    const later = await git.annotate(resource, { namespace, name: 'born' }, { [restore]: 'false' });
    expect(later.message).toContain('created under a kill switch');
  });

  it('that are created suspended by their owner are not marked', async () => {
    const asleep = await git.create(resource, manifest({ namespace, name: 'asleep', value: true }));
    expect(annotationsOf(asleep)).not.toHaveProperty(annotation.bornSuspended);
  });

  it('that have finished are left alone', async () => {
    const touched = await cluster.touch(job, namespace, 'nonce', 'finished');
    expect(touched.message).toBe('');
    expect(touched.object.spec?.suspend).toBe(false);
    expect(annotationsOf(touched)).not.toHaveProperty(restore);
  });

  it('are frozen whatever status the request claims', async () => {
    const claimed = {
      ...manifest({ namespace, name: 'claimed' }),
      status: { conditions: [{ type: 'Complete', status: 'True' }] },
    };
    const created = await git.create(resource, claimed);
    expect(created.object.spec?.suspend).toBe(true);
  });

  it('that were born suspended are not started by a touch, but by a person after the release', async () => {
    await cluster.release(namespace);
    const touched = await cluster.touch(job, namespace, 'release.1', 'born');
    expect(touched.object.spec?.suspend).toBe(true);
    const target = { namespace, name: 'born' };
    const started = await git.merge(resource, target, { spec: { suspend: false } });
    expect(started.object.spec?.suspend).toBe(false);
  });

  it('are restored like any other at the next kill', async () => {
    await cluster.finishRelease(namespace);
    await cluster.engage(namespace);
    const touched = await cluster.touch(job, namespace, 'nonce', 'born');
    expect(touched.object.spec?.suspend).toBe(true);
    expect(annotationsOf(touched)).toMatchObject({ [restore]: 'false' });
  });
});

describe('a StatefulSet that deletes its volumes when it is scaled down', () => {
  const namespace = 'keeps-volumes';
  const { resource, manifest, restore } = statefulSet;
  const persistentVolumeClaimRetentionPolicy = { whenScaled: 'Delete', whenDeleted: 'Retain' };

  it('keeps its replicas', async () => {
    await cluster.guardedNamespace(namespace);
    await git.create(
      resource,
      manifest({ namespace, value: 3, spec: { persistentVolumeClaimRetentionPolicy } }),
    );
    await git.create(resource, manifest({ namespace, name: 'retains', value: 3 }));
    await cluster.engage(namespace);
    const touched = await cluster.touch(statefulSet, namespace);
    expect(touched.message).toBe('');
    expect(touched.object.spec?.replicas).toBe(3);
    expect(annotationsOf(touched)).not.toHaveProperty(restore);
  });

  it('keeps them whoever writes fewer; more are stored, since they start nothing', async () => {
    const target = { namespace, name: 'work' };
    for (const replicas of [0, 1]) {
      const { message, object } = await git.merge(resource, target, { spec: { replicas } });
      expect(message).toBe('');
      expect(object.spec?.replicas).toBe(3);
    }
    const replaced = await git.replace(
      resource,
      manifest({ namespace, value: 1, spec: { persistentVolumeClaimRetentionPolicy } }),
    );
    expect(replaced.message).toBe('');
    expect(replaced.object.spec?.replicas).toBe(3);
    const more = await git.merge(resource, target, { spec: { replicas: 4 } });
    expect(more.object.spec?.replicas).toBe(4);
  });

  it('is not made in the same write that scales it down', async () => {
    const retaining = { namespace, name: 'retaining' };
    await git.create(resource, manifest({ ...retaining, value: 3, serviceAccountName: 'other' }));
    const spec = { replicas: 1, persistentVolumeClaimRetentionPolicy };
    const template = { spec: { serviceAccountName: name } };
    const { object, message } = await git.merge(resource, retaining, {
      spec: { ...spec, template },
    });
    expect(message).toBe('');
    expect(object.spec?.replicas).toBe(3);
    const back = { spec: { replicas: 1, template: { spec: { serviceAccountName: 'other' } } } };
    const escaped = await git.merge(resource, retaining, back);
    expect(escaped.message).toContain('would delete volumes');
  });

  it.each(['work', 'foreign'])('is not scaled down by /scale: %s', async (of) => {
    const target = { namespace, name: of };
    await git.create(
      resource,
      manifest({ namespace, name: 'foreign', value: 3, serviceAccountName: 'other' }),
    );
    const scale = (replicas: number): Promise<Answer> =>
      admin.merge(resource, target, { spec: { replicas } }, { subresource: 'scale' });
    for (const replicas of [0, 2]) {
      const { status, message } = await scale(replicas);
      expect(status).toBe(403);
      expect(message).toContain('could delete volumes');
      expect(message).toContain('kill switch: it pays twice (engaged by alice)');
    }
    expect((await scale(5)).object.spec?.replicas).toBe(5);
  });

  it('is not made of one that is paused', async () => {
    const target = { namespace, name: 'retains' };
    await cluster.touch(statefulSet, namespace, 'nonce', 'retains');
    const spec = { persistentVolumeClaimRetentionPolicy };
    const alone = await git.merge(resource, target, { spec });
    expect(alone.message).toContain('could delete volumes');
    const withReplicas = await git.merge(resource, target, { spec: { ...spec, replicas: 3 } });
    expect(withReplicas.message).toBe('');
    expect(withReplicas.object.spec?.replicas).toBe(3);
  });

  it('can be scaled down once the kill switch is released', async () => {
    await cluster.release(namespace);
    const target = { namespace, name: 'foreign' };
    const scaled = await admin.merge(
      resource,
      target,
      { spec: { replicas: 1 } },
      { subresource: 'scale' },
    );
    expect(scaled.message).toBe('');
    const work = { namespace, name: 'work' };
    const { object } = await git.merge(resource, work, { spec: { replicas: 1 } });
    expect(object.spec?.replicas).toBe(1);
  });
});

describe('a ReplicaSet that a Deployment owns', () => {
  it('follows it, and is not paused by itself', async () => {
    const namespace = await cluster.guardedNamespace('followers');
    const { object: owner } = await git.create(
      deployments,
      deployment.manifest({ namespace, value: 0 }),
    );
    await cluster.engage(namespace);
    const owned = replicaSet.manifest({ namespace, name: 'owned', value: 2 });
    owned.metadata.ownerReferences = [
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        name: 'work',
        uid: owner.metadata.uid ?? '',
        controller: true,
      },
    ];
    const stored = await git.create(replicaSet.resource, owned, { dryRun: true });
    expect(stored.message).toBe('');
    expect(valueOf(replicaSet, stored)).toBe(2);
    const [reference] = owned.metadata.ownerReferences;
    owned.metadata.ownerReferences = [{ ...reference!, controller: false }];
    const other = await git.create(replicaSet.resource, owned, { dryRun: true });
    expect(valueOf(replicaSet, other)).toBe(0);
  });
});

describe('a DaemonSet with a nodeSelector of its own', () => {
  it('keeps it, and what its owner makes of it meanwhile', async () => {
    const { resource, manifest } = daemonSet;
    const namespace = await cluster.guardedNamespace('selects-nodes');
    const work = manifest({ namespace, value: false });
    const selecting = (nodeSelector: Record<string, string>): KubeObject => {
      const { spec } = structuredClone(work) as Stored;
      const template = spec?.template;
      return {
        ...work,
        spec: { ...spec, template: { ...template, spec: { ...template?.spec, nodeSelector } } },
      } as KubeObject;
    };
    const selectorOf = ({ object }: Answer): Record<string, string> | undefined =>
      object.spec?.template?.spec?.nodeSelector;
    await git.apply(resource, selecting({ disk: 'ssd' }), 'git');
    await cluster.engage(namespace);
    const touched = await cluster.touch(daemonSet, namespace);
    expect(selectorOf(touched)).toEqual({ disk: 'ssd', [stoppedSelector]: 'true' });
    const applied = await git.apply(resource, selecting({ disk: 'nvme' }), 'git');
    expect(selectorOf(applied)).toEqual({ disk: 'nvme', [stoppedSelector]: 'true' });
    await cluster.release(namespace);
    const thawed = await cluster.touch(daemonSet, namespace, 'release.1');
    expect(selectorOf(thawed)).toEqual({ disk: 'nvme' });
  });
});

describe('the fence', () => {
  const namespace = 'fence';
  const refused = 'kill switch: it pays twice (engaged by alice)';

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    await admin.create(pods, pod(namespace, 'left'));
    await admin.create(pods, pod(namespace, 'others', 'other'));
    await cluster.engage(namespace);
  });

  it('refuses pods of the automation, and says why, by whom and how to get out', async () => {
    const { status, message } = await admin.create(pods, pod(namespace, 'new'));
    expect(status).toBe(403);
    expect(message).toContain(refused);
    expect(message).toContain('kubectl guardrails release invoice -n fence --reason TEXT');
    expect(isDeniedBy(message, probePolicyName)).toBe(true);
  });

  it('refuses pods that name the automation by the deprecated field', async () => {
    const spec = { ...podSpec(), serviceAccountName: undefined, serviceAccount: name };
    const bare = { metadata: { namespace, name: 'deprecated' }, spec } as KubeObject;
    expect((await admin.create(pods, bare)).message).toContain(refused);
    const template = { metadata: { labels: { app: 'deprecated' } }, spec };
    const work = deployment.manifest({
      namespace,
      name: 'deprecated',
      value: 3,
      spec: { template },
    });
    const stored = await git.create(deployments, work);
    expect(stored.message).toBe('');
    expect(stored.object.spec?.replicas).toBe(0);
  });

  it('refuses another image and another container in a pod that is left, but no other change', async () => {
    const left = { namespace, name: 'left' };
    const { object } = await admin.get(pods, left);
    const [container] = object.spec?.containers ?? [];
    const image = await admin.merge(pods, left, {
      spec: { containers: [{ ...container, image: 'registry.example/other:1' }] },
    });
    expect(image.message).toContain(refused);
    const ephemeral = await admin.merge(
      pods,
      left,
      { spec: { ephemeralContainers: [{ name: 'debug', image: 'registry.example/debug:1' }] } },
      { subresource: 'ephemeralcontainers' },
    );
    expect(ephemeral.message).toContain(refused);
    const labelled = await admin.merge(pods, left, { metadata: { labels: { a: 'b' } } });
    expect(labelled.message).toBe('');
  });

  it('refuses Secrets that ask for a token of the automation', async () => {
    const secret = (account: string, type = 'kubernetes.io/service-account-token'): Secret => ({
      metadata: {
        namespace,
        name: 'legacy',
        annotations: { 'kubernetes.io/service-account.name': account },
      },
      type,
    });
    const { message } = await admin.create(resources.secrets, secret(name), { dryRun: true });
    expect(message).toContain(refused);
    for (const harmless of [secret('default'), secret(name, 'Opaque')]) {
      const answer = await admin.create(resources.secrets, harmless, { dryRun: true });
      expect(answer.message).toBe('');
    }
  });

  it('refuses tokens of the automation', async () => {
    const own = { metadata: { namespace, name } };
    const token = await admin.create(serviceAccounts, own, { subresource: 'token' });
    expect(token.message).toContain(refused);
    const other = { metadata: { namespace, name: 'other' } };
    const options = { subresource: 'token', dryRun: true };
    expect((await admin.create(serviceAccounts, other, options)).message).toBe('');
  });

  it('lets everything of others be', async () => {
    expect((await admin.create(pods, pod(namespace, 'new-other', 'other'))).message).toBe('');
    for (const { resource, manifest, read, running } of testKinds) {
      const foreign = manifest({ namespace, serviceAccountName: 'other', value: running });
      const stored = await git.create(resource, foreign);
      expect(stored.message).toBe('');
      expect(read(stored.object)).toBe(running);
      expect(stored.warnings).toEqual([]);
      expect(Object.keys(annotationsOf(stored)).filter((key) => key.startsWith(GROUP))).toEqual([]);
    }
  });

  it('holds for workloads that are created, and deleted and created again', async () => {
    for (const { resource, manifest, read, running, paused } of testKinds) {
      for (let round = 0; round < 2; round++) {
        const work = manifest({ namespace, name: `new-${resource.plural}`, value: running });
        const stored = await git.create(resource, work);
        expect(stored.message).toBe('');
        expect(read(stored.object)).toBe(paused);
        await waitFor('the workload to be gone', async () => {
          const { status } = await git.delete(resource, { ...work.metadata });
          return status === 404;
        });
      }
    }
  });

  it('is in force in guarded namespaces alone', async () => {
    const unguarded = await cluster.namespace('unguarded');
    const created = await alice.create(killSwitches, killSwitch(unguarded));
    expect(created.object.spec?.engagedBy).toBe('alice');
    expect((await admin.create(pods, pod(unguarded, 'new'))).message).toBe('');
    const work = await git.create(
      deployments,
      deployment.manifest({ namespace: unguarded, value: 3 }),
    );
    expect(work.object.spec?.replicas).toBe(3);
    expect((await cluster.probe(unguarded)).status).toBe(200);
  });

  it('never stands in kube-system, whatever its labels', async () => {
    const system = { name: 'kube-system' };
    await admin.merge(namespaces, system, {
      metadata: { labels: { [label.environment]: 'prod' } },
    });
    await cluster.namespace('kube-system');
    await alice.create(killSwitches, killSwitch('kube-system'));
    expect((await cluster.probe('kube-system')).status).toBe(200);
    const created = await admin.create(pods, pod('kube-system', 'new'), { dryRun: true });
    expect(created.message).toBe('');
  });
});

describe('the probe', () => {
  const namespace = 'probe';

  it('is answered by the name of the policy that refuses pods, and nothing is stored', async () => {
    await cluster.guardedNamespace(namespace);
    await cluster.engage(namespace);
    const before = await admin.get(killSwitches, { namespace, name });
    const { status, message } = await cluster.probe(namespace);
    expect(status).toBe(403);
    expect(isDeniedBy(message, probePolicyName)).toBe(true);
    const after = await admin.get(killSwitches, { namespace, name });
    expect(after.object.metadata.resourceVersion).toBe(before.object.metadata.resourceVersion);
  });

  it('is allowed once the fence is lifted', async () => {
    await cluster.release(namespace);
    const { status, object } = await cluster.probe(namespace);
    expect(status).toBe(200);
    expect(object.metadata.annotations).toHaveProperty([annotation.probe]);
    const stored = await admin.get(killSwitches, { namespace, name });
    expect(annotationsOf(stored)).not.toHaveProperty(annotation.probe);
  });

  it('is never stored, fence or no fence', async () => {
    const mark = { [annotation.probe]: '1' };
    const target = { namespace, name };
    expect((await admin.annotate(killSwitches, target, mark)).message).toContain('dry runs only');
    const marked = killSwitch('default');
    marked.metadata.annotations = mark;
    expect((await admin.create(killSwitches, marked)).status).toBe(403);
    await admin.create(workflows, workflow(namespace));
    expect((await admin.annotate(workflows, target, mark)).message).toContain('dry runs only');
    expect((await cluster.probeAnnotation(namespace)).status).toBe(200);
  });
});
