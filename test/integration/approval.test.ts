import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { annotation, approvalGate, label } from '../../src/api/names.ts';
import type { Condition, KubeObject } from '../../src/api/objects.ts';
import type { GuardrailPolicy } from '../../src/api/guardrail-policy.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import type { Workflow } from '../../src/api/workflow.ts';
import type { WorkflowRevision } from '../../src/api/workflow-revision.ts';
import { run as guardrails } from '../../src/cli/run.ts';
import {
  actions,
  people,
  type Action,
  type ActionId,
  type Person,
} from '../../src/who-may-what/table.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation, automationPods } from '../operator/automation.ts';
import { getObject, installGuardrails, kubectlOk, listObjects } from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';
import { Api, path, type Answer, type CallOptions } from './admission/api.ts';

const namespace = 'finance';
const name = 'poster';
const { workflows, automationIdentities, approvals, pods, deployments, namespaces } = resources;
const key = { namespace, name };

/** One replica, which needn't wait for the Lease of one that was killed. */
const args = ['--leader-elect=false'];

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let operator: OperatorProcess;
let admin: Api;
/** Writes Workflows and workloads; may approve, but not what she changed. */
let alice: Api;

const roles = {
  // noah may write Workflows, and nothing that runs.
  requester: ['alice', 'erin', 'noah'],
  approver: ['alice', 'bob', 'carol', 'system:serviceaccount:ci:pipeline'],
  'approval-waiver': ['dave'],
  killer: ['bob'],
  releaser: ['carol'],
} as const;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  admin = Api.asAdmin(controlPlane);
  alice = admin.as('alice');
  const binding = (role: string, users: readonly string[]): object => ({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: `test-${role}` },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
    subjects: users.map((user) => ({
      apiGroup: 'rbac.authorization.k8s.io',
      kind: 'User',
      name: user,
    })),
  });
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
    },
    ...Object.entries(roles).map(([role, users]) =>
      binding(`automation-guardrails-${role}`, users),
    ),
    binding('edit', ['alice', 'erin', 'carol']),
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'forger' },
      rules: [
        {
          apiGroups: ['automationguardrails.dev'],
          resources: ['workflowrevisions', 'workflowrevisions/status'],
          verbs: ['create', 'update', 'patch', 'delete'],
        },
      ],
    },
    { ...binding('forger', ['frank']), metadata: { name: 'forger' } },
  ]);
  operator = await startOperator({ kubeconfigPath, args });
});

afterAll(async () => {
  operator?.kill();
  await admin?.close();
  await controlPlane?.stop();
});

const owner = { team: 'payments', contact: 'payments@example.com', escalation: '#payments' };
const spec: Workflow['spec'] = {
  owner,
  risk: 'High',
  change: { version: '1.0', reason: 'first', requestedBy: 'frank' },
  targets: [{ group: 'apps', kind: 'Deployment', name }],
  egress: [{ cidr: '203.0.113.10/32', ports: [{ port: 443, protocol: 'TCP' }], reason: 'ERP' }],
};

function deployment(image: string): KubeObject & { spec: object } {
  return {
    metadata: key,
    spec: {
      replicas: 1,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: {
          serviceAccountName: name,
          automountServiceAccountToken: false,
          terminationGracePeriodSeconds: 1,
          containers: [{ name: 'main', image, command: ['post'] }],
        },
      },
    },
  };
}

async function setImage(image: string, by = alice): Promise<void> {
  const patch = {
    spec: { template: { spec: { containers: [{ name: 'main', image, command: ['post'] }] } } },
  };
  expect((await by.merge(deployments, key, patch)).message).toBe('');
}

interface PodView {
  metadata: { name: string; deletionTimestamp?: string };
  spec: { containers: { image: string }[]; schedulingGates?: { name: string }[] };
  status?: { phase?: string };
}

