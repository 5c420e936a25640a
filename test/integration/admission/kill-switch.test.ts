import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { annotationProbePolicyName, isDeniedBy } from '../../../src/admission/index.ts';
import { policyName } from '../../../src/admission/policies.ts';
import { wholeNamespaceName, type KillSwitch } from '../../../src/api/kill-switch.ts';
import { annotation, label, PROBE_NAMESPACE } from '../../../src/api/names.ts';
import type { KubeObject } from '../../../src/api/objects.ts';
import { resources } from '../../../src/api/resources.ts';
import { waitFor } from '../../control-plane/wait.ts';
import type { Answer, Api } from './api.ts';
import {
  AdmissionCluster,
  annotationsOf,
  earlier,
  groupsAlone,
  identity,
  killSwitch,
  name,
  operatorUser,
  pipelineUser,
  valueOf,
  workflow,
} from './cluster.ts';
import { deployment, pod, testKinds } from './workloads.ts';

const {
  automationIdentities,
  bindings,
  killSwitches,
  workflows,
  namespaces,
  pods,
  serviceAccounts,
  deployments,
} = resources;

let cluster: AdmissionCluster;
let admin: Api;
let operator: Api;
let alice: Api;
let bob: Api;
let git: Api;
let mallory: Api;
let carol: Api;

beforeAll(async () => {
  cluster = await AdmissionCluster.start();
  ({ admin, operator, alice, bob, git, mallory, carol } = cluster);
});

afterAll(() => cluster?.stop());

/** Annotations but the one that says who changed the spec. */
function unmarked({ metadata }: KubeObject): Record<string, string> {
  const {
    [annotation.changedBy]: _,
    [annotation.changedByGroups]: __,
    ...others
  } = metadata.annotations ?? {};
  return others;
}

