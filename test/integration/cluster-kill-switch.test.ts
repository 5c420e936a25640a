import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ClusterKillSwitch } from '../../src/api/cluster-kill-switch.ts';
import type { KillSwitch } from '../../src/api/kill-switch.ts';
import { run as guardrails } from '../../src/cli/run.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  bob,
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitForPods,
  waitUntilGone,
} from '../operator/cluster.ts';
import {
  startOperator,
  startReplicas,
  type OperatorProcess,
} from '../operator/operator-process.ts';

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let operators: OperatorProcess[] = [];

/** Two of prod, of which one is stopped by itself as well, and one of another environment. */
const namespaces = { 'prod-a': 'prod', 'prod-b': 'prod', other: 'test' } as const;
const cksw = { kind: 'cksw', name: 'prod', namespace: '' };

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  for (const [namespace, environment] of Object.entries(namespaces)) {
    await controlPlane.apply(automation({ namespace, environment }));
  }
});

afterAll(async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  await controlPlane?.stop();
});

async function cli(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await guardrails({
    argv: [...argv, `--kubeconfig=${controlPlane.kubeconfigPath}`],
    stdout: (line) => out.push(line),
    stderr: (line) => err.push(line),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

async function createsPod(namespace: string): Promise<string> {
  const { stderr } = await controlPlane.kubectl(
    ['create', '--dry-run=server', `-n=${namespace}`, '-f', '-'],
    {
      input: JSON.stringify({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'one-more' },
        spec: {
          automountServiceAccountToken: false,
          containers: [{ name: 'main', image: 'registry.example/automation:1' }],
        },
      }),
    },
  );
  return stderr;
}

const refuses = (namespace: string): Promise<true> =>
  waitFor(`the fence in ${namespace}`, async () =>
    (await createsPod(namespace)).includes('kill switch: key leaked (engaged by admin)'),
  );

it('fences an environment by one object while no operator runs, and nothing else', async () => {
  const { code, out } = await cli(
    'kill',
    '--environment=prod',
    '--reason=key leaked',
    '--wait=false',
  );
  expect([code, out]).toEqual([0, 'Kill switch engaged for environment prod.']);
  await refuses('prod-a');
  await refuses('prod-b');
  expect(await createsPod('other')).not.toContain('kill switch');

  const token = await controlPlane.kubectl(['create', 'token', 'invoice', '-n=prod-a']);
  expect(token.stderr).toMatch(/kill switch: key leaked|not found/);
  const relabelled = await controlPlane.kubectl([
    'label',
    'namespace',
    'prod-a',
    'automationguardrails.dev/environment=dev',
    '--overwrite',
  ]);
  expect(relabelled.stderr).toContain('the ClusterKillSwitch prod stops this namespace');
  const edited = await controlPlane.kubectl([
    'patch',
    'cksw',
    'prod',
    '--type=merge',
    '-p={"spec":{"environments":["dev"]}}',
  ]);
  expect(edited.stderr).toContain("can't be changed");
  const deleted = await controlPlane.kubectl(['delete', 'cksw', 'prod', '--wait=false']);
  expect(deleted.stderr).toContain('kubectl guardrails release --cluster prod --reason TEXT');
});

it('fences the Workflows that its status lists, by that one write', async () => {
  const name = 'team-nobody';
  await controlPlane.apply([
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'ClusterKillSwitch',
      metadata: { name },
      spec: { teams: ['nobody'], reason: 'rogue' },
    },
  ]);
  const list = (fenced: object): Promise<string> =>
    kubectlOk(controlPlane, [
      'patch',
      'cksw',
      name,
      '--subresource=status',
      '--type=merge',
      `-p=${JSON.stringify({ status: { fenced } })}`,
    ]);
  const isRefused = async (): Promise<boolean> =>
    (await createsPod('other')).includes(
      'kill switch: rogue (engaged by admin); to release: kubectl guardrails release --cluster team-nobody',
    );
  const probe = (): Promise<{ code: number; stderr: string }> =>
    controlPlane.kubectl([
      'annotate',
      'cksw',
      name,
      'automationguardrails.dev/probe=fence',
      '--dry-run=server',
    ]);
  expect(await isRefused()).toBe(false);
  // Without a list there is nothing that a refusal could prove.
  expect((await probe()).code).toBe(0);
  await list({ other: ['default'], elsewhere: ['x'] });
  await waitFor('the list to be the fence', isRefused);
  const token = await controlPlane.kubectl(['create', 'token', 'default', '-n=other']);
  expect(token.stderr).toContain('kill switch: rogue');
  // Its own probe is answered by the list that admission goes by.
  expect((await probe()).stderr).toContain('kill switch: rogue');
  await list({ other: ['somebody-else'] });
  await waitFor('the list without it', async () => !(await isRefused()));
  const forged = await controlPlane.kubectl(
    [
      'patch',
      'cksw',
      name,
      '--subresource=status',
      '--type=merge',
      '-p={"status":{"fenced":null}}',
    ],
    { as: 'rita' },
  );
  expect(forged.code).not.toBe(0);
  await kubectlOk(
    controlPlane,
    ['annotate', 'cksw', name, 'automationguardrails.dev/release=mistyped'],
    bob,
  );
});

it('stops what runs in each of its namespaces, once an operator runs', async () => {
  // Somebody stopped one of them by himself before.
  const argv = ['kill', '--whole-namespace', '-n=prod-b', '--reason=by itself', '--wait=false'];
  expect(await cli(...argv)).toMatchObject({ code: 0, err: '' });
  operators = await startReplicas({ kubeconfigPath });
  await waitForCondition(controlPlane, cksw, 'Effective');
  const { status } = (await getObject<ClusterKillSwitch>(controlPlane, 'cksw', 'prod', '')) ?? {};
  expect(status?.namespaces).toEqual({ total: 2, stopped: 2, effective: 2 });
  expect(status?.waiting).toBeUndefined();
  const member = await getObject<KillSwitch>(controlPlane, 'ksw', 'namespace', 'prod-a');
  expect(member?.spec).toEqual({
    wholeNamespace: true,
    reason: 'key leaked',
    engagedBy: 'admin',
  });
  expect(await listObjects(controlPlane, 'pods', 'prod-a')).toEqual([]);
  await waitForPods(controlPlane, 'other', automationPods);

  const told = await cli('status', '-A');
  expect(told.err).toContain('ClusterKillSwitch prod: 2 of 2 namespaces stopped: key leaked');
});

it('stops a namespace that is guarded meanwhile', async () => {
  await waitUntilGone(controlPlane, { ...cksw, name: 'team-nobody' });
  await controlPlane.apply(automation({ namespace: 'prod-late', environment: 'prod' }));
  await waitFor('the KillSwitch of the late namespace', async () => {
    const object = await getObject<KillSwitch>(controlPlane, 'ksw', 'namespace', 'prod-late');
    return object !== undefined;
  });
  await refuses('prod-late');
});

it('is released by a second person alone, and not one namespace at a time', async () => {
  const again = await cli('release', '--environment=prod', '--reason=fixed');
  expect(again.code).toBe(1);
  expect(again.err).toContain('admin engaged this kill switch; somebody else has to release it');

  const one = await controlPlane.kubectl(
    ['annotate', 'ksw', 'namespace', '-n=prod-a', 'automationguardrails.dev/release=fixed'],
    bob,
  );
  expect(one.stderr).toContain('the ClusterKillSwitch prod stops this namespace');
  // One with the role releaser, and no more; bob holds every verb.
  await kubectlOk(controlPlane, [
    'create',
    'clusterrolebinding',
    'rita-releases',
    '--clusterrole=automation-guardrails-releaser',
    '--user=rita',
  ]);
  const mark = 'automationguardrails.dev/cluster-kill-switch=prod';
  const forge = ['label', 'ksw', 'namespace', '-n=prod-b', mark];
  await waitFor('her right, and what it is not for', async () => {
    const { stderr } = await controlPlane.kubectl(forge, { as: 'rita' });
    return stderr.includes('is written by the operator alone');
  });
});

it('hands a namespace over to another that covers it, and releases the rest', async () => {
  await controlPlane.apply([
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'ClusterKillSwitch',
      metadata: { name: 'late-only' },
      spec: {
        namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'prod-late' } },
        reason: 'still broken',
      },
    },
  ]);
  await waitForCondition(controlPlane, { ...cksw, name: 'late-only' }, 'Ready');
  await kubectlOk(
    controlPlane,
    ['annotate', 'cksw', 'prod', 'automationguardrails.dev/release=replaced'],
    bob,
  );
  await waitUntilGone(controlPlane, cksw);
  await waitForPods(controlPlane, 'prod-a', automationPods);
  expect(await getObject(controlPlane, 'ksw', 'namespace', 'prod-a')).toBeUndefined();

  const own = await getObject<KillSwitch>(controlPlane, 'ksw', 'namespace', 'prod-b');
  expect(own?.spec.reason).toBe('by itself');
  const handedOver = await getObject<KillSwitch>(controlPlane, 'ksw', 'namespace', 'prod-late');
  expect(handedOver?.metadata.labels?.['automationguardrails.dev/cluster-kill-switch']).toBe(
    'late-only',
  );
  expect(await listObjects(controlPlane, 'pods', 'prod-late')).toEqual([]);

  await kubectlOk(
    controlPlane,
    ['annotate', 'cksw', 'late-only', 'automationguardrails.dev/release=fixed'],
    bob,
  );
  await waitUntilGone(controlPlane, { ...cksw, name: 'late-only' });
  // Its Job was born suspended, and a release starts none of those.
  await waitForPods(controlPlane, 'prod-late', automationPods - 1);
});