/** `image state` of each pod that isn't about to go, in order. */
async function podStates(): Promise<string[]> {
  const { object } = await admin.send({
    method: 'GET',
    url: `/api/v1/namespaces/${namespace}/pods`,
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a PodList
  return (object as unknown as { items: PodView[] }).items
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    .map(({ spec: { containers, schedulingGates = [] }, status }) => {
      const isGated = schedulingGates.some((gate) => gate.name === approvalGate);
      return `${containers[0]?.image} ${isGated ? 'waits' : (status?.phase ?? '')}`;
    })
    .toSorted();
}

async function untilPods(...states: string[]): Promise<void> {
  await waitFor(`pods: ${states.join(', ')}`, async () => {
    const now = await podStates();
    if (now.join() !== states.join()) throw new Error(now.join());
    return true;
  });
}

/** Waits for `Approved` of this reason, for what the operator has seen. @returns its message */
async function untilApprovedIs(reason: string): Promise<Condition> {
  return await waitFor(`Approved to be ${reason}`, async () => {
    const { object } = await admin.get(workflows, key);
    const approved = object.status?.conditions?.find(({ type }) => type === 'Approved');
    return approved?.reason === reason && approved.observedGeneration === object.metadata.generation
      ? approved
      : undefined;
  });
}

interface Manifest {
  kind: string;
  spec?: object;
}

interface Outcome {
  code: number;
  text: string;
}

async function cli(as: string, ...argv: string[]): Promise<Outcome> {
  const lines: string[] = [];
  const print = (line: string): void => {
    lines.push(line);
  };
  const access = [`--kubeconfig=${controlPlane.kubeconfigPath}`, `--as=${as}`, '-n', namespace];
  const code = await guardrails({ argv: [...access, ...argv], stdout: print, stderr: print });
  return { code, text: lines.join('\n') };
}

/** The newest first. */
async function revisions(): Promise<WorkflowRevision[]> {
  const list = await listObjects<WorkflowRevision>(controlPlane, 'awr', namespace);
  return list
    .filter((revision) => revision.spec.workflow === name)
    .toSorted((a, b) => b.spec.revision - a.spec.revision);
}

async function digest(): Promise<string> {
  const object = await getObject<Workflow>(controlPlane, 'awf', name, namespace);
  return object?.status?.revision?.digest ?? '';
}

describe('a Workflow of high risk', () => {
  it('starts nothing, and is granted nothing, before two others approved it', async () => {
    const identity = {
      metadata: key,
      spec: {
        purpose: 'posts invoices',
        owner,
        permissions: [
          { apiGroups: [''], resources: ['configmaps'], verbs: ['get'], reason: 'its settings' },
        ],
      },
    };
    const created = await alice.create(workflows, { metadata: key, spec } as KubeObject);
    expect(created.message).toBe('');
    expect(created.object.metadata.labels).toEqual({ [label.approval]: 'required' });
    expect(created.object.metadata.annotations).toEqual({
      [annotation.changedBy]: 'alice',
      [annotation.changedByGroups]: 'system:authenticated',
    });
    const erin = admin.as('erin');
    expect((await erin.create(automationIdentities, identity)).message).toBe('');
    expect((await alice.create(deployments, deployment('v1'))).message).toBe('');
    await untilPods('v1 waits');

    const { message } = await untilApprovedIs('NotApproved');
    expect(message).toContain('2 of 2 approvals missing');
    expect(message).toContain(`kubectl guardrails approve ${name} -n ${namespace}`);
    const held = await waitFor('Held', async () => {
      const { object } = await admin.get(workflows, key);
      const found = object.status?.conditions?.find(({ type }) => type === 'Held');
      return found?.reason === 'NotApproved' ? found : undefined;
    });
    expect(held.message).toContain(message);
    expect(await listObjects(controlPlane, 'rolebindings', namespace)).toHaveLength(1);
    const columns = await kubectlOk(controlPlane, ['get', 'awf', `-n=${namespace}`]);
    expect(columns).toMatch(/APPROVED/);

    const own = await cli('alice', 'approve', name, '--reason', 'mine');
    expect(own).toMatchObject({ code: 1 });
    expect(own.text).toContain('alice changed the Workflow poster last');
    expect((await cli('erin', 'approve', name, '--reason', 'mine')).text).toContain('forbidden');

    const first = await cli('bob', 'approve', name, '--reason', 'reviewed');
    expect(first).toMatchObject({ code: 0 });
    expect(first.text).toContain('Deployment poster (changed by: alice): v1 (a tag');
    expect(first.text).toContain('asked for by: frank (asserted)');
    expect(first.text).toContain('1 of 2 approvals missing');
    // Once more counts once.
    await cli('bob', 'approve', name, '--reason', 'reviewed again');
    await untilApprovedIs('NotApproved');
    expect(await podStates()).toEqual(['v1 waits']);

    const second = await cli('carol', 'approve', name, '--reason', 'reviewed');
    expect(second.text).toContain('What runs is approved by bob, carol');
    await untilPods('v1 Running');
    await untilApprovedIs('Approved');
    await waitFor('what was withheld', async () => {
      const bindings = await listObjects(controlPlane, 'rolebindings', namespace);
      const policies = await listObjects(controlPlane, 'networkpolicies', namespace);
      return bindings.length === 2 && policies.length === 1;
    });
    const list = await cli('bob', 'approvals', name, '-o', 'json');
    const decided = JSON.parse(list.text) as { approver: string; revision: string }[];
    expect(decided.map(({ approver, revision }) => `${approver} ${revision}`).toSorted()).toEqual([
      'bob current',
      'bob current',
      'carol current',
    ]);
  });

  it('is asked again for another image; what was approved before goes on, also after its pod is gone', async () => {
    const before = await digest();
    await setImage('v2');
    await untilPods('v1 Running', 'v2 waits');
    await untilApprovedIs('NotApproved');
    expect(await digest()).not.toBe(before);
    const [running] = (await listObjects<PodView>(controlPlane, 'pods', namespace)).filter(
      ({ status }) => status?.phase === 'Running',
    );
    await admin.delete(pods, { namespace, name: running?.metadata.name ?? '' });
    await untilPods('v1 Running', 'v2 waits');

    // Approvals name a digest: those of v1 come to nothing for v2, and are good for v1 again.
    await setImage('v1');
    await untilPods('v1 Running');
    await untilApprovedIs('Approved');
    expect(await digest()).toBe(before);
  });

  it('is held by one rejection, whatever others say', async () => {
    await setImage('v3');
    await untilPods('v1 Running', 'v3 waits');
    const { object } = await admin.get(deployments, key);
    expect(object.metadata.annotations?.[annotation.changedBy]).toBe('alice');
    // Who scales or restarts it changes nothing of what it runs.
    const restart = { [annotation.restartedAt]: '2030-01-01T00:00:00Z' };
    const touched = await admin.as('erin').merge(deployments, key, {
      metadata: { annotations: { [annotation.changedBy]: 'zoe' } },
      spec: { template: { metadata: { annotations: restart } } },
    });
    expect(touched.object.metadata.annotations?.[annotation.changedBy]).toBe('alice');
    const read = await admin
      .as('erin')
      .merge(
        deployments,
        key,
        { spec: { template: { metadata: { annotations: { command: 'post twice' } } } } },
        { dryRun: true },
      );
    expect(read.object.metadata.annotations?.[annotation.changedBy]).toBe('erin');
    expect((await cli('bob', 'reject', name, '--reason', 'no test')).code).toBe(0);
    await cli('carol', 'approve', name, '--reason', 'fine');
    const { message } = await untilApprovedIs('Rejected');
    expect(message).toContain('Rejected by bob');
    const [rejection] = (
      await listObjects<KubeObject & { spec: { decision: string } }>(
        controlPlane,
        'approvals',
        namespace,
      )
    ).filter((approval) => approval.spec.decision === 'Reject');
    const gone = await admin
      .as('carol')
      .delete(approvals, { namespace, name: rejection?.metadata.name ?? '' });
    expect(gone.message).toContain('a rejection by who made it, bob');
    await setImage('v1');
    await untilApprovedIs('Approved');
    await untilPods('v1 Running');
  });

  it('records each change: who was authenticated, who is asserted, and what is in force', async () => {
    const recorded = await waitFor('the revision of now to be in force', async () => {
      const list = await revisions();
      const [newest] = list;
      const isNow = newest?.spec.digest === (await digest()) && newest.status?.active === true;
      // The one before is told so after it.
      const isAlone = list.filter(({ status }) => status?.active).length === 1;
      return isNow && isAlone ? list : undefined;
    });
    const [newest, rejected] = recorded;
    expect(newest?.spec).toMatchObject({
      authenticated: ['alice'],
      asserted: { requestedBy: 'frank', reason: 'first', version: '1.0' },
      changers: ['alice', 'erin', 'frank'],
    });
    expect(newest?.status?.approved?.by).toEqual(['bob', 'carol']);
    expect(rejected?.status).toEqual({ active: false });
    const content = (of: WorkflowRevision | undefined): string | undefined =>
      of?.spec.parts.find((part) => part.name === 'Deployment poster')?.content;
    expect(content(newest)).toContain('"image":"v1"');
    expect(content(rejected)).toContain('"image":"v3"');
    const same = recorded.find(({ spec: of }) => of.revision === newest?.spec.sameAs);
    expect(same?.spec.digest).toBe(newest?.spec.digest);
  });

  it('has a history that nobody but the operator writes', async () => {
    const { workflowRevisions } = resources;
    const [newest, before] = await revisions();
    const frank = admin.as('frank');
    const at = { namespace, name: newest?.metadata.name ?? '' };
    const forged = {
      metadata: { namespace, name: `${name}.999` },
      spec: { ...newest?.spec, revision: 999 },
    };
    const byOperator = 'recorded by the operator alone';
    expect((await frank.create(workflowRevisions, forged as KubeObject)).message).toContain(
      byOperator,
    );
    expect((await frank.delete(workflowRevisions, at)).message).toContain(byOperator);
    expect((await frank.annotate(workflowRevisions, at, { x: 'y' })).message).toContain(byOperator);
    const approved = { status: { approved: { time: '2030-01-01T00:00:00Z', by: ['bob'] } } };
    const said = await frank.merge(
      workflowRevisions,
      { namespace, name: before?.metadata.name ?? '' },
      approved,
      { subresource: 'status' },
    );
    expect(said.message).toContain(byOperator);
    const edited = await admin.merge(workflowRevisions, at, { spec: { changers: [] } });
    expect(edited.message).toContain("a revision can't be changed");
  });

  it('is not approved by who changed it before somebody else did', async () => {
    await setImage('v6', admin.as('carol'));
    await waitFor('the revision of carol', async () => {
      const [newest] = await revisions();
      return newest?.spec.authenticated.join() === 'carol';
    });
    await setImage('v7', admin.as('erin'));
    await cli('bob', 'approve', name, '--reason', 'fine');
    const { text } = await cli('carol', 'approve', name, '--reason', 'fine');
    expect(text).toContain('1 of 2 approvals missing');
    expect(text).toContain("carol changed it, and so can't approve it");
    await untilApprovedIs('NotApproved');
    await untilPods('v1 Running', 'v7 waits');
  });

  it('is put back by revision, unless Git would write its own again', async () => {
    const listed = await cli('bob', 'history', `awf/${name}`);
    expect(listed.text).toMatch(/CHANGED BY +ASKED BY \(ASSERTED\)/);
    const [newest] = await revisions();
    const active = (await revisions()).find(({ status }) => status?.active);
    const changed = await cli('bob', 'diff', name);
    expect(changed.text.split('\n')).toEqual([
      `From revision ${active?.spec.revision} (approved by bob, carol) to revision ${newest?.spec.revision}, changed by erin:`,
      'Deployment poster',
      '  ~ spec.containers[main].image: "v1" → "v7"',
    ]);
    const to = String(active?.spec.revision);
    const tracking = 'argocd.argoproj.io/tracking-id';
    await admin.annotate(deployments, key, { [tracking]: 'billing:apps/Deployment:x/y' });
    const managed = await cli('carol', 'rollback', name, '--to', to);
    expect(managed).toMatchObject({ code: 1 });
    expect(managed.text).toContain('applied from Git by Argo CD application billing');
    expect(managed.text).toContain('Revert the commits since');
    await admin.annotate(deployments, key, { [tracking]: null });
    expect((await cli('carol', 'rollback', name, '--to', '999')).text).toContain("isn't kept");
    expect(await podStates()).toEqual(['v1 Running', 'v7 waits']);

    const back = await cli('carol', 'rollback', name, '--to', to);
    expect(back.text).toContain('Deployment poster written back');
    // Carol's approval of then counts: it is what was approved.
    expect(back.text).toContain('is approved by bob, carol');
    expect(back.code).toBe(0);
    await untilApprovedIs('Approved');
    await untilPods('v1 Running');
    const rolledBack = await waitFor('its revision', async () => {
      const [latest] = await revisions();
      return latest?.spec.revision !== newest?.spec.revision && latest;
    });
    expect(rolledBack.spec).toMatchObject({
      authenticated: ['carol'],
      sameAs: active?.spec.revision,
    });
  });

  it('is promoted with its digest, and needs the approvals of where it comes', async () => {
    const next = 'finance-test';
    const promotion = ['promote', name, '--from', namespace, '--to', next];
    expect((await cli('alice', ...promotion)).text).toContain("isn't guarded");
    const environment = { name: next, labels: { [label.environment]: 'test' } };
    await admin.create(namespaces, { metadata: environment });
    const promoted = await cli('alice', ...promotion);
    expect(promoted.code).toBe(0);
    expect(promoted.text).toContain(`Workflow ${next}/${name} written`);
    expect(promoted.text).toContain('Deployment poster is missing');
    const there = { namespace: next, name };
    await admin.create(deployments, { ...deployment('v1'), metadata: there });
    const arrived = await waitFor('the same digest', async () => {
      const [newest] = (await listObjects<WorkflowRevision>(controlPlane, 'awr', next)).toSorted(
        (a, b) => b.spec.revision - a.spec.revision,
      );
      return newest?.spec.digest === (await digest()) ? newest : undefined;
    });
    expect(arrived.spec.promotedFrom).toEqual({
      namespace,
      revision: (await revisions())[0]?.spec.revision,
    });
    expect(arrived.status?.approved).toBeUndefined();
    expect((await cli('alice', ...promotion)).text).toContain(`The same as in ${namespace}`);
    const { object } = await admin.get(workflows, there);
    expect(object.metadata.annotations?.[annotation.changedBy]).toBe('alice');
    await setImage('v8');
    expect((await cli('alice', ...promotion)).text).toContain("isn't in force there");
    // What follows is about v1 alone.
    await untilApprovedIs('NotApproved');
    await untilPods('v1 Running', 'v8 waits');
    await setImage('v1');
    await untilApprovedIs('Approved');
    await untilPods('v1 Running');
  });

  it('runs in its pods what was approved, and nothing that comes later or from elsewhere', async () => {
    const [pod] = await listObjects<PodView>(controlPlane, 'pods', namespace);
    const of = { namespace, name: pod?.metadata.name ?? '' };
    const image = { spec: { containers: [{ name: 'main', image: 'evil' }] } };
    const strategic = {
      method: 'PATCH',
      type: 'application/strategic-merge-patch+json',
    } as const;
    const url = path(pods, of);
    const changed = await admin.send({ ...strategic, url, body: image });
    expect(changed.message).toContain('runs what was approved');
    const debug = { spec: { ephemeralContainers: [{ name: 'debug', image: 'evil' }] } };
    const added = await admin.send({
      ...strategic,
      url: `${url}/ephemeralcontainers`,
      body: debug,
    });
    expect(added.message).toContain('runs what was approved');

    const bare = (container: object): KubeObject =>
      ({
        metadata: { namespace, name: 'bare' },
        spec: {
          serviceAccountName: name,
          automountServiceAccountToken: false,
          containers: [{ name: 'main', image: 'v1', command: ['post'], ...container }],
        },
      }) as KubeObject;
    expect((await alice.create(pods, bare({ command: ['drain'] }))).message).toBe('');
    await waitFor('the event', async () => {
      const text = await kubectlOk(controlPlane, ['events', `-n=${namespace}`, '--for=pod/bare']);
      return text.includes('PodNotApproved');
    });
    expect(await podStates()).toEqual(['v1 Running', 'v1 waits']);
    const lift = await admin.merge(
      pods,
      { namespace, name: 'bare' },
      { spec: { schedulingGates: [] } },
    );
    expect(lift.message).toContain('the operator alone starts it');
    await admin.delete(pods, { namespace, name: 'bare' });
    await untilPods('v1 Running');
  });

  it('is decided on by nothing that can not be meant', async () => {
    const bob = admin.as('bob');
    const decide = async (fields: object): Promise<string> => {
      const given = { workflow: name, digest: await digest(), decision: 'Approve', reason: 'fine' };
      const object = { metadata: { namespace, name: 'odd' }, spec: { ...given, ...fields } };
      return (await bob.create(approvals, object, { dryRun: true })).message;
    };
    expect(await decide({})).toBe('');
    expect(await decide({ digest: 'latest' })).toContain('64 hexadecimal digits');
    expect(await decide({ reason: ' ' })).toContain('must not be blank');
    expect(await decide({ expires: '2020-01-01T00:00:00Z' })).toContain('has passed already');
    expect(await decide({ decision: 'Reject', expires: '2099-01-01T00:00:00Z' })).toContain(
      'leave expires out',
    );
    const none = await cli('bob', 'approve', 'nobody', '--reason', 'fine');
    expect(none).toEqual({
      code: 1,
      text: `Error: there is no Workflow nobody in namespace ${namespace}.`,
    });
  });

  it('is not taken out of the approvals by its risk, its label, its deletion or its namespace', async () => {
    const lower = { spec: { risk: 'Low' } };
    expect((await alice.merge(workflows, key, lower)).message).toContain('needs 2 approvals');
    const unlabelled = await alice.merge(workflows, key, {
      metadata: { labels: { [label.approval]: null } },
    });
    expect(unlabelled.object.metadata.labels).toEqual({ [label.approval]: 'required' });
    const restamped = await alice.annotate(workflows, key, { [annotation.changedBy]: 'zoe' });
    expect(restamped.object.metadata.annotations).toMatchObject({
      [annotation.changedBy]: 'alice',
    });
    const groups = { [annotation.changedByGroups]: 'system:masters' };
    const joined = await alice.annotate(workflows, key, groups);
    expect(joined.object.metadata.annotations).toMatchObject({
      [annotation.changedByGroups]: 'system:authenticated',
    });
    expect((await alice.delete(workflows, key)).message).toContain('delete that first');
    const unguarded = await admin.merge(
      namespaces,
      { name: namespace },
      { metadata: { labels: { [label.environment]: null } } },
    );
    expect(unguarded.message).toContain('needs approval');
    // Whatever RBAC says.
    const itself = admin.as(`system:serviceaccount:${namespace}:${name}`, 'system:masters');
    const own = await itself.merge(workflows, key, { spec: { description: 'x' } });
    expect(own.message).toContain('an automation changes neither its own Workflow');
    const status = { status: { revision: { digest: '0'.repeat(64) } } };
    const forged = await admin
      .as('mallory', 'system:masters')
      .merge(workflows, key, status, { subresource: 'status' });
    // Who holds every verb may; nobody else.
    expect(forged.status).toBe(200);
    await untilApprovedIs('Approved');
    const waived = await admin.as('dave').merge(workflows, key, lower, { dryRun: true });
    expect(waived.message).toBe('');
  });

  it('waits for a kill switch too', async () => {
    await cli('bob', 'kill', name, '--reason', 'pays twice', '--wait=false');
    await untilPods();
    await cli('carol', 'release', name, '--reason', 'fixed');
    await untilPods('v1 Running');
  });
});

describe('pods of every kind of workload', () => {
  it('are known by their templates, whatever controllers and the API server add', async () => {
    const kinds = 'kinds';
    const manifests = automation({ namespace: kinds, name: 'ledger' }) as Manifest[];
    const volume = {
      metadata: { name: 'data' },
      spec: {
        accessModes: ['ReadWriteOnce'],
        resources: { requests: { storage: '1Gi' } },
      },
    };
    await controlPlane.apply(
      manifests.map((manifest) => {
        const { kind, spec: given } = manifest;
        switch (kind) {
          case 'Workflow':
            return { ...manifest, spec: { ...given, risk: 'Medium' } };
          case 'StatefulSet':
            return { ...manifest, spec: { ...given, volumeClaimTemplates: [volume] } };
          case 'Job':
            return {
              ...manifest,
              spec: { ...given, completionMode: 'Indexed', completions: 2, parallelism: 2 },
            };
          default:
            return manifest;
        }
      }),
    );
    const from = '--from=cronjob/ledger-import';
    await kubectlOk(controlPlane, ['create', 'job', 'by-hand', `-n=${kinds}`, from]);
    // One more than an automation has, of the second index, and one of the run by hand.
    const gates = async (): Promise<string[]> => {
      const found = await listObjects<PodView>(controlPlane, 'pods', kinds);
      if (found.length !== automationPods + 2) throw new Error(`${found.length} pods`);
      return found.flatMap(({ metadata, spec: { schedulingGates = [] } }) =>
        schedulingGates.map(() => metadata.name),
      );
    };
    await waitFor('all to wait', async () => (await gates()).length === automationPods + 2);
    const approved = await cli('bob', 'approve', 'ledger', '--reason', 'fine', '-n', kinds);
    expect(approved.text).toContain('What runs is approved by bob');
    await waitFor('all to start', async () => {
      const left = await gates();
      if (left.length > 0) throw new Error(left.join());
      return true;
    });
  });
});

interface CronJobSpec {
  jobTemplate: { metadata?: KubeObject['metadata']; spec: object };
}

function cronJobSpecOf({ spec: given }: object & { spec?: object }): CronJobSpec {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- by the API server's schema
  return given as CronJobSpec;
}

/** Where each run is approved by itself. */
const space = 'runs';

/** A CronJob there whose time comes within the minute: while it does, the tests go on. */
const minutely = { namespace: space, name: 'minutely' };

describe('a Workflow that asks for each run', () => {
  const states = async (): Promise<string[]> => {
    const found = await listObjects<PodView>(controlPlane, 'pods', space);
    return found
      .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
      .filter(({ metadata }) => !metadata.name.startsWith(minutely.name))
      .map(({ metadata, spec: { schedulingGates = [] } }) => {
        const run = metadata.name.replace(/-[a-z0-9]+$/, '');
        return `${run} ${schedulingGates.length > 0 ? 'waits' : 'starts'}`;
      })
      .toSorted();
  };
  const untilRuns = (...wanted: string[]): Promise<unknown> =>
    waitFor(wanted.join(', '), async () => {
      const now = await states();
      if (now.join() !== wanted.join()) throw new Error(now.join());
      return true;
    });
  const ask = async (run: string): Promise<void> => {
    const from = ['create', 'job', run, `-n=${space}`, '--from=cronjob/ledger-import'];
    await kubectlOk(controlPlane, from, { as: 'carol' });
  };

  it('starts those that somebody else approved, and no others', async () => {
    const [workflow, ...manifests] = (
      automation({ namespace: space, name: 'ledger' }) as Manifest[]
    )
      .filter(({ kind }) =>
        ['Workflow', 'Namespace', 'AutomationIdentity', 'CronJob'].includes(kind),
      )
      .toSorted((a, b) => (a.kind === 'Workflow' ? -1 : b.kind === 'Workflow' ? 1 : 0));
    const targets = [{ group: 'batch', kind: 'CronJob', name: 'ledger-import' }];
    await controlPlane.apply([
      ...manifests,
      {
        ...workflow,
        spec: { ...workflow?.spec, targets, approval: { per: 'Run', timeout: '1h' } },
      },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'RoleBinding',
        metadata: { name: 'carol', namespace: space },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'edit' },
        subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'carol' }],
      },
    ]);
    const revision = await cli('bob', 'approve', 'ledger', '--reason', 'fine', '-n', space);
    expect(revision.text).toContain('What runs is approved by bob');
    await waitFor('the right of carol, and the gate', async () => {
      await ask('first');
      return true;
    });
    await ask('second');
    await untilRuns('first waits', 'second waits');

    const listed = await cli('bob', 'approvals', 'ledger', '-n', space);
    expect(listed.text).toContain(
      'job/first waits for 1 of 1 approvals. As somebody else than carol',
    );
    const own = ['approve', 'ledger', '--run', 'job/first', '--reason', 'mine', '-n', space];
    expect((await cli('carol', ...own)).text).toContain('job/first waits');
    const none = ['approve', 'ledger', '--run', 'third', '--reason', 'x', '-n', space];
    expect((await cli('bob', ...none)).text).toContain('there is job/first, job/second');

    // One that passes for a pod of a Job that is approved.
    const [job] = await listObjects<KubeObject>(controlPlane, 'jobs', space);
    const forged = {
      metadata: {
        namespace: space,
        name: 'forged',
        ownerReferences: [
          {
            apiVersion: 'batch/v1',
            kind: 'Job',
            name: job?.metadata.name ?? '',
            uid: job?.metadata.uid ?? '',
            controller: true,
          },
        ],
      },
      spec: { serviceAccountName: 'ledger', containers: [{ name: 'main', image: 'x' }] },
    };
    expect((await admin.as('carol').create(pods, forged)).message).toContain(
      'a pod belongs to a run by who made it',
    );

    const approved = await cli('bob', ...own);
    expect(approved.text).toContain('job/first is approved by bob');
    await untilRuns('first starts', 'second waits');

    const rejected = ['reject', 'ledger', '--run', 'second', '--reason', 'twice', '-n', space];
    expect((await cli('bob', ...rejected)).text).toContain('job/second is rejected by bob');
    await untilRuns('first starts');
    const stopped = await getObject<KubeObject & { spec: { suspend?: boolean } }>(
      controlPlane,
      'job',
      'second',
      space,
    );
    expect(stopped?.spec.suspend).toBe(true);
    expect(stopped?.metadata.annotations?.[annotation.runRejected]).toContain('rejected by bob');
  });

  it('waits for somebody else than who wrote the schedule that starts it', async () => {
    const { cronJobs, jobs } = resources;
    const cronJob = { namespace: space, name: 'ledger-import' };
    const run = { namespace: space, name: 'scheduled' };
    const carol = admin.as('carol');
    const suspend = (is: boolean): object => ({ spec: { suspend: is } });
    const stampAfter = async (
      by: Api,
      patch: object,
      options: CallOptions = {},
    ): Promise<unknown> => {
      const answer = await by.merge(cronJobs, cronJob, patch, options);
      expect(answer.message).toBe('');
      return cronJobSpecOf(answer.object).jobTemplate.metadata?.annotations?.[
        annotation.scheduledBy
      ];
    };
    const dryRun = { dryRun: true };
    // From before its Workflow: nobody knows.
    expect(await stampAfter(alice, suspend(true), dryRun)).toBeUndefined();
    expect(await stampAfter(carol, { spec: { schedule: '0 4 1 1 *' } })).toBe('carol');
    const marked = { metadata: { annotations: { [annotation.scheduledBy]: 'zoe' } } };
    expect(await stampAfter(alice, { spec: { jobTemplate: marked } }, dryRun)).toBe('carol');
    const parallel = { spec: { jobTemplate: { spec: { parallelism: 9 } } } };
    expect(await stampAfter(alice, parallel, dryRun)).toBe('alice');
    expect(await stampAfter(alice, suspend(true))).toBe('carol');
    expect(await stampAfter(alice, suspend(false), dryRun)).toBe('alice');
    // As the operator puts it back after a kill.
    const account = 'system:serviceaccount:automation-guardrails:automation-guardrails';
    expect(await stampAfter(admin.as(account, 'system:masters'), suspend(false))).toBe('carol');

    // Another one, whose time comes within the minute.
    const often = { schedule: '* * * * *', concurrencyPolicy: 'Forbid' };
    const { spec: like } = (await admin.get(cronJobs, cronJob)).object;
    const another = { metadata: minutely, spec: { ...like, ...often } } as KubeObject;
    expect((await carol.create(cronJobs, another)).message).toBe('');

    // As its controller does when the time has come.
    const { object } = await admin.get(cronJobs, cronJob);
    const { jobTemplate } = cronJobSpecOf(object);
    const controller = { apiVersion: 'batch/v1', kind: 'CronJob', controller: true };
    const made = await admin
      .as('system:serviceaccount:kube-system:cronjob-controller', 'system:masters')
      .create(jobs, {
        metadata: {
          ...run,
          ...jobTemplate.metadata,
          ownerReferences: [{ ...controller, name: cronJob.name, uid: object.metadata.uid ?? '' }],
        },
        spec: jobTemplate.spec,
      } as KubeObject);
    expect(made.message).toBe('');
    await untilRuns('first starts', 'scheduled waits');
    const cleared = await alice.annotate(jobs, run, { [annotation.scheduledBy]: null });
    expect(cleared.message).toContain('says who asked for this run');
    // Who changes the schedule afterwards has not asked for this one.
    expect(await stampAfter(alice, { spec: { schedule: '0 5 1 1 *' } })).toBe('alice');

    const approve = ['approve', 'ledger', '--run', 'job/scheduled', '--reason', 'x', '-n', space];
    expect((await cli('carol', ...approve)).text).toContain(
      'job/scheduled waits for 1 of 1 approvals. As somebody else than carol',
    );
    expect((await cli('bob', ...approve)).text).toContain('job/scheduled is approved by bob');
    await untilRuns('first starts', 'scheduled starts');
  });

  it('is stopped when its time is over, and can not be approved any more', async () => {
    const suspended = (run: string): Promise<string> =>
      waitFor(`${run} to be suspended`, async () => {
        const { object } = await admin.get(resources.jobs, { namespace: space, name: run });
        if (object.spec?.suspend !== true) return undefined;
        return object.metadata.annotations?.[annotation.runRejected];
      });
    await ask('third');
    await untilRuns('first starts', 'scheduled starts', 'third waits');
    const asked = { spec: { approval: { timeout: '1s' } } };
    const shorter = await admin.merge(workflows, { namespace: space, name: 'ledger' }, asked);
    expect(shorter.message).toBe('');
    expect(await suspended('third')).toContain('job/third was not approved in time');
    // One that is asked for later goes by its own clock.
    await ask('fourth');
    expect(await suspended('fourth')).toContain('job/fourth was not approved in time');
    await untilRuns('first starts', 'scheduled starts');
    const late = ['approve', 'ledger', '--run', 'job/third', '--reason', 'late', '-n', space];
    expect(await cli('bob', ...late)).toMatchObject({ code: 1 });
    await waitFor('the event', async () => {
      const events = await kubectlOk(controlPlane, ['events', `-n=${space}`]);
      return /JobApprovalTimedOut.*job\/third was not approved in time/.test(events);
    });
    expect(await suspended('third')).toContain('not approved in time');
  });
});