describe('engaging a kill switch', () => {
  const namespace = 'engaging';
  const target = { namespace, name };

  beforeAll(() => cluster.guardedNamespace(namespace));

  it('is stamped with the authenticated user, whatever the request says', async () => {
    const forged = killSwitch(namespace, { engagedBy: 'mallory' });
    const { object, message } = await alice.create(killSwitches, forged);
    expect(message).toBe('');
    expect(object.spec?.engagedBy).toBe('alice');
  });

  it('can be passed on by the operator, who latches an annotation', async () => {
    const other = await cluster.guardedNamespace('latched');
    const latched = await operator.create(
      killSwitches,
      killSwitch(other, { engagedBy: 'somebody' }),
    );
    expect(latched.object.spec?.engagedBy).toBe('somebody');
    const own = await operator.create(killSwitches, killSwitch('default'));
    expect(own.object.spec?.engagedBy).toBe(operatorUser);
  });

  it('is refused under another name than the automation', async () => {
    const other = killSwitch(namespace);
    other.metadata.name = 'other';
    const { message } = await alice.create(killSwitches, other);
    expect(message).toContain('the name of a KillSwitch must be the name of the workflow');
    const generated = { metadata: { namespace, name: '', generateName: 'invoice-' } };
    const { status } = await alice.create(killSwitches, { ...killSwitch(namespace), ...generated });
    expect(status).toBe(422);
  });

  it('is refused half-way released', async () => {
    for (const metadata of [
      { labels: { [label.releasing]: 'true' } },
      { annotations: { [annotation.release]: 'fixed' } },
      { annotations: { [annotation.releasedBy]: 'bob' } },
    ]) {
      const half = killSwitch('latched');
      half.metadata = { namespace: 'latched', name: 'half', ...metadata };
      half.spec.workflow = 'half';
      const { status, message } = await alice.create(killSwitches, half);
      expect(status).toBe(403);
      expect(message).toContain('a new kill switch is engaged');
    }
  });

  it.each([
    ['a finalizer', { finalizers: ['example.com/stays'] }],
    [
      'an owner',
      { ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'gone', uid: 'gone' }] },
    ],
  ])('is refused with %s', async (_, metadata) => {
    const { metadata: own, spec } = killSwitch(namespace);
    const planted = { metadata: { ...own, ...metadata }, spec };
    const { message } = await alice.create(killSwitches, planted, { dryRun: true });
    expect(message).toContain('a kill switch has no finalizers and no owners');
  });

  const filler = { 'example.com/note': 'x'.repeat(40_000) };

  it.each([
    ['annotations', { annotations: filler }],
    [
      'labels',
      {
        labels: Object.fromEntries(
          Array.from({ length: 65 }, (_, n) => [`example.com/l${n}`, 'x']),
        ),
      },
    ],
  ])('leaves room for what its release needs: %s', async (_, metadata) => {
    const { metadata: own, spec } = killSwitch('latched', { workflow: 'full' });
    const full = { metadata: { ...own, name: 'full', ...metadata }, spec };
    const created = await alice.create(killSwitches, full, { dryRun: true });
    expect(created.message).toContain('would leave no room for what its release needs');
    const filled = await mallory.merge(killSwitches, target, { metadata });
    expect(filled.message).toContain('would leave no room for what its release needs');
  });

  it('is refused in the namespace of the standing probe', async () => {
    await cluster.guardedNamespace(PROBE_NAMESPACE);
    const { message } = await alice.create(killSwitches, killSwitch(PROBE_NAMESPACE));
    expect(message).toContain('the standing probe has the namespace');
    const own = await operator.create(killSwitches, killSwitch(PROBE_NAMESPACE), { dryRun: true });
    expect(own.message).toBe('');
  });

  it('has a status that nobody but the operator writes', async () => {
    const conditions = [
      {
        type: 'Effective',
        status: 'True',
        reason: 'Forged',
        message: '',
        lastTransitionTime: '2026-01-01T00:00:00Z',
      },
    ];
    const forged = { status: { conditions } };
    const options = { subresource: 'status' };
    const { message } = await mallory.merge(killSwitches, target, forged, options);
    expect(message).toContain('the status is written by the operator alone');
    const told = await operator.merge(killSwitches, target, forged, { ...options, dryRun: true });
    expect(told.message).toBe('');
  });

  it('takes no finalizer later on, which would keep it in the way of the next kill', async () => {
    const { message } = await mallory.merge(killSwitches, target, {
      metadata: { finalizers: ['example.com/stays'] },
    });
    expect(message).toContain('a kill switch has no finalizers');
  });

  it('keeps its namespace guarded', async () => {
    const unguard = { metadata: { labels: { [label.environment]: null } } };
    const { message } = await admin.merge(namespaces, { name: namespace }, unguard);
    expect(message).toContain('is engaged in this namespace');
    const other = { metadata: { labels: { team: 'payments' } } };
    expect((await admin.merge(namespaces, { name: namespace }, other)).message).toBe('');
    const free = await cluster.guardedNamespace('not-engaged');
    expect((await admin.merge(namespaces, { name: free }, unguard)).message).toBe('');
  });

  it('is not undone by deleting the KillSwitch', async () => {
    for (const api of [admin, operator, mallory]) {
      const { status, message } = await api.delete(killSwitches, target);
      expect(status).toBe(403);
      expect(message).toContain('kubectl guardrails release invoice -n engaging --reason TEXT');
    }
    const all = await cluster.controlPlane.kubectl(['delete', 'ksw', '--all', `-n=${namespace}`]);
    expect(all.stderr).toContain('not deleted but released');
  });

  it('keeps its namespace from being deleted, and not longer', async () => {
    await admin.create(workflows, workflow(namespace));
    await cluster.engageByAnnotation(namespace);
    await admin.create(
      deployments,
      deployment.manifest({ namespace, serviceAccountName: name, value: 3 }),
    );
    const byObject = await admin.delete(namespaces, { name: namespace });
    expect(byObject.message).toContain(`the kill switch of ${name} is engaged in this namespace`);
    await cluster.latch(workflows, target);
    await alice.annotate(workflows, target, { [annotation.killSwitch]: null });
    await waitFor('the KillSwitch alone to keep it', async () => {
      const { message } = await admin.delete(namespaces, { name: namespace });
      return message.includes("Policy 'automation-guardrails-kill-switch-namespace'");
    });
    expect((await cluster.askRelease(namespace)).message).toBe('');
    await cluster.lift(namespace);
    expect((await admin.delete(namespaces, { name: namespace })).message).toBe('');
    await waitFor(
      'the namespace to be gone',
      async () => (await admin.get(namespaces, { name: namespace })).status === 404,
      { timeoutMs: 120_000 },
    );
  });
});