it('stops the Workflows of an owner one by one, and releases them together', async () => {
  const owner = { team: 'Ledger & Co', contact: 'x@example.com', escalation: '#x' };
  const patch = `-p=${JSON.stringify({ spec: { owner } })}`;
  for (const namespace of ['prod-a', 'prod-late']) {
    const at = `-n=${namespace}`;
    await kubectlOk(controlPlane, ['patch', 'awf', 'invoice', at, '--type=merge', patch]);
  }
  // Somebody stopped one of them by himself before.
  const before = ['kill', 'invoice', '-n=prod-late', '--reason=by itself', '--wait=false'];
  expect(await cli(...before)).toMatchObject({ code: 0, err: '' });
  const argv = ['kill', '--team=Ledger & Co', '--reason=rogue release', '--timeout=240'];
  expect(await cli(...argv)).toMatchObject({ code: 0, err: '' });
  const ofTeam = { ...cksw, name: 'team-ledger-co' };
  await waitForCondition(controlPlane, ofTeam, 'Fenced');
  const standing = await getObject<ClusterKillSwitch>(controlPlane, 'cksw', ofTeam.name, '');
  expect(standing?.status?.workflows?.total).toBe(2);
  expect(standing?.status?.fenced).toEqual({ 'prod-a': ['invoice'], 'prod-late': ['invoice'] });
  const member = await getObject<KillSwitch>(controlPlane, 'ksw', 'invoice', 'prod-a');
  expect(member?.spec).toEqual({
    workflow: 'invoice',
    reason: 'rogue release',
    engagedBy: 'admin',
  });
  expect(await listObjects(controlPlane, 'pods', 'prod-a')).toEqual([]);
  await waitForPods(controlPlane, 'other', automationPods);

  const alone = await controlPlane.kubectl(
    ['annotate', 'ksw', 'invoice', '-n=prod-a', 'automationguardrails.dev/release=fixed'],
    bob,
  );
  expect(alone.stderr).toContain('the ClusterKillSwitch team-ledger-co stops this Workflow');
  await kubectlOk(
    controlPlane,
    ['annotate', 'ksw', 'invoice', '-n=prod-late', 'automationguardrails.dev/release=fixed'],
    bob,
  );
  const taken = await waitFor('the ClusterKillSwitch to take over what stood before', async () => {
    const own = await getObject<KillSwitch>(controlPlane, 'ksw', 'invoice', 'prod-late');
    return own?.metadata.labels?.['automationguardrails.dev/cluster-kill-switch'] && own;
  });
  expect(taken.spec.reason).toBe('by itself');
  expect(taken.metadata.annotations).not.toHaveProperty(['automationguardrails.dev/release']);
  expect(await listObjects(controlPlane, 'pods', 'prod-late')).toEqual([]);
  await kubectlOk(
    controlPlane,
    ['annotate', 'cksw', ofTeam.name, 'automationguardrails.dev/release=fixed'],
    bob,
  );
  await waitUntilGone(controlPlane, ofTeam);
  await waitForPods(controlPlane, 'prod-a', automationPods);
  await waitForPods(controlPlane, 'prod-late', automationPods - 1);

  const mistyped = await cli('kill', '--team=Legder & Co', '--reason=rogue release');
  expect(mistyped.code).toBe(1);
  expect(mistyped.err).toContain('nothing is stopped for team Legder & Co');
});

it('is nothing that a kill of one Workflow waits for, nor is any kind that it does not need', async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  await kubectlOk(controlPlane, [
    'delete',
    'crd',
    'approvals.automationguardrails.dev',
    'accessreviews.automationguardrails.dev',
    'workflowrevisions.automationguardrails.dev',
  ]);
  operators = [await startOperator({ kubeconfigPath, waitUntilReady: false })];
  const { code } = await cli('kill', 'invoice', '-n=other', '--reason=runaway', '--wait=false');
  expect(code).toBe(0);
  await waitForCondition(
    controlPlane,
    { kind: 'ksw', name: 'invoice', namespace: 'other' },
    'PodsGone',
  );
});