describe('who asks for what he is not allowed himself', () => {
  it('has it held, whoever approves; somebody who is allowed can ask for it', async () => {
    const of = { namespace: 'asked', name: 'scribe' };
    const becomes = (resource: Resource, status: string): Promise<Condition> =>
      waitFor(`RequesterAllowed of ${resource.plural} to be ${status}`, async () => {
        const { object } = await admin.get(resource, of);
        const found = object.status?.conditions?.find(({ type }) => type === 'RequesterAllowed');
        const isSeen = found?.observedGeneration === object.metadata.generation;
        return found?.status === status && isSeen ? found : undefined;
      });
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: of.namespace, labels: { [label.environment]: 'prod' } },
      },
    ]);
    const noah = admin.as('noah', 'writers');
    const scribe = deployment('s1');
    const asks = {
      owner,
      risk: 'Medium',
      targets: [{ group: 'apps', kind: 'Deployment', name: of.name }],
    };
    const created = await noah.create(workflows, { metadata: of, spec: asks } as KubeObject);
    expect(created.object.metadata.annotations).toEqual({
      [annotation.changedBy]: 'noah',
      [annotation.changedByGroups]: 'writers\nsystem:authenticated',
    });
    const permissions = [
      { apiGroups: [''], resources: ['configmaps'], verbs: ['get'], reason: 'its settings' },
    ];
    await noah.create(automationIdentities, {
      metadata: of,
      spec: { purpose: 'writes letters', owner, permissions },
    } as KubeObject);
    const { message } = await becomes(workflows, 'False');
    expect(message).toContain(
      "noah asked for what he isn't allowed himself: update deployments.apps scribe.",
    );
    expect((await becomes(automationIdentities, 'False')).message).toContain('get configmaps');
    const approve = ['approve', of.name, '--reason', 'fine', '-n', of.namespace];
    expect((await cli('bob', ...approve)).text).toContain('What runs is approved by bob');
    const states = async (): Promise<string[]> =>
      (await listObjects<PodView>(controlPlane, 'pods', of.namespace)).flatMap(
        ({ spec: { schedulingGates = [] } }) => schedulingGates.map((gate) => gate.name),
      );
    // Not even its ServiceAccount is made, so that there is no pod.
    expect(await listObjects<PodView>(controlPlane, 'pods', of.namespace)).toEqual([]);

    const touched = { spec: { description: 'writes letters' } };
    const asErin = admin.as('erin');
    expect((await asErin.merge(workflows, of, touched)).message).toBe('');
    expect(
      (await asErin.merge(automationIdentities, of, { spec: { purpose: 'letters' } })).message,
    ).toBe('');
    await becomes(workflows, 'True');
    await becomes(automationIdentities, 'True');
    const made = await alice.create(deployments, {
      ...scribe,
      metadata: of,
      spec: {
        ...scribe.spec,
        template: {
          metadata: { labels: { app: name } },
          spec: {
            serviceAccountName: of.name,
            automountServiceAccountToken: false,
            containers: [{ name: 'main', image: 's1' }],
          },
        },
      },
    } as KubeObject);
    expect(made.message).toBe('');
    await waitFor('the pod to wait', async () => (await states()).join() === approvalGate);
    expect((await cli('bob', ...approve)).text).toContain('What runs is approved by bob');
    await waitFor('the pod to start', async () => (await states()).length === 0);
  });
});

