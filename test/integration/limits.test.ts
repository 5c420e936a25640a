import { afterAll, beforeAll, expect, it } from 'vitest';
import { conditionOf } from '../../src/api/conditions.ts';
import type { KillSwitch } from '../../src/api/kill-switch.ts';
import type { Condition } from '../../src/api/objects.ts';
import type { Workflow, WorkflowStatus } from '../../src/api/workflow.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import {
  bob,
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitUntilGone,
} from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';
import { endedStatus, runManifest } from '../operator/runs.ts';

const namespace = 'limits';
const group = 'automationguardrails.dev';

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let operator: OperatorProcess | undefined;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [`${group}/environment`]: 'test' } },
    },
    // May write Workflows, and nothing that the operator may.
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: 'requesters', namespace },
      roleRef: {
        apiGroup: 'rbac.authorization.k8s.io',
        kind: 'ClusterRole',
        name: 'automation-guardrails-requester',
      },
      subjects: [
        { apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'eve' },
        { kind: 'ServiceAccount', name: 'pipeline', namespace },
      ],
    },
    ...['poster', 'importer', 'flaky', 'runaway', 'batch'].map((name) => ({
      apiVersion: `${group}/v1alpha1`,
      kind: 'AutomationIdentity',
      metadata: { name, namespace },
      spec: { purpose: 'Runs', owner },
    })),
  ]);
});

afterAll(async () => {
  await operator?.stop();
  await controlPlane?.stop();
});