describe('releasing a kill switch', () => {
  const namespace = 'releasing';
  const target = { namespace, name };

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    await cluster.engage(namespace);
  });

  it.each([
    ['who engaged', () => alice, 'alice engaged this kill switch; somebody else'],
    ['a ServiceAccount', () => admin.as(pipelineUser), 'a ServiceAccount may not release'],
    ['somebody without the verb', () => mallory, 'mallory may not release this kill switch'],
    ['the operator', () => operator, 'may not release this kill switch'],
  ])('is refused to %s', async (_, api, sentence) => {
    const { status, message } = await cluster.askRelease(namespace, api());
    expect(status).toBe(403);
    expect(message).toContain(sentence);
  });

  it.each(['', ' ', '\t\n'])('needs a reason, and %j is none', async (reason) => {
    const { message } = await cluster.askRelease(namespace, bob, reason);
    expect(message).toContain('a release needs a reason');
  });

  it('holds what comes back on ServiceAccounts by the word of the operator alone', async () => {
    const planted = { [annotation.restoreServiceAccount]: '{}' };
    for (const api of [alice, bob, mallory]) {
      const { message } = await api.annotate(killSwitches, target, planted);
      expect(message).toContain('is written by the operator alone');
    }
    const owner = { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: 'x' };
    const { message } = await mallory.merge(killSwitches, target, {
      metadata: { ownerReferences: [owner] },
    });
    expect(message).toContain('a kill switch has no owners');
  });

  it('is lifted by the operator alone, and not before it was asked for', async () => {
    const patch = { metadata: { labels: { [label.releasing]: 'true' } } };
    for (const api of [alice, bob, mallory]) {
      const { message } = await api.merge(killSwitches, target, patch);
      expect(message).toContain('written by the operator, or by who breaks the glass, alone');
    }
    const { message } = await operator.merge(killSwitches, target, patch);
    expect(message).toContain('nobody asked for the release');
  });

  it('is stamped with the authenticated user, and with nobody else', async () => {
    const forged = await mallory.annotate(killSwitches, target, { [annotation.releasedBy]: 'bob' });
    expect(forged.message).toContain('released-by is stamped by admission');
    const asked = await bob.annotate(killSwitches, target, {
      [annotation.release]: 'fixed',
      [annotation.releasedBy]: 'alice',
    });
    expect(asked.message).toBe('');
    expect(annotationsOf(asked)).toMatchObject({
      [annotation.release]: 'fixed',
      [annotation.releasedBy]: 'bob',
    });
    const rewritten = await mallory.annotate(killSwitches, target, {
      [annotation.releasedBy]: 'alice',
    });
    expect(rewritten.message).toContain('released-by is stamped by admission');
  });

  it('is withdrawn by who asked for it or by the operator, with its stamp', async () => {
    const none = { [annotation.release]: null };
    const foreign = await mallory.annotate(killSwitches, target, none);
    expect(foreign.message).toContain('only bob, who asked for the release');
    const withdrawn = await bob.annotate(killSwitches, target, none);
    expect(withdrawn.message).toBe('');
    expect(annotationsOf(withdrawn)).not.toHaveProperty(annotation.releasedBy);
    await cluster.askRelease(namespace);
    const cancelled = await operator.annotate(killSwitches, target, none);
    expect(cancelled.message).toBe('');
    expect(annotationsOf(cancelled)).not.toHaveProperty(annotation.releasedBy);
  });

  it('is taken back by the operator in one write, and then the fence stands again', async () => {
    await cluster.release(namespace);
    const { message } = await operator.merge(killSwitches, target, {
      metadata: {
        labels: { [label.releasing]: null },
        annotations: { [annotation.release]: null, [annotation.releasedBy]: null },
      },
    });
    expect(message).toBe('');
    await cluster.untilFenced(namespace);
  });

  it('has one value of the label only', async () => {
    await cluster.askRelease(namespace);
    const { message } = await operator.merge(killSwitches, target, {
      metadata: { labels: { [label.releasing]: 'yes' } },
    });
    expect(message).toContain("no other value than 'true'");
  });

  it('can be withdrawn by nobody but the operator once the fence is lifted', async () => {
    await cluster.lift(namespace);
    const { message } = await bob.annotate(killSwitches, target, { [annotation.release]: null });
    expect(message).toContain('too late to withdraw the release');
  });

  it('ends with the deletion of the KillSwitch', async () => {
    const withLabel = await mallory.merge(killSwitches, target, {
      metadata: { labels: { [label.releasing]: null } },
    });
    expect(withLabel.message).toContain('written by the operator, or by who breaks the glass');
    // What is deleted half-way leaves the rest of its workloads stopped.
    const { message } = await mallory.delete(killSwitches, target);
    expect(message).toContain('the operator deletes it once everything is back');
    const unguard = { metadata: { labels: { [label.environment]: null } } };
    const unguarded = await admin.merge(namespaces, { name: namespace }, unguard);
    expect(unguarded.message).toContain('neither the namespace nor its label');
    expect((await operator.delete(killSwitches, target)).message).toBe('');
    await waitFor('pods to be admitted again', async () => {
      const { status } = await admin.create(pods, pod(namespace, 'new'));
      return status === 201;
    });
  });
});