describe('a GuardrailPolicy', () => {
  const { guardrailPolicies } = resources;
  const sandbox = { namespace: 'sandbox', name: 'clerk' };
  const guarded = (environment: string): object => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: environment, labels: { [label.environment]: environment } },
  });
  const identity = {
    purpose: 'files letters',
    owner,
    tokens: [{ name: 'vault', audience: 'https://vault.example.com', expirationSeconds: 3600 }],
  };
  const asked: Workflow['spec'] = {
    owner,
    targets: [{ group: 'apps', kind: 'Deployment', name: 'clerk' }],
  };
  const conditionOf = async (
    resource: Resource,
    of: { namespace: string; name: string },
    type: string,
    reason: string,
  ): Promise<Condition> =>
    await waitFor(`${type} of ${of.name} to be ${reason}`, async () => {
      const { object } = await admin.get(resource, of);
      return object.status?.conditions?.find((one) => one.type === type && one.reason === reason);
    });
  const enforce = async (enforcement: string): Promise<void> => {
    const answer = await admin.merge(
      guardrailPolicies,
      { name: 'default' },
      { spec: { enforcement } },
    );
    expect(answer.message).toBe('');
  };

  beforeAll(async () => {
    await controlPlane.apply([
      guarded('sandbox'),
      guarded('lab'),
      {
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'GuardrailPolicy',
        metadata: { name: 'default' },
        spec: {
          enforcement: 'Audit',
          environments: [{ name: 'sandbox', tier: 'test' }],
          tiers: [
            {
              name: 'test',
              approvals: { low: 1 },
              approvers: [{ risk: 'Low', groups: ['leads', 'security'] }],
              ceilings: { tokenLifetime: '30m', egressPrefixIPv4: 24, reviewInterval: '720h' },
              required: ['Ticket'],
            },
          ],
        },
      },
    ]);
    await waitFor('the policy to be in force', async () => {
      const answer = await alice.create(
        workflows,
        { metadata: sandbox, spec: asked } as KubeObject,
        { dryRun: true },
      );
      return answer.object.metadata.labels?.[label.approval] === 'by-policy';
    });
  });

  it('asks for approvals that the risk alone does not', async () => {
    const created = await alice.create(workflows, {
      metadata: sandbox,
      spec: asked,
    } as KubeObject);
    expect(created.object.metadata.labels).toEqual({ [label.approval]: 'by-policy' });
    const pod = {
      metadata: sandbox,
      spec: {
        serviceAccountName: sandbox.name,
        automountServiceAccountToken: false,
        containers: [{ name: 'main', image: 'x' }],
      },
    };
    expect(
      (
        await admin.create(automationIdentities, {
          metadata: sandbox,
          spec: identity,
        } as KubeObject)
      ).message,
    ).toBe('');
    const { message } = await conditionOf(workflows, sandbox, 'Approved', 'NotApproved');
    expect(message).toContain('1 of 1 approval missing');
    await waitFor('its ServiceAccount', async () => {
      const answer = await alice.create(pods, pod, { dryRun: true });
      if (answer.status !== 201) throw new Error(answer.message);
      const { schedulingGates = [] } = answer.object.spec as PodView['spec'];
      return schedulingGates.length === 1;
    });
    const lower = { metadata: { labels: { [label.approval]: null } } };
    const kept = await alice.merge(workflows, sandbox, lower, { dryRun: true });
    expect(kept.object.metadata.labels).toEqual({ [label.approval]: 'by-policy' });
    const moved = await admin
      .as('system:serviceaccount:ci:pipeline', 'system:masters')
      .merge(
        namespaces,
        { name: 'sandbox' },
        { metadata: { labels: { [label.environment]: 'dev' } } },
        { dryRun: true },
      );
    expect(moved.message).toContain('another environment may ask for fewer');
  });

  it('counts the approvals of the groups that it names, as admission stamped them', async () => {
    const decision = async (decisionName: string, fields: object = {}): Promise<KubeObject> => {
      const { object } = await admin.get(workflows, sandbox);
      const { digest: current } = (object as Workflow).status?.revision ?? { digest: '' };
      const given = {
        workflow: sandbox.name,
        digest: current,
        decision: 'Approve',
        reason: 'fine',
      };
      return {
        metadata: { namespace: sandbox.namespace, name: decisionName },
        spec: { ...given, ...fields },
      } as KubeObject;
    };
    const outsider = admin.as('bob', 'sales');
    const forged = await outsider.create(
      approvals,
      await decision('forged', { approverGroups: ['leads'] }),
      { dryRun: true },
    );
    expect(forged.object.spec).toMatchObject({ approver: 'bob', approverGroups: [] });
    expect((await outsider.create(approvals, await decision('bob'))).message).toBe('');
    await waitFor('bob to be told', async () => {
      const { message } = await conditionOf(workflows, sandbox, 'Approved', 'NotApproved');
      return message.includes('bob approved it, and is in none of these groups');
    });
    const insider = admin.as('carol', 'security');
    const made = await insider.create(approvals, await decision('carol'));
    expect(made.object.spec).toMatchObject({ approver: 'carol', approverGroups: ['security'] });
    const { message } = await conditionOf(workflows, sandbox, 'Approved', 'Approved');
    expect(message).toContain('approved by carol');
  });

  it('reports first, then warns, then refuses and holds, by the name of the ceiling', async () => {
    const { message } = await conditionOf(
      automationIdentities,
      sandbox,
      'PolicyViolation',
      'Reported',
    );
    expect(message).toContain('ceilings.tokenLifetime: tokens vault live longer than 30m');
    expect(message).toContain('ceilings.reviewInterval');
    const ofWorkflow = await conditionOf(workflows, sandbox, 'PolicyViolation', 'Reported');
    expect(ofWorkflow.message).toContain('required: missing spec.change.ticket');
    await waitFor('the counts', async () => {
      const { object } = await admin.get(guardrailPolicies, { name: 'default' });
      const { violations } = (object as GuardrailPolicy).status ?? {};
      return (violations?.workflows ?? 0) > 0 && (violations?.automationIdentities ?? 0) > 0;
    });
    const another = (asks: object): Promise<Answer> =>
      admin.create(
        automationIdentities,
        { metadata: { ...sandbox, name: 'other' }, spec: asks } as KubeObject,
        { dryRun: true },
      );
    expect((await another(identity)).warnings).toEqual([]);

    await enforce('Warn');
    await waitFor('a warning', async () =>
      (await another(identity)).warnings.some((text) => text.includes('ceiling tokenLifetime')),
    );

    await enforce('Enforce');
    await waitFor('a refusal', async () =>
      (await another(identity)).message.includes(
        'beyond the ceiling tokenLifetime of the GuardrailPolicy default in test: tokens live at most 30m: write expirationSeconds: 1800, or less',
      ),
    );
    const within = { ...identity, tokens: [], accessReview: { every: '720h' } };
    expect((await another(within)).message).toBe('');
    const wide = { spec: { egress: [{ cidr: '10.0.0.0/8', reason: 'all' }] } };
    const wider = await alice.merge(workflows, sandbox, wide, { dryRun: true });
    expect(wider.message).toContain('the widest network in spec.egress is /24');
    const untold = await alice.merge(
      workflows,
      sandbox,
      { spec: { description: 'files letters' } },
      { dryRun: true },
    );
    expect(untold.message).toContain('missing spec.change.ticket');
    await conditionOf(automationIdentities, sandbox, 'PolicyViolation', 'Enforced');
    const held = await conditionOf(automationIdentities, sandbox, 'Held', 'PolicyViolation');
    expect(held.message).toContain('ceilings.tokenLifetime');
    // Nobody is kept from stopping it.
    const kill = { [annotation.killSwitch]: 'files too many' };
    expect((await alice.annotate(workflows, sandbox, kill, { dryRun: true })).message).toBe('');
  });

  it('is one, and says what environments there are', async () => {
    const second = await admin.create(guardrailPolicies, {
      metadata: { name: 'other' },
      spec: {},
    } as KubeObject);
    expect(second.message).toContain("it is called 'default'");
    const lab = { namespace: 'lab', name: 'clerk' };
    await alice.create(workflows, { metadata: lab, spec: asked } as KubeObject);
    const held = await waitFor('Held', async () => {
      const { object } = await admin.get(workflows, lab);
      const found = object.status?.conditions?.find(({ type }) => type === 'Held');
      return found?.message.includes('Unknown environment lab') === true ? found : undefined;
    });
    expect(held.status).toBe('True');
    await admin.merge(
      guardrailPolicies,
      { name: 'default' },
      { spec: { environments: [{ name: 'lab', tier: 'dev' }] } },
    );
    await conditionOf(workflows, lab, 'Held', 'IdentityMissing');
  });

  afterAll(async () => {
    await admin.delete(guardrailPolicies, { name: 'default' });
  });
});