const owner = { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' };

function workflow(name: string, limits: object): object {
  return {
    apiVersion: `${group}/v1alpha1`,
    kind: 'Workflow',
    metadata: { name, namespace },
    spec: { owner, targets: [{ group: 'batch', kind: 'CronJob', name }], limits },
  };
}

function job(name: string, runsAs: string, spec: object = {}): object {
  return runManifest({ namespace, name, runsAs, spec });
}

interface Answer {
  stdout: string;
  stderr: string;
  code: number;
}

const jobs = (runsAs: string, ...names: string[]): object[] =>
  names.map((name) => job(`${runsAs}-${name}`, runsAs));

async function end(name: string, how: 'Failed' | 'Complete', at = Date.now()): Promise<void> {
  await kubectlOk(controlPlane, [
    'patch',
    `job/${name}`,
    `-n=${namespace}`,
    '--subresource=status',
    '--type=merge',
    `-p=${JSON.stringify({ status: endedStatus(how, at) })}`,
  ]);
}

async function statusOf(name: string): Promise<WorkflowStatus> {
  return (await getObject<Workflow>(controlPlane, 'awf', name, namespace))?.status ?? {};
}

async function breachOf(name: string, status: 'True' | 'False'): Promise<Condition> {
  return waitForCondition(controlPlane, { kind: 'awf', name, namespace }, 'LimitBreached', status);
}

/** What a new Job of a Workflow is answered with; nothing where it may start. */
async function refusal(runsAs: string): Promise<string> {
  return (await create(job('one-more', runsAs), '--dry-run=server')).stderr;
}

async function annotate(name: string, mark: string, user: string): Promise<string> {
  const target = [`awf/${name}`, `-n=${namespace}`, '--overwrite'];
  return (await controlPlane.kubectl(['annotate', ...target, mark], { as: user })).stderr;
}

function create(object: object, ...args: string[]): Promise<Answer> {
  return controlPlane.kubectl(['create', '-f', '-', ...args], { input: JSON.stringify(object) });
}

it('writes timeout and retries into Jobs while no operator runs, and never raises them', async () => {
  await controlPlane.apply([workflow('nightly', { timeout: '1h30m', maxRetries: 2 })]);
  const limitsOf = async (spec: object, runsAs = 'nightly'): Promise<string> => {
    const path = 'jsonpath={.spec.activeDeadlineSeconds} {.spec.backoffLimit}';
    const { stdout, stderr } = await create(
      job('try', runsAs, spec),
      '--dry-run=server',
      `-o=${path}`,
    );
    return stdout + stderr;
  };
  await waitFor('the limits in a new Job', async () => (await limitsOf({})) === '5400 2');
  expect(await limitsOf({ activeDeadlineSeconds: 9000, backoffLimit: 9 })).toBe('5400 2');
  expect(await limitsOf({ activeDeadlineSeconds: 60, backoffLimit: 0 })).toBe('60 0');
  expect(await limitsOf({}, 'another')).toBe(' 6');
});

it('refuses a Job that takes its deadline away, or raises it, and leaves one from before alone', async () => {
  const update = async (name: string, spec: object): Promise<string> => {
    const patch = JSON.stringify({ spec });
    const args = ['patch', 'job', name, `-n=${namespace}`, '--type=merge', `-p=${patch}`];
    return (await controlPlane.kubectl(args)).stderr;
  };
  await controlPlane.apply([job('first', 'nightly')]);
  expect(await update('first', { activeDeadlineSeconds: null })).toContain(
    'a run of nightly takes at most 1h30m (limits.timeout of the Workflow): write spec.activeDeadlineSeconds: 5400, or less',
  );
  expect(await update('first', { activeDeadlineSeconds: 5401 })).toContain('5400, or less');
  expect(await update('first', { backoffLimit: 3 })).toContain(
    'write spec.backoffLimit: 2, or less',
  );
  expect(await update('first', { activeDeadlineSeconds: 600, backoffLimit: 1 })).toBe('');

  await controlPlane.apply([job('before', 'later'), workflow('later', { timeout: '10m' })]);
  await waitFor('the limit of a Workflow that came later', async () =>
    (await update('before', { activeDeadlineSeconds: 700 })).includes('at most 10m'),
  );
  expect(await update('before', { suspend: true })).toBe('');
});

it('keeps the marks to admission and the operator, and lets nobody acknowledge what is not held', async () => {
  expect(await annotate('nightly', `${group}/acknowledge=fine`, 'eve')).toContain(
    'there is nothing to acknowledge',
  );
  expect(await annotate('nightly', `${group}/limit-breach=x`, 'eve')).toContain(
    'written by the operator alone',
  );
  const label = ['label', 'awf/nightly', `-n=${namespace}`];
  await kubectlOk(controlPlane, [...label, `${group}/limited-`]);
  const limited = await getObject<Workflow>(controlPlane, 'awf', 'nightly', namespace);
  expect(limited?.metadata.labels).toEqual({ [`${group}/limited`]: 'true' });
  const held = await controlPlane.kubectl([...label, `${group}/limit-breached=true`], {
    as: 'eve',
  });
  expect(held.stderr).toContain('written by the operator alone');
});

it('holds what has too many runs at a time, until there are fewer', async () => {
  await controlPlane.apply([workflow('poster', { maxConcurrentRuns: 2 })]);
  operator = await startOperator({ kubeconfigPath });
  await breachOf('poster', 'False');
  await controlPlane.apply([job('poster-waits', 'poster', { suspend: true })]);
  await controlPlane.apply(jobs('poster', 'a', 'b', 'c'));
  const text = 'maxConcurrentRuns: 3 runs were under way at a time, and 2 may be.';
  await waitFor('the hold', async () =>
    (await refusal('poster')).includes(`limit breached: ${text} No new run of poster starts.`),
  );
  const resume = ['patch', 'job/poster-waits', `-n=${namespace}`, '-p={"spec":{"suspend":false}}'];
  expect((await controlPlane.kubectl(resume)).stderr).toContain('limit breached');
  // As if a kill had suspended it; only the operator puts back what one did.
  const mark = 'automationguardrails.dev/restore-suspend=false';
  await controlPlane.kubectl(['annotate', 'job/poster-waits', `-n=${namespace}`, mark]);
  const asEditor = { as: 'eddy', asGroups: ['editors'] };
  await kubectlOk(controlPlane, [
    'create',
    'clusterrolebinding',
    'editors-edit',
    '--clusterrole=edit',
    '--group=editors',
  ]);
  expect((await controlPlane.kubectl(resume, asEditor)).stderr).toContain('limit breached');
  expect(await refusal('another')).toBe('');
  expect(await breachOf('poster', 'True')).toMatchObject({ reason: 'TooManyConcurrentRuns' });
  const { conditions } = await statusOf('poster');
  expect(conditionOf(conditions, 'Held')).toMatchObject({
    status: 'True',
    reason: 'LimitBreached',
  });
  expect(conditionOf(conditions, 'Held')?.message).toContain(text);
  const forged = ['patch', 'awf/poster', `-n=${namespace}`, '--subresource=status', '--type=merge'];
  const asPipeline = { as: `system:serviceaccount:${namespace}:pipeline` };
  await kubectlOk(controlPlane, [
    'create',
    'role',
    'status-writer',
    `-n=${namespace}`,
    '--verb=get,patch',
    '--resource=automationworkflows.automationguardrails.dev/status',
  ]);
  await kubectlOk(controlPlane, [
    'create',
    'rolebinding',
    'status-writer',
    `-n=${namespace}`,
    '--role=status-writer',
    `--serviceaccount=${namespace}:pipeline`,
  ]);
  const forgery = await waitFor('the right to write a status', async () => {
    const patch = '-p={"status":{"runs":{"breaches":null}}}';
    const { stderr } = await controlPlane.kubectl([...forged, patch], asPipeline);
    return stderr.includes('cannot patch') ? undefined : stderr;
  });
  expect(forgery).toContain('the status is written by the operator alone');

  await end('poster-a', 'Complete');
  await end('poster-b', 'Failed');
  await breachOf('poster', 'False');
  await waitFor('the end of the hold', async () => (await refusal('poster')) === '');
  expect((await statusOf('poster')).runs?.breaches).toBeUndefined();
});

it('holds what fails again and again, until a person acknowledges it', async () => {
  await controlPlane.apply([workflow('importer', { maxConsecutiveFailures: 1 })]);
  await controlPlane.apply(jobs('importer', 'a', 'b', 'c'));
  const now = Date.now();
  await end('importer-a', 'Failed', now);
  await end('importer-b', 'Failed', now);
  expect((await breachOf('importer', 'True')).message).toContain(
    'maxConsecutiveFailures: 2 runs failed one after the other, and 1 may.',
  );
  await waitFor('the hold', async () => (await refusal('importer')).includes('limit breached'));
  await end('importer-c', 'Complete', now + 1_000);
  await waitFor('the end to be counted', async () => {
    const { runs } = await statusOf('importer');
    return runs?.consecutiveFailures === 0;
  });
  expect(await refusal('importer')).toContain('limit breached');

  const { acknowledge } = { acknowledge: `${group}/acknowledge` };
  const pipeline = `system:serviceaccount:${namespace}:pipeline`;
  expect(await annotate('importer', `${acknowledge}=go on`, pipeline)).toContain('a person does');
  expect(await annotate('importer', `${acknowledge}= `, 'eve')).toContain('write the reason');
  expect(await annotate('importer', `${acknowledge}=the ERP is back`, 'eve')).toBe('');
  await breachOf('importer', 'False');
  await waitFor('the end of the hold', async () => (await refusal('importer')) === '');
  const after = await getObject<Workflow>(controlPlane, 'awf', 'importer', namespace);
  expect(after?.metadata.annotations).toEqual({
    'automationguardrails.dev/changed-by': 'admin',
    'automationguardrails.dev/changed-by-groups': 'system:masters\nsystem:authenticated',
  });
  expect(after?.metadata.labels ?? {}).toEqual({});
  expect(after?.status?.runs?.acknowledged).toMatchObject({ by: 'eve', reason: 'the ERP is back' });
  const events = await waitFor('the event', async () => {
    const all = await listObjects<{ reason: string; note?: string; message?: string }>(
      controlPlane,
      'events',
      namespace,
    );
    const own = all.filter(({ reason }) => reason === 'LimitAcknowledged');
    return own.length > 0 ? own : undefined;
  });
  expect(events).toHaveLength(1);
});

it('holds what fails too often, with the numbers', async () => {
  const maxFailureRate = { percent: 50, over: 10, minRuns: 3 };
  await controlPlane.apply([workflow('flaky', { maxFailureRate })]);
  await controlPlane.apply(jobs('flaky', 'a', 'b', 'c'));
  await end('flaky-a', 'Failed');
  await end('flaky-b', 'Complete');
  await end('flaky-c', 'Failed');
  expect(await breachOf('flaky', 'True')).toMatchObject({
    reason: 'FailureRateTooHigh',
    message: expect.stringContaining('maxFailureRate: 2 of the last 3 runs failed, and 50 % may.'),
  });
  await waitFor('the hold', async () =>
    (await refusal('flaky')).includes('2 of the last 3 runs failed'),
  );
  expect((await statusOf('flaky')).runs?.outcomes).toHaveLength(3);
});

it('keeps since when something holds, and who knows of it, until that ends', async () => {
  const mark = `${group}/acknowledge-hold`;
  const holdsOf = async () => (await statusOf('unowned')).holds ?? [];
  const unowned = (ticket: string, ...without: string[]): object => ({
    apiVersion: `${group}/v1alpha1`,
    kind: 'Workflow',
    metadata: { name: 'unowned', namespace },
    spec: {
      owner: Object.fromEntries(Object.entries(owner).filter(([key]) => !without.includes(key))),
      change: { ticket },
      targets: [{ group: 'batch', kind: 'CronJob', name: 'unowned' }],
    },
  });
  await controlPlane.apply([unowned('A-1', 'team', 'contact')]);
  const held = await waitFor('the holds', async () => {
    const holds = await holdsOf();
    return holds.length === 2 ? holds : undefined;
  });
  expect(held.map(({ reason }) => reason)).toEqual(['OwnerMissing', 'IdentityMissing']);
  const wide = ['get', 'awf/unowned', `-n=${namespace}`, '-o=wide'];
  expect((await controlPlane.kubectl(wide)).stdout).toMatch(/HOLD.*\n.*Incomplete +OwnerMissing /);

  const pipeline = `system:serviceaccount:${namespace}:pipeline`;
  const refused = async (text: string, user = 'eve'): Promise<string> =>
    annotate('unowned', `${mark}=${text}`, user);
  expect(await refused('OwnerMissing: asked', pipeline)).toContain('a person does');
  expect(await refused('asked')).toContain('write which hold');
  expect(await refused('NotApproved: asked')).toContain('there is OwnerMissing, IdentityMissing');
  expect(await refused('LimitBreached: fine')).toContain('which ends the hold');
  expect(await annotate('unowned', `${group}/hold-acknowledged-by=bob`, 'eve')).toContain(
    'stamped by admission',
  );
  expect(await refused('OwnerMissing: asked the team')).toBe('');
  const known = await waitFor(
    'the acknowledgement',
    async () => (await holdsOf())[0]?.acknowledged,
  );
  expect(known).toMatchObject({ by: 'eve', reason: 'asked the team' });

  operator?.kill();
  await operator?.exited;
  await controlPlane.apply([unowned('A-2', 'team')]);
  operator = await startOperator({ kubeconfigPath, args: ['--leader-elect=false'] });
  const later = await waitFor('another message of the same hold', async () => {
    const holds = await holdsOf();
    return holds[0]?.message === 'Missing spec.owner.team.' ? holds : undefined;
  });
  expect(later[0]).toMatchObject({ since: held[0]?.since, acknowledged: known });
  expect(later[1]).toEqual(held[1]);
  const { metadata } = (await getObject<Workflow>(controlPlane, 'awf', 'unowned', namespace)) ?? {};
  expect(Object.keys(metadata?.annotations ?? {})).not.toContain(mark);

  await controlPlane.apply([unowned('A-3')]);
  await waitFor('the end of the hold', async () => (await holdsOf()).length === 1);
  await controlPlane.apply([unowned('A-4', 'team')]);
  const anew = await waitFor('the next hold', async () =>
    (await holdsOf()).find(({ reason }) => reason === 'OwnerMissing'),
  );
  expect(anew.acknowledged).toBeUndefined();
});

it('engages the kill switch where that is asked for, and counts anew after its release', async () => {
  await controlPlane.apply([workflow('runaway', { maxRunsPerHour: 3, onBreach: 'Kill' })]);
  await breachOf('runaway', 'False');
  await controlPlane.apply(jobs('runaway', 'a', 'b', 'c', 'd'));
  const killSwitch = await waitFor('the kill switch', () =>
    getObject<KillSwitch>(controlPlane, 'ksw', 'runaway', namespace),
  );
  expect(killSwitch.spec).toMatchObject({
    workflow: 'runaway',
    engagedBy: 'automation-guardrails',
  });
  expect(killSwitch.spec.reason).toMatch(
    /^maxRunsPerHour: 4 runs were created within an hour, and 3 may be[.]$/,
  );
  expect((await breachOf('runaway', 'True')).reason).toBe('TooManyRunsPerHour');
  const release = ['annotate', 'ksw/runaway', `-n=${namespace}`, `${group}/release=fixed`];
  await kubectlOk(controlPlane, release, bob);
  await waitUntilGone(controlPlane, { kind: 'ksw', name: 'runaway', namespace });
  await breachOf('runaway', 'False');
  await waitFor('the end of the hold', async () => (await refusal('runaway')) === '');
  await controlPlane.apply(jobs('runaway', 'e', 'f', 'g'));
  await waitFor('three runs of a new hour', async () => {
    const { runs } = await statusOf('runaway');
    return runs?.perMinute?.created.reduce((sum, count) => sum + count, 0) === 3;
  });
  expect(await getObject(controlPlane, 'ksw', 'runaway', namespace)).toBeUndefined();
});

it('counts each run once, whatever becomes of the operator and of the Jobs', async () => {
  const limits = { maxRunsPerHour: 1_000, maxConsecutiveFailures: 1_000 };
  await controlPlane.apply([workflow('batch', limits)]);
  await breachOf('batch', 'False');
  const counted = async (created: number, failures: number): Promise<void> => {
    await waitFor(`${created} runs and ${failures} failures`, async () => {
      const { runs } = await statusOf('batch');
      const sum = runs?.perMinute?.created.reduce((total, count) => total + count, 0) ?? 0;
      if (sum > created) throw new Error(`counted ${sum} runs`);
      return sum === created && runs?.consecutiveFailures === failures;
    });
  };
  // Gone before a count could be stored.
  await controlPlane.apply(jobs('batch', 'x', 'y'));
  await kubectlOk(controlPlane, ['delete', 'job/batch-x', 'job/batch-y', `-n=${namespace}`]);
  await controlPlane.apply(jobs('batch', 'a', 'b', 'c'));
  const now = Date.now();
  for (const name of ['batch-a', 'batch-b']) await end(name, 'Failed', now);
  await counted(5, 2);

  for (const [round, name] of ['d', 'e'].entries()) {
    operator?.kill();
    await operator?.exited;
    await controlPlane.apply(jobs('batch', name, `${name}-too`));
    await end(`batch-${name}`, 'Failed', now + 1_000);
    await kubectlOk(controlPlane, [
      'delete',
      `job/batch-${round === 0 ? 'a' : 'b'}`,
      `-n=${namespace}`,
    ]);
    operator = await startOperator({ kubeconfigPath, args: ['--leader-elect=false'] });
    await counted(5 + 2 * (round + 1), 2 + round + 1);
  }
  await end('batch-c', 'Complete', now + 2_000);
  await counted(9, 0);
});

it('refuses what it would have written, where admission writes nothing', async () => {
  const mutations = ['limit-jobs', 'limits-mark', 'limits-acknowledge-stamp'];
  await kubectlOk(controlPlane, [
    'delete',
    'mutatingadmissionpolicybinding',
    ...mutations.map((name) => `automation-guardrails-${name}`),
  ]);
  await waitFor('the refusal of a Job without a deadline', async () =>
    (await refusal('nightly')).includes('write spec.activeDeadlineSeconds: 5400, or less'),
  );
  const byHand = job('by-hand', 'nightly', { activeDeadlineSeconds: 5400, backoffLimit: 2 });
  expect((await create(byHand, '--dry-run=server')).stderr).toBe('');
  await waitFor('the refusal of a Workflow without its label', async () => {
    const { stderr } = await create(workflow('unmarked', { timeout: '1h' }), '--dry-run=server');
    return stderr.includes('follows spec.limits: write it with the value "true"');
  });
});