describe('the annotation on a Workflow', () => {
  const namespace = 'annotated';
  const target = { namespace, name };

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    expect((await git.apply(workflows, workflow(namespace), 'git')).message).toBe('');
    for (const { resource, manifest, running } of testKinds) {
      expect((await git.create(resource, manifest({ namespace, value: running }))).message).toBe(
        '',
      );
    }
  });

  it.each(['', ' ', 'false', 'FALSE', 'off', ' No ', '0'])(
    'refuses %j, and says how to release',
    async (reason) => {
      const { status, message } = await alice.annotate(workflows, target, {
        [annotation.killSwitch]: reason,
      });
      expect(status).toBe(403);
      expect(message).toContain('engages whatever its value is');
      expect(message).toContain('kubectl guardrails release invoice -n annotated --reason TEXT');
    },
  );

  it('has no marks without it, whoever writes them', async () => {
    const { object, message } = await mallory.merge(workflows, target, {
      metadata: {
        labels: { [label.engaged]: 'true', kept: 'yes' },
        annotations: { [annotation.killSwitchEngagedBy]: 'bob' },
      },
    });
    expect(message).toBe('');
    expect(object.metadata.labels).toEqual({ kept: 'yes' });
    expect(unmarked(object)).toEqual({});
  });

  it('is marked and stamped with the authenticated user', async () => {
    const { object } = await alice.annotate(workflows, target, {
      [annotation.killSwitch]: 'it pays\ntwice',
      [annotation.killSwitchEngagedBy]: 'bob',
    });
    expect(object.metadata.labels).toMatchObject({ [label.engaged]: 'true' });
    expect(object.metadata.annotations).toMatchObject({
      [annotation.killSwitchEngagedBy]: 'alice',
    });
  });

  it('fences by itself, proven by a probe of its own', async () => {
    await cluster.untilFencedByAnnotation(namespace);
    const { message } = await admin.create(pods, pod(namespace, 'new'));
    expect(isDeniedBy(message, annotationProbePolicyName)).toBe(true);
    expect(message).toContain('kill switch: it pays twice (engaged by alice)');
    const token = await admin.create(
      serviceAccounts,
      { metadata: { namespace, name } },
      { subresource: 'token' },
    );
    expect(token.status).toBe(403);
  });

  it('leaves workloads to the operator, who latches it: they are stored, and no pod starts', async () => {
    for (const { resource, manifest, read, running } of testKinds) {
      const stored = await git.create(
        resource,
        manifest({ namespace, name: 'new', value: running }),
      );
      expect(stored.message).toBe('');
      expect(read(stored.object)).toBe(running);
    }
  });

  it('explains itself however long the reason is', async () => {
    const reason = 'because '.repeat(2000);
    await alice.annotate(workflows, target, { [annotation.killSwitch]: reason });
    await waitFor('the new reason to be told', async () => {
      const { message } = await admin.create(pods, pod(namespace, 'new'));
      return (
        message.includes('kill switch: because because') && message.includes('(engaged by alice)')
      );
    });
  });

  it('keeps its marks whoever writes, and whatever', async () => {
    const marks = {
      labels: { [label.engaged]: 'true' },
      annotations: { [annotation.killSwitchEngagedBy]: 'alice' },
    };
    const writes: (() => Promise<Answer>)[] = [
      () => mallory.merge(workflows, target, { metadata: { labels: { [label.engaged]: null } } }),
      () =>
        mallory.merge(workflows, target, { metadata: { labels: { [label.engaged]: 'false' } } }),
      () => mallory.annotate(workflows, target, { [annotation.killSwitchEngagedBy]: 'bob' }),
      () => mallory.annotate(workflows, target, { [annotation.killSwitchEngagedBy]: null }),
      () => mallory.annotate(workflows, target, { [annotation.killSwitch]: 'another reason' }),
      () => git.apply(workflows, workflow(namespace), 'git'),
      () => mallory.merge(workflows, target, {}),
    ];
    for (const write of writes) {
      const { object, message } = await write();
      expect(message).toBe('');
      expect(object.metadata).toMatchObject(marks);
    }
  });

  it('keeps its marks when somebody replaces the whole object', async () => {
    const stored = await admin.get(workflows, target);
    const whole = workflow(namespace, { [annotation.killSwitch]: 'it pays twice' });
    const { resourceVersion = '' } = stored.object.metadata;
    whole.metadata = { ...whole.metadata, resourceVersion, labels: { kept: 'yes' } };
    const { object, message } = await mallory.replace(workflows, whole);
    expect(message).toBe('');
    expect(object.metadata).toMatchObject({
      labels: { [label.engaged]: 'true', kept: 'yes' },
      annotations: { [annotation.killSwitchEngagedBy]: 'alice' },
    });
  });

  it('lets writes that change nothing be, and leaves the status to the operator', async () => {
    const { object } = await admin.get(workflows, target);
    const same = await admin.replace(workflows, object);
    expect(same.message).toBe('');
    expect(same.object.metadata.resourceVersion).toBe(object.metadata.resourceVersion);
    const status = await mallory.merge(
      workflows,
      target,
      { status: { observedGeneration: 1 } },
      { subresource: 'status' },
    );
    expect(status.message).toContain('the status is written by the operator alone');
  });

  it('stands together with the KillSwitch that latches it, and one value is restored', async () => {
    await cluster.engage(namespace);
    for (const kind of testKinds) {
      const applied = await git.merge(
        kind.resource,
        { namespace, name: 'work' },
        kind.patch(kind.asked),
      );
      expect(applied.message).toBe('');
      expect(valueOf(kind, applied)).toBe(kind.paused);
      expect(annotationsOf(applied)).toMatchObject({ [kind.restore]: String(kind.asked) });
    }
  });

  it('keeps the KillSwitch from being released, and names who set it', async () => {
    const { status, message } = await cluster.askRelease(namespace);
    expect(status).toBe(403);
    expect(message).toContain('set by alice; remove it first, in Git too');
    expect(message).toContain(
      `kubectl annotate awf invoice -n annotated ${annotation.killSwitch}-`,
    );
  });

  it('stays until a KillSwitch stands for it', async () => {
    const unlatch = { [annotation.killSwitch]: null };
    for (const api of [alice, mallory, admin]) {
      const { message } = await api.annotate(workflows, target, unlatch);
      expect(message).toContain('no KillSwitch stands for it yet');
    }
    const { object: standing } = await admin.get(workflows, target);
    const { resourceVersion = '' } = standing.metadata;
    const fromGit = { ...workflow(namespace), metadata: { ...target, resourceVersion } };
    expect((await admin.replace(workflows, fromGit)).message).toContain('no KillSwitch stands');
    expect((await admin.delete(workflows, target)).message).toContain('release it first');
    const latched = { metadata: { labels: { [label.latched]: 'true' } } };
    expect((await mallory.merge(workflows, target, latched)).message).toContain('operator alone');
    await cluster.latch(workflows, target);
  });

  it('takes its marks with it when it goes', async () => {
    const { object } = await mallory.annotate(workflows, target, { [annotation.killSwitch]: null });
    expect(object.metadata.labels).toEqual({ kept: 'yes' });
    expect(unmarked(object)).toEqual({});
    await waitFor('the release to be possible', async () => {
      const { status } = await cluster.askRelease(namespace);
      return status === 200;
    });
  });

  it('stamps whoever sets it when the Workflow is created, a pipeline as well', async () => {
    const other = await cluster.guardedNamespace('annotated-in-git');
    const engaged = workflow(other, {
      [annotation.killSwitch]: 'it pays twice',
      [annotation.killSwitchEngagedBy]: 'alice',
    });
    const { object } = await git.apply(workflows, engaged, 'git');
    expect(object.metadata).toMatchObject({
      labels: { [label.engaged]: 'true' },
      annotations: { [annotation.killSwitchEngagedBy]: 'git' },
    });
    const again = await admin.apply(workflows, engaged, 'other');
    expect(again.status).toBe(409);
  });
});