/** What each role of the table may do, tried by dry runs. */
const users: Record<Person, { user: string; roles: string[] }> = {
  requester: { user: 'alice-alone', roles: ['automation-guardrails-requester', 'edit'] },
  colleague: { user: 'gwen', roles: ['automation-guardrails-requester', 'edit'] },
  approver: { user: 'lena', roles: ['automation-guardrails-approver'] },
  'self-approver': {
    user: 'erin',
    roles: ['automation-guardrails-approver', 'automation-guardrails-releaser'],
  },
  waiver: { user: 'dave', roles: [] },
  killer: { user: 'henry', roles: ['automation-guardrails-killer'] },
  releaser: { user: 'ida', roles: ['automation-guardrails-releaser'] },
  editor: { user: 'joe', roles: ['edit'] },
  reader: { user: 'kim', roles: ['view', 'automation-guardrails-viewer'] },
  automation: { user: `system:serviceaccount:${namespace}:${name}`, roles: [] },
  gitops: {
    user: 'system:serviceaccount:ci:pipeline',
    roles: [
      'edit',
      ...['requester', 'approver', 'approval-waiver', 'killer', 'releaser'].map(
        (role) => `automation-guardrails-${role}`,
      ),
    ],
  },
  operator: {
    user: 'system:serviceaccount:automation-guardrails:automation-guardrails',
    roles: [],
  },
};