describe('the annotation on an AutomationIdentity', () => {
  const namespace = 'by-identity';
  const target = { namespace, name };

  it('fences like that on a Workflow, and blocks the release while it is there', async () => {
    await cluster.guardedNamespace(namespace);
    await admin.create(automationIdentities, identity(namespace));
    const reason = { [annotation.killSwitch]: 'it pays twice' };
    const { object } = await mallory.annotate(automationIdentities, target, reason);
    expect(object.metadata).toMatchObject({
      labels: { [label.engaged]: 'true' },
      annotations: { [annotation.killSwitchEngagedBy]: 'mallory' },
    });
    await waitFor('pods to be refused', async () => {
      const { message } = await admin.create(pods, pod(namespace, 'new', name), { dryRun: true });
      return isDeniedBy(message, policyName('fence-pods-by-identity'));
    });
    const { message } = await admin.create(pods, pod(namespace, 'other', 'other'), {
      dryRun: true,
    });
    expect(message).toBe('');
    await cluster.latch(automationIdentities, target);
    const blocked = await cluster.askRelease(namespace);
    expect(blocked.message).toContain(`kubectl annotate aid ${name} -n ${namespace}`);
    await mallory.annotate(automationIdentities, target, { [annotation.killSwitch]: null });
    await waitFor('the release to be possible', async () => {
      const { status } = await cluster.askRelease(namespace);
      return status === 200;
    });
  });
});

describe('the annotation on a Namespace', () => {
  const namespace = 'by-namespace';

  beforeAll(() => cluster.guardedNamespace(namespace));

  it('is refused where no policy is bound', async () => {
    const unguarded = await cluster.namespace('unguarded-engaging');
    for (const of of [unguarded, 'kube-system']) {
      const reason = { [annotation.killSwitch]: 'everything pays twice' };
      const { message } = await admin.annotate(namespaces, { name: of }, reason);
      expect(message).toContain('guard it first');
    }
  });

  it('stops whatever would start in it, and nothing elsewhere', async () => {
    const elsewhere = await cluster.guardedNamespace('not-engaged');
    const waiting = pod(namespace, 'waiting', 'other');
    expect((await admin.create(pods, waiting)).message).toBe('');
    const reason = { [annotation.killSwitch]: 'everything pays twice' };
    const { object } = await admin.annotate(namespaces, { name: namespace }, reason);
    expect(object.metadata.labels?.[label.engaged]).toBe('true');
    for (const account of [name, 'other', 'default']) {
      await waitFor('pods to be refused', async () => {
        const { message } = await admin.create(pods, pod(namespace, 'new', account), {
          dryRun: true,
        });
        return isDeniedBy(message, policyName('fence-pods-by-namespace'));
      });
      const { message } = await admin.create(
        serviceAccounts,
        { metadata: { namespace, name: account } },
        { subresource: 'token', dryRun: true },
      );
      expect(message).toContain(policyName('fence-tokens-by-namespace'));
    }
    const bound = await admin.create(
      pods,
      {
        kind: 'Binding',
        metadata: { namespace, name: 'waiting' },
        target: { kind: 'Node', name: 'none' },
      } as KubeObject,
      { subresource: 'binding' },
    );
    expect(bound.message).toContain(policyName('fence-bindings-by-namespace'));
    const older = await admin.create(bindings, {
      metadata: { namespace, name: 'waiting' },
      target: { kind: 'Node', name: 'none' },
    } as KubeObject);
    expect(older.message).toContain(policyName('fence-bindings-by-namespace'));
    const other = await admin.create(pods, pod(elsewhere, 'new', name), { dryRun: true });
    expect(other.message).toBe('');
  });

  it.each(['status', 'finalize'])('can not be changed through %s', async (subresource) => {
    const { object } = await admin.get(namespaces, { name: namespace });
    const { resourceVersion = '' } = object.metadata;
    const bare = { ...object, metadata: { name: namespace, resourceVersion } };
    const { message } = await admin.replace(namespaces, bare, { subresource });
    expect(message).toContain('are changed on the Namespace itself');
  });

  it('keeps the namespace guarded', async () => {
    const unguarded = { metadata: { labels: { [label.environment]: null } } };
    const { message } = await admin.merge(namespaces, { name: namespace }, unguarded);
    expect(message).toContain('guard it first');
  });

  it('keeps the namespace, and stays until it is latched', async () => {
    const { message } = await admin.annotate(
      namespaces,
      { name: namespace },
      { [annotation.killSwitch]: null },
    );
    expect(message).toContain('no KillSwitch stands for it yet');
    const gone = await admin.delete(namespaces, { name: namespace });
    expect(gone.message).toContain('release it first');
  });

  it('is latched into a KillSwitch of the whole namespace', async () => {
    const whole = {
      metadata: { namespace, name: wholeNamespaceName },
      spec: { wholeNamespace: true, reason: 'everything pays twice' },
    };
    expect((await operator.create(killSwitches, whole)).message).toBe('');
    await cluster.latch(namespaces, { name: namespace });
    const unlatch = { [annotation.killSwitch]: null };
    const asked = { [annotation.release]: 'fixed' };
    const target = { namespace, name: wholeNamespaceName };
    const blocked = await bob.annotate(killSwitches, target, asked);
    expect(blocked.message).toContain(`kubectl annotate namespace ${namespace}`);
    await admin.annotate(namespaces, { name: namespace }, unlatch);
    await waitFor('the release to be possible', async () => {
      const { message } = await admin.create(pods, pod(namespace, 'new', 'default'), {
        dryRun: true,
      });
      expect(message).toContain("ValidatingAdmissionPolicy 'automation-guardrails-fence-pods");
      const { status } = await bob.annotate(killSwitches, target, asked);
      return status === 200;
    });
  });

  it.each([
    ['without a name of its own', { metadata: { name: 'other' } }],
    ['beside a workflow', { spec: { workflow: 'namespace' } }],
    ['and not', { spec: { wholeNamespace: false } }],
  ])('means no KillSwitch %s', async (_, change) => {
    const { metadata = {}, spec = {} } = change as Record<string, object>;
    const { status } = await alice.create(killSwitches, {
      metadata: { namespace: 'by-identity', name: wholeNamespaceName, ...metadata },
      spec: { wholeNamespace: true, reason: 'everything', ...spec },
    } as KillSwitch);
    expect(status).toBe(422);
  });
});

describe('breaking the glass', () => {
  const namespace = 'glass';
  const target = { namespace, name };
  const marks = { [annotation.release]: 'nobody else is here', [annotation.breakGlass]: 'alone' };

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    await cluster.engage(namespace);
  });

  it('takes its verb, a reason, the wish for release, and a person', async () => {
    const cases: [Api, Record<string, string>, string][] = [
      [alice, marks, 'alice may not break the glass'],
      [carol, { ...marks, [annotation.breakGlass]: ' ' }, 'breaking the glass needs a reason'],
      [carol, { [annotation.breakGlass]: 'alone' }, 'comes with the release'],
      [admin.as(pipelineUser), marks, 'a ServiceAccount may not release'],
    ];
    for (const [api, annotations, sentence] of cases) {
      const { message } = await api.annotate(killSwitches, target, annotations);
      expect(message).toContain(sentence);
    }
  });

  it('releases without a second person and without an operator', async () => {
    const { object, message } = await carol.merge(killSwitches, target, {
      metadata: { annotations: marks, labels: { [label.releasing]: 'true' } },
    });
    expect(message).toBe('');
    expect(object.metadata.annotations?.[annotation.releasedBy]).toBe('carol');
    const taken = await carol.annotate(killSwitches, target, { [annotation.breakGlass]: null });
    expect(taken.message).toContain('break-glass stays');
    await waitFor('pods to be admitted again', async () => {
      const { status } = await admin.create(pods, pod(namespace, 'new', name), { dryRun: true });
      return status === 201;
    });
  });

  it('takes an annotation away that nobody latches', async () => {
    const other = await cluster.guardedNamespace('glass-annotation');
    await admin.create(workflows, workflow(other));
    await cluster.engageByAnnotation(other);
    const taken = { [annotation.killSwitch]: null, [annotation.breakGlass]: 'no operator runs' };
    const by = (api: Api): Promise<Answer> =>
      api.annotate(workflows, { namespace: other, name }, taken);
    expect((await mallory.annotate(workflows, { namespace: other, name }, taken)).status).not.toBe(
      200,
    );
    expect((await by(carol)).message).toBe('');
  });
});