describe('who may do what', () => {
  let tries: Record<ActionId, (api: Api) => Promise<Answer>>;

  beforeAll(async () => {
    const apiGroup = 'rbac.authorization.k8s.io';
    await controlPlane.apply(
      Object.entries(users).flatMap(([person, { user, roles: given }]) =>
        given.map((role) => ({
          apiVersion: `${apiGroup}/v1`,
          kind: 'ClusterRoleBinding',
          metadata: { name: `who-${person}-${role}` },
          roleRef: { apiGroup, kind: 'ClusterRole', name: role },
          subjects: [{ kind: 'User', apiGroup, name: user }],
        })),
      ),
    );
    // As the table has it: who changed the Workflow holds no other right.
    const touched = { spec: { description: 'posts invoices' } };
    await waitFor('her rights', async () => {
      const { status } = await admin.as('alice-alone').merge(workflows, key, touched);
      return status === 200;
    });
    await untilApprovedIs('NotApproved');
    const current = await digest();
    const decision = (fields: object = {}): KubeObject =>
      ({
        metadata: { namespace, name: 'try' },
        spec: { workflow: name, digest: current, decision: 'Approve', reason: 'try', ...fields },
      }) as KubeObject;
    const made = async (by: string, is: string): Promise<{ namespace: string; name: string }> => {
      const of = { namespace, name: `${by}-${is.toLowerCase()}` };
      // Of a digest that doesn't matter.
      const object = decision({ decision: is, digest: '0'.repeat(64) });
      const answer = await admin.as(by).create(approvals, { ...object, metadata: of });
      expect(answer.message).toBe('');
      return of;
    };
    const approval = await made('carol', 'Approve');
    const rejection = await made('carol', 'Reject');
    const pod = (podName: string): KubeObject =>
      ({
        metadata: { namespace, name: podName, labels: { [label.identity]: name } },
        spec: {
          serviceAccountName: name,
          containers: [{ name: 'main', image: 'unapproved' }],
        },
      }) as KubeObject;
    const waiting = { namespace, name: 'waiting' };
    expect((await admin.create(pods, pod(waiting.name))).message).toBe('');
    // One that somebody else changed last, and who engaged is neither of those who release.
    const relay = { namespace, name: 'relay' };
    const stopped = { metadata: relay, spec: { workflow: relay.name, reason: 'x' } } as KubeObject;
    const asErin = admin.as('erin');
    const killed = { ...spec, targets: [{ group: 'apps', kind: 'Deployment', name: relay.name }] };
    await asErin.create(workflows, { metadata: relay, spec: killed } as KubeObject);
    expect((await admin.create(resources.killSwitches, stopped)).message).toBe('');
    const dryRun = { dryRun: true };
    const refused = (answer: Answer): Answer => ({ ...answer, status: 403 });
    const remove =
      (resource: Resource, of: { namespace: string; name: string }) =>
      (api: Api): Promise<Answer> =>
        api.send({ method: 'DELETE', url: path(resource, of), dryRun: true });
    const container = (containerName: string): object => ({ name: containerName, image: 'x' });
    const patch = (api: Api, url: string, body: object): Promise<Answer> =>
      api.send({
        method: 'PATCH',
        type: 'application/strategic-merge-patch+json',
        url,
        body,
        dryRun: true,
      });
    tries = {
      read: async (api) => {
        const { status } = await api.get(workflows, key);
        // The operator lists decisions, and never gets one by its name.
        const answer = await api.send({ method: 'GET', url: path(approvals, { namespace }) });
        return status === 200 ? answer : refused(answer);
      },
      change: (api) => api.merge(workflows, key, { spec: { description: 'x' } }, dryRun),
      lower: (api) => api.merge(workflows, key, { spec: { risk: 'Medium' } }, dryRun),
      delete: remove(workflows, key),
      restamp: async (api) => {
        const mark = { [annotation.changedBy]: 'zoe' };
        const answer = await api.annotate(workflows, key, mark, dryRun);
        const stamp = answer.object.metadata?.annotations?.[annotation.changedBy];
        return stamp === 'zoe' ? answer : refused(answer);
      },
      approve: (api) => api.create(approvals, decision(), dryRun),
      reject: (api) => api.create(approvals, decision({ decision: 'Reject' }), dryRun),
      'approve-as': async (api) => {
        const answer = await api.create(approvals, decision({ approver: 'zoe' }), dryRun);
        const stored = answer.object.spec as { approver?: string } | undefined;
        return stored?.approver === 'zoe' ? answer : refused(answer);
      },
      'edit-decision': (api) => api.merge(approvals, approval, { spec: { reason: 'x' } }, dryRun),
      withdraw: remove(approvals, approval),
      'withdraw-rejection': remove(approvals, rejection),
      'forge-status': (api) =>
        api.merge(
          workflows,
          key,
          { status: { observedGeneration: 0 } },
          { ...dryRun, subresource: 'status' },
        ),
      start: async (api) => {
        const answer = await api.create(pods, pod('start'), dryRun);
        const stored = answer.object.spec as { schedulingGates?: object[] } | undefined;
        return (stored?.schedulingGates ?? []).length > 0 ? refused(answer) : answer;
      },
      lift: (api) => api.merge(pods, waiting, { spec: { schedulingGates: null } }, dryRun),
      inject: (api) =>
        patch(api, path(pods, waiting), { spec: { containers: [container('main')] } }),
      debug: (api) =>
        patch(api, path(pods, waiting, { subresource: 'ephemeralcontainers' }), {
          spec: { ephemeralContainers: [container('debug')] },
        }),
      kill: (api) =>
        api.create(
          resources.killSwitches,
          { metadata: key, spec: { workflow: name, reason: 'x' } } as KubeObject,
          dryRun,
        ),
      release: (api) =>
        api.annotate(resources.killSwitches, relay, { [annotation.release]: 'x' }, dryRun),
    };
  });

  it.each(people)('is as the table says: $name', async ({ name: person }) => {
    const { user } = users[person];
    const groups = user.startsWith('system:serviceaccount:')
      ? ['system:serviceaccounts', 'system:authenticated']
      : ['system:authenticated'];
    const api = admin.as(user, ...groups);
    const found: string[] = [];
    const surprises: string[] = [];
    for (const { id } of actions) {
      const { status, message } = await tries[id](api);
      if (status < 300) found.push(id);
      // Whatever else refuses it isn't what the table speaks of.
      else if (status !== 403 && status !== 422) surprises.push(`${id}: ${message}`);
    }
    const told = (actions as readonly Action[]).filter(({ by }) => by.includes(person));
    expect(surprises).toEqual([]);
    expect(found).toEqual(told.map(({ id }) => id));
  });

  afterAll(async () => {
    await admin.delete(pods, { namespace, name: 'waiting' });
    await alice.merge(workflows, key, { spec: { description: null } });
  });
});