describe('an annotation from before the policies', () => {
  it('is marked by the next write, without blaming whoever makes it', async () => {
    const early = { namespace: earlier, name };
    const { object, message } = await mallory.merge(workflows, early, {
      metadata: { labels: { a: 'b' } },
    });
    expect(message).toBe('');
    expect(object.metadata).toMatchObject({
      labels: { [label.engaged]: 'true' },
      annotations: { [annotation.killSwitchEngagedBy]: 'unknown' },
    });
    await cluster.untilFencedByAnnotation(earlier);
  });
});

describe('when the annotation comes back during a release', () => {
  it('nothing starts, and nothing to restore is lost', async () => {
    const namespace = await cluster.guardedNamespace('comes-back');
    await admin.create(workflows, workflow(namespace));
    await git.create(deployments, deployment.manifest({ namespace, value: 3 }));
    await cluster.engage(namespace);
    await cluster.touch(deployment, namespace);
    await cluster.release(namespace);
    await cluster.engageByAnnotation(namespace);
    const thawed = await cluster.touch(deployment, namespace, 'release.1');
    expect(thawed.message).toBe('');
    const { message } = await admin.create(pods, pod(namespace, 'new'));
    expect(isDeniedBy(message, annotationProbePolicyName)).toBe(true);
    // What the operator does then.
    const target = { namespace, name };
    await operator.merge(killSwitches, target, {
      metadata: { labels: { [label.releasing]: null } },
    });
    await cluster.untilFenced(namespace);
    const paused = await cluster.touch(deployment, namespace, 'again');
    expect(valueOf(deployment, paused)).toBe(0);
    expect(annotationsOf(paused)).toMatchObject({ [annotation.restoreReplicas]: '3' });
  });
});

describe('without what the mutating policies do', () => {
  const namespace = 'twins';
  const target = { namespace, name };

  beforeAll(async () => {
    await cluster.guardedNamespace(namespace);
    await admin.create(workflows, workflow(namespace));
    await cluster.engage(namespace);
    const bindingKind = 'mutatingadmissionpolicybindings';
    const { code, stderr } = await cluster.controlPlane.kubectl(['delete', bindingKind, '--all']);
    expect(code, stderr).toBe(0);
    await waitFor('the mutations to end', async () => !(await cluster.mutates(namespace)));
  });

  it.each(testKinds)('a running $resource.kind is refused', async (kind) => {
    const created = await git.create(kind.resource, kind.manifest({ namespace }));
    expect(created.status).toBe(403);
    expect(created.message).toContain('kill switch: it pays twice (engaged by alice)');
    const paused = kind.manifest({ namespace, value: kind.paused });
    expect((await git.create(kind.resource, paused)).message).toBe('');
    const resumed = await git.merge(
      kind.resource,
      { namespace, name: 'work' },
      kind.patch(kind.running),
    );
    expect(resumed.status).toBe(403);
  });

  it('a KillSwitch without its stamp is refused, and one with a false stamp', async () => {
    for (const spec of [{}, { engagedBy: 'bob' }, { engagedBy: '' }]) {
      const { status, message } = await alice.create(killSwitches, killSwitch('default', spec));
      expect(status).toBe(403);
      expect(message).toContain('engagedBy is the authenticated user');
    }
  });

  it('a release without its stamp is refused, and one with a false stamp', async () => {
    expect((await cluster.askRelease(namespace)).message).toContain('released-by is stamped');
    const forged = { [annotation.release]: 'fixed', [annotation.releasedBy]: 'alice' };
    expect((await bob.annotate(killSwitches, target, forged)).status).toBe(403);
    const honest = { [annotation.release]: 'fixed', [annotation.releasedBy]: 'bob' };
    expect((await bob.annotate(killSwitches, target, honest)).message).toBe('');
    const left = await bob.annotate(killSwitches, target, { [annotation.release]: null });
    expect(left.message).toContain('released-by is stamped');
  });

  it('an engaging annotation without its marks is refused, and marks without it', async () => {
    const engaging = { [annotation.killSwitch]: 'it pays twice' };
    expect((await alice.annotate(workflows, target, engaging)).status).toBe(403);
    const mark = (by: string, value = 'true'): object => ({
      metadata: {
        labels: { [label.engaged]: value },
        annotations: { ...engaging, [annotation.killSwitchEngagedBy]: by },
      },
    });
    expect((await alice.merge(workflows, target, mark('bob'))).status).toBe(403);
    expect((await alice.merge(workflows, target, mark('alice', 'yes'))).status).toBe(403);
    expect((await alice.merge(workflows, target, mark('alice'))).message).toBe('');
    expect((await mallory.merge(workflows, target, mark('mallory'))).status).toBe(403);
    for (const metadata of [
      { labels: { [label.engaged]: null } },
      { annotations: { [annotation.killSwitch]: null } },
      { annotations: { [annotation.killSwitchEngagedBy]: null } },
    ]) {
      expect((await alice.merge(workflows, target, { metadata })).status).toBe(403);
    }
  });

  it('groups of who changed a spec stand beside the name, and lock nothing', async () => {
    const own = 'system:authenticated';
    const made = (of: string, annotations: Record<string, string>): KubeObject => ({
      ...workflow(namespace),
      metadata: { namespace, name: of, annotations },
    });
    const alone = await alice.create(
      workflows,
      made('stamped', { [annotation.changedByGroups]: own }),
    );
    expect(alone.message).toContain(`stand beside ${annotation.changedBy}`);
    const both = { [annotation.changedBy]: 'alice', [annotation.changedByGroups]: own };
    expect((await alice.create(workflows, made('stamped', both))).message).toBe('');
    const labelled = { metadata: { labels: { seen: 'true' } } };
    const regrouped = { [annotation.changedByGroups]: 'others' };
    const stamped = { namespace, name: 'stamped' };
    expect((await mallory.merge(workflows, stamped, labelled)).message).toBe('');
    expect((await mallory.annotate(workflows, stamped, regrouped)).status).toBe(403);

    const named = { namespace, name: 'named' };
    const nameAlone = made('named', { [annotation.changedBy]: 'alice' });
    expect((await alice.create(workflows, nameAlone)).message).toBe('');
    const others = { [annotation.changedByGroups]: own };
    expect((await mallory.annotate(workflows, named, others)).status).toBe(403);

    const stood = { namespace: earlier, name: groupsAlone };
    expect((await mallory.merge(workflows, stood, labelled)).message).toBe('');
    const claimed = { [annotation.changedBy]: 'mallory' };
    expect((await mallory.annotate(workflows, stood, claimed)).status).toBe(403);
    const taken = { ...claimed, [annotation.changedByGroups]: own };
    expect((await mallory.annotate(workflows, stood, taken)).message).toBe('');
  });

  it('who asks has to be written where a GuardrailPolicy wants to know', async () => {
    const { guardrailPolicies } = resources;
    const policy = { name: 'default' };
    const spec = { tiers: [{ name: 'test', required: ['Requester'] }] };
    const created = await admin.create(guardrailPolicies, { metadata: policy, spec } as KubeObject);
    expect(created.message).toBe('');
    const person = cluster.admin.as('mallory', 'writers');
    const pipeline = cluster.admin.as(pipelineUser, 'system:masters');
    const write = async (
      api: typeof person,
      resource: typeof workflows | typeof automationIdentities,
      annotations: Record<string, string>,
    ): Promise<string> => {
      const asked = resource === workflows ? workflow(namespace).spec : { purpose: 'posts' };
      const metadata = { namespace, name: 'asked', annotations };
      const object = { metadata, spec: asked } as KubeObject;
      return (await api.create(resource, object, { dryRun: true })).message;
    };
    const wanted =
      'beyond the ceiling required of the GuardrailPolicy default in test: missing the annotation automationguardrails.dev/changed-by with your own name (mallory)';
    await waitFor('the policy to be in force', async () =>
      (await write(person, workflows, {})).includes(wanted),
    );
    const byMallory = { [annotation.changedBy]: 'mallory' };
    // Whose groups nobody knows could be asked about by name alone, and would be held.
    expect(await write(person, workflows, byMallory)).toContain(wanted);
    const groups = { [annotation.changedByGroups]: 'writers\nsystem:authenticated' };
    expect(await write(person, workflows, { ...byMallory, ...groups })).toBe('');
    for (const resource of [workflows, automationIdentities]) {
      expect(await write(pipeline, resource, {})).toContain('missing the annotation');
      expect(await write(pipeline, resource, { [annotation.changedBy]: pipelineUser })).toBe('');
    }
    // A kill and a label get through without.
    const seen = { metadata: { labels: { seen: 'true' } } };
    expect((await mallory.merge(workflows, target, seen)).message).toBe('');
    expect((await admin.delete(guardrailPolicies, policy)).status).toBe(200);
    await waitFor('the policy to be gone', async () => (await write(person, workflows, {})) === '');
  });

  it('a Workflow that a GuardrailPolicy came to ask approval of is labelled all the same', async () => {
    const { guardrailPolicies } = resources;
    const stood = { namespace, name: 'stood' };
    const object = { ...workflow(namespace), metadata: stood };
    expect((await alice.create(workflows, object)).message).toBe('');
    const policy = { name: 'default' };
    const spec = { tiers: [{ name: 'test', approvals: { low: 1 } }] };
    const created = await admin.create(guardrailPolicies, { metadata: policy, spec } as KubeObject);
    expect(created.message).toBe('');
    const another = { ...workflow(namespace), metadata: { namespace, name: 'another' } };
    await waitFor('the policy to be in force', async () => {
      const { message } = await alice.create(workflows, another, { dryRun: true });
      return message.includes('asks for approval of this Workflow');
    });
    const seen = { metadata: { labels: { seen: 'true' } } };
    expect((await mallory.merge(workflows, stood, seen)).message).toBe('');
    const changed = await alice.merge(workflows, stood, { spec: { description: 'else' } });
    expect(changed.message).toContain('asks for approval of this Workflow');
    const mark = { metadata: { labels: { [label.approval]: 'by-policy' } } };
    expect((await alice.merge(workflows, stood, mark)).message).toBe('');
    const without = { metadata: { labels: { [label.approval]: null } } };
    expect((await alice.merge(workflows, stood, without)).status).toBe(403);
    expect((await admin.delete(guardrailPolicies, policy)).status).toBe(200);
  });
});