const evil = (containerName: string): object => ({ name: containerName, image: 'evil' });

describe('with no operator', () => {
  beforeAll(async () => {
    operator.kill();
    await operator.exited;
    await setImage('v4');
    await untilPods('v1 Running', 'v4 waits');
  });

  it('a change runs by no path, and no decision is forged, edited, or made by who asked', async () => {
    const everything = admin.as('mallory', 'system:masters');
    const list = await listObjects<PodView>(controlPlane, 'pods', namespace);
    const nameOf = (isGated: boolean): string =>
      list
        .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
        .find(({ spec: { schedulingGates = [] } }) => schedulingGates.length > 0 === isGated)
        ?.metadata.name ?? '';
    const waiting = { namespace, name: nameOf(true) };
    const runs = { namespace, name: nameOf(false) };
    const strategic = 'application/strategic-merge-patch+json';
    const patch = (url: string, body: object): Promise<Answer> =>
      everything.send({ method: 'PATCH', type: strategic, url, body });
    const node = { apiVersion: 'v1', kind: 'Node', name: 'node-0' };
    const onNode = {
      metadata: { namespace, name: 'placed' },
      spec: { serviceAccountName: name, nodeName: node.name, containers: [evil('main')] },
    };
    const refusals: [Promise<Answer>, string | RegExp][] = [
      [everything.merge(pods, waiting, { spec: { schedulingGates: null } }), 'the operator alone'],
      [
        everything.send({
          method: 'POST',
          url: path(pods, waiting, { subresource: 'binding' }),
          body: { apiVersion: 'v1', kind: 'Binding', metadata: waiting, target: node },
        }),
        'schedulingGates',
      ],
      [everything.create(pods, onNode), 'nodeName'],
      [patch(path(pods, runs), { spec: { containers: [evil('main')] } }), 'what was approved'],
      [
        patch(path(pods, runs, { subresource: 'ephemeralcontainers' }), {
          spec: { ephemeralContainers: [evil('debug')] },
        }),
        'what was approved',
      ],
      [alice.merge(workflows, key, { spec: { risk: 'Low' } }), 'needs 2 approvals'],
      [alice.delete(workflows, key), 'delete that first'],
      [
        everything.merge(
          namespaces,
          { name: namespace },
          { metadata: { labels: { [label.environment]: null } } },
        ),
        // Of two policies, either answers first: another automation here is killed.
        /needs approval|the kill switch of relay is engaged/,
      ],
      [
        alice.merge(workflows, key, { status: { holds: [] } }, { subresource: 'status' }),
        'cannot patch resource',
      ],
    ];
    for (const [answer, sentence] of refusals) expect((await answer).message).toMatch(sentence);

    const decide = async (by: Api, fields: object = {}): Promise<Answer> =>
      await by.create(
        approvals,
        {
          metadata: { namespace, name: 'forged' },
          spec: {
            workflow: name,
            digest: await digest(),
            decision: 'Approve',
            reason: 'x',
            ...fields,
          },
        } as KubeObject,
        { dryRun: true },
      );
    const forged = await decide(admin.as('bob'), { approver: 'carol' });
    expect(forged.object.spec).toMatchObject({ approver: 'bob' });
    // The names of one account, for an API server whose authenticator tells none of them apart.
    for (const user of ['alice', 'ALICE']) {
      const own = await decide(admin.as(user, 'system:masters'));
      expect(own.message).toContain(`${user} changed the Workflow poster last`);
    }
    const account = await decide(admin.as('system:serviceaccount:ci:pipeline', 'system:masters'));
    expect(account.message).toContain('a ServiceAccount may not decide');
    const [made] = await listObjects<KubeObject>(controlPlane, 'approvals', namespace);
    const reused = await everything.merge(
      approvals,
      { namespace, name: made?.metadata.name ?? '' },
      { spec: { digest: '1'.repeat(64) } },
    );
    expect(reused.message).toContain("can't be changed");
    expect(await podStates()).toEqual(['v1 Running', 'v4 waits']);
  });

  it('nothing starts, whoever approves; and it starts once an operator is back', async () => {
    const spawned = {
      metadata: { namespace, name: 'job' },
      spec: {
        template: {
          spec: {
            serviceAccountName: name,
            automountServiceAccountToken: false,
            restartPolicy: 'Never',
            containers: [{ name: 'main', image: 'v4', command: ['drain'] }],
          },
        },
      },
    };
    expect((await alice.create(resources.jobs, spawned as KubeObject)).message).toBe('');
    await untilPods('v1 Running', 'v4 waits', 'v4 waits');
    const early = await cli('bob', 'approve', name, '--reason', 'blind', '--timeout', '1');
    expect(early.text).toContain('Is it running');

    operator = await startOperator({ kubeconfigPath, args });
    await untilApprovedIs('NotApproved');
    expect((await cli('bob', 'approve', name, '--reason', 'reviewed')).code).toBe(0);
    operator.kill();
    await operator.exited;
    // Made while no operator looks: it counts when one does.
    const last = await cli('carol', 'approve', name, '--reason', 'ok', '--expires-in', '2s');
    expect(last.code).toBe(0);
    expect(await podStates()).toEqual(['v1 Running', 'v4 waits', 'v4 waits']);
    operator = await startOperator({ kubeconfigPath, args });
    await untilApprovedIs('Expired');
    await cli('carol', 'approve', name, '--reason', 'ok', '--expires-in', '1h');
    await untilPods('v4 Running', 'v4 waits');
  });
});

describe('a Job that the CronJob controller made', () => {
  it('carries who wrote its schedule', async () => {
    const job = await waitFor(
      'the minute to be over',
      async () => {
        const jobs = await listObjects<KubeObject>(controlPlane, 'jobs', space);
        return jobs.find(({ metadata }) => metadata.name.startsWith(minutely.name));
      },
      { timeoutMs: 110_000 },
    );
    expect(job.metadata.annotations).toMatchObject({
      [annotation.scheduledBy]: 'carol',
      [annotation.changedBy]: 'system:serviceaccount:kube-system:cronjob-controller',
    });
  });
});
