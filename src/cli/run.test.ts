import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { dump } from 'js-yaml';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { waitFor } from '../../test/control-plane/wait.ts';
import { FakeApiServer } from '../../test/fault/fake-api-server.ts';
import { accessReviewCreationPolicyName } from '../admission/index.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { annotation, label, PROBE_NAMESPACE } from '../api/names.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { resources } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import { digestOf } from '../guardrails/identity/digest.ts';
import { statusRows } from './commands/status.ts';
import { run } from './run.ts';

let server: FakeApiServer;
let folder: string;
let kubeconfig: string;

beforeEach(async () => {
  server = await new FakeApiServer().start();
  folder = await mkdtemp(path.join(tmpdir(), 'automation-guardrails-cli-'));
  kubeconfig = path.join(folder, 'kubeconfig.yaml');
  const { server: url } = server.kubeConfig().getCurrentCluster() ?? {};
  await writeFile(
    kubeconfig,
    dump({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'fake',
      contexts: [
        { name: 'fake', context: { cluster: 'fake', user: 'fake', namespace: 'finance' } },
      ],
      clusters: [{ name: 'fake', cluster: { server: url, 'insecure-skip-tls-verify': true } }],
      users: [{ name: 'fake', user: { token: 'fake' } }],
    }),
  );
});

afterEach(async () => {
  await server.stop();
  await rm(folder, { recursive: true, force: true });
});

async function cli(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await run({
    argv: [...argv, `--kubeconfig=${kubeconfig}`],
    stdout: (line) => out.push(line),
    stderr: (line) => err.push(line),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

const workflow: Workflow = {
  metadata: { name: 'invoice', namespace: 'finance' },
  spec: { targets: [] },
};

describe('the command line', () => {
  it.each([
    ['no command', [], 2],
    ['an unknown command', ['explode'], 2],
    ['a kill without a name', ['kill'], 2],
    ['a kill without a reason', ['kill', 'invoice'], 2],
    ['a kill with a blank reason', ['kill', 'invoice', '--reason', '  '], 2],
    ['a release without a reason', ['release', 'invoice'], 2],
    ['two names', ['kill', 'invoice', 'other', '--reason=x'], 2],
    ['an unknown flag', ['status', '--everything'], 2],
    ['a timeout that is none', ['kill', 'invoice', '--reason=x', '--timeout=soon'], 2],
    ['a flag of another command', ['status', '--force'], 2],
    ['an output that is none', ['status', '-o', 'xml'], 2],
    ['a decision about nothing', ['review', '--decision=Keep', '--reason=x'], 2],
    ['a review of one and of all', ['review', 'invoice', '-A'], 2],
    ['a name of something else', ['kill', 'deployment/invoice', '--reason=x'], 2],
    ['evidence of something else', ['evidence', 'export', 'deployment/invoice', '-o=x'], 2],
    ['a decision that is none', ['review', 'invoice', '--decision=Approve', '--reason=x'], 2],
    ['a decision without a reason', ['review', 'invoice', '--decision=Keep'], 2],
    ['help', ['--help'], 0],
  ])('%s: exit code', async (_, argv, expected) => {
    const { code, out, err } = await cli(...argv);
    expect(code).toBe(expected);
    expect(out + err).not.toBe('');
    expect(server.requests).toEqual([]);
  });
});

describe('kill', () => {
  beforeEach(() => {
    server.put(resources.workflows, workflow);
  });

  it('creates the KillSwitch of that name in the namespace of the context', async () => {
    const { code, out } = await cli('kill', 'invoice', '--reason=runaway', '--wait=false');
    expect(code).toBe(0);
    expect(out).toContain('engaged for finance/invoice');
    expect(server.get(resources.killSwitches, 'finance/invoice')).toMatchObject({
      spec: { workflow: 'invoice', reason: 'runaway' },
    });
  });

  it('takes the name as kubectl writes it, as every command does', async () => {
    await cli('kill', 'awf/invoice', '--reason=runaway', '--wait=false');
    expect(server.get(resources.killSwitches, 'finance/invoice')).toBeDefined();
    const { code } = await cli('status', 'automationworkflows/invoice');
    expect(code).toBe(0);
  });

  it.each(['-n=other', '-nother', '--namespace=other'])('takes %s', async (flag) => {
    await cli('kill', 'invoice', '--reason=x', '--wait=false', '--force', flag);
    expect(server.get(resources.killSwitches, 'other/invoice')).toBeDefined();
  });

  it('refuses a name that there is not, unless forced', async () => {
    const refused = await cli('kill', 'invoyce', '--reason=runaway', '--wait=false');
    expect(refused.code).toBe(1);
    expect(refused.err).toContain('no Workflow invoyce');
    expect(server.list(resources.killSwitches)).toHaveLength(0);
    const forced = await cli('kill', 'invoyce', '--reason=x', '--wait=false', '--force');
    expect(forced.code).toBe(0);
    expect(server.list(resources.killSwitches)).toHaveLength(1);
  });

  it('engages for a user who may not look at Workflows', async () => {
    server.faults.next('get', { kind: 'status', status: 403, message: 'you may not look' });
    expect((await cli('kill', 'invoice', '--reason=x', '--wait=false')).code).toBe(0);
  });

  it('does not take a kill switch that is being released for engaged', async () => {
    server.put(resources.workflows, workflow);
    server.put(resources.killSwitches, {
      metadata: {
        name: 'invoice',
        namespace: 'finance',
        annotations: { [annotation.release]: 'fixed' },
      },
      spec: { workflow: 'invoice', reason: 'runaway' },
    });
    const { code, err } = await cli('kill', 'invoice', '--reason=again', '--wait=false');
    expect(code).toBe(1);
    expect(err).toContain('is being released');
  });

  it('is content with one that is engaged already', async () => {
    await cli('kill', 'invoice', '--reason=first', '--wait=false');
    const { code, out } = await cli('kill', 'invoice', '--reason=second', '--wait=false');
    expect(code).toBe(0);
    expect(out).toContain('engaged already');
  });

  it('shows each rung once, and ends when all is stopped', async () => {
    server.put(resources.killSwitches, {
      metadata: { name: 'invoice', namespace: 'finance' },
      spec: { workflow: 'invoice', reason: 'runaway' },
      status: {
        conditions: [
          { type: 'Fenced', status: 'True', message: 'fenced' },
          { type: 'Ready', status: 'True', message: 'stopped' },
        ],
      },
    } as never);
    const { code, out } = await cli('kill', 'invoice', '--reason=runaway');
    expect(code).toBe(0);
    expect(out.match(/fenced/g)).toHaveLength(1);
  });

  it('ends where only others can do more, and says what stays valid, with a non-zero exit code', async () => {
    server.put(resources.killSwitches, {
      metadata: { name: 'invoice', namespace: 'finance' },
      spec: { workflow: 'invoice', reason: 'runaway' },
      status: {
        conditions: [
          { type: 'Fenced', status: 'True', message: 'fenced' },
          { type: 'TokensRevoked', status: 'False', message: 'tokens live', reason: 'X' },
          { type: 'Ready', status: 'False', message: 'x', reason: 'SomethingRemains' },
        ],
        remaining: [{ what: 'Tokens of invoice', until: '2030-01-01T00:00:00Z' }],
      },
    } as never);
    const { code, err } = await cli('kill', 'invoice', '--reason=runaway');
    expect(code).toBe(1);
    expect(err).toContain('Tokens of invoice, until 2030-01-01T00:00:00Z');
    expect(err).toContain('TokensRevoked      tokens live');
  });

  it('says that an owner has no Workflow, with a non-zero exit code', async () => {
    const message = 'No Workflow has this owner.';
    server.put(resources.clusterKillSwitches, {
      metadata: { name: 'team-finanse' },
      spec: { teams: ['finanse'], reason: 'leak' },
      status: {
        conditions: [{ type: 'Ready', status: 'False', reason: 'NothingSelected', message }],
      },
    } as never);
    const { code, err } = await cli('kill', '--team=finanse', '--reason=leak');
    expect(code).toBe(1);
    expect(err).toContain(`nothing is stopped for team finanse: ${message}`);
    expect(err).toContain('kubectl guardrails release --team finanse --reason TEXT');
  });

  it('ends where the operator does not act, and says so, with a non-zero exit code', async () => {
    const reason = 'NamespaceNotCovered';
    server.put(resources.killSwitches, {
      metadata: { name: 'invoice', namespace: 'finance' },
      spec: { workflow: 'invoice', reason: 'runaway' },
      status: {
        conditions: [
          { type: 'Fenced', status: 'True', message: 'fenced' },
          { type: 'PodsGone', status: 'False', reason: 'X', message: '2 pods run' },
          { type: 'Ready', status: 'False', reason, message: 'Finance is none of them.' },
        ],
      },
    } as never);
    const { code, out, err } = await cli('kill', 'invoice', '--reason=runaway');
    expect(code).toBe(1);
    expect(out).toContain('fenced');
    expect(err).toContain('nobody stops what runs of finance/invoice: Finance is none of them.');
    expect(err).toContain('2 pods run');
  });

  it('says that it is not stopped in time, with a non-zero exit code', async () => {
    const { code, err } = await cli('kill', 'invoice', '--reason=runaway', '--timeout=0.01');
    expect(code).toBe(1);
    expect(err).toContain('Not stopped in time');
  });

  it.each([
    ['--team=payments', 'team payments'],
    ['--risk=high', 'risk High'],
  ])('says of %s that nothing is fenced without an operator, and what is', async (of, title) => {
    const { code, err } = await cli('kill', of, '--reason=leak', '--timeout=0.01');
    expect(code).toBe(1);
    expect(err).toContain(`Until one lists the Workflows of ${title}, nothing of them is refused`);
    expect(err).toContain('kill --environment ENV');
    expect(err).toContain('awf NAME -n NAMESPACE automationguardrails.dev/kill-switch=');
  });

  it.each([
    ['an environment, which admission fences', '--environment=prod', {}],
    ['an owner whose Workflows are listed', '--team=payments', { fenced: { finance: ['a'] } }],
  ])('does not say so of %s', async (_, of, status) => {
    const [name, spec] = of.startsWith('--team')
      ? ['team-payments', { teams: ['payments'] }]
      : ['prod', { environments: ['prod'] }];
    server.put(resources.clusterKillSwitches, {
      metadata: { name },
      spec: { ...spec, reason: 'leak' },
      status,
    });
    const { code, err } = await cli('kill', of, '--reason=leak', '--timeout=0.01');
    expect(code).toBe(1);
    expect(err).toContain('No operator has worked on it yet.');
    expect(err).not.toContain('refused');
  });

  it('passes on what the API server refuses', async () => {
    server.faults.next('create', { kind: 'status', status: 403, message: 'you may not' });
    const { code, err } = await cli('kill', 'invoice', '--reason=runaway');
    expect(code).toBe(1);
    expect(err).toContain('you may not');
  });
});

describe('review', () => {
  const permission = { apiGroups: [''], resources: ['configmaps'], verbs: ['get'], reason: 'x' };
  const { reason: _, ...granted } = permission;
  const identity: AutomationIdentity = {
    metadata: { name: 'invoice', namespace: 'finance', generation: 1 },
    spec: { purpose: 'posts invoices', permissions: [permission] },
    status: { observedGeneration: 1, accessReview: { digest: digestOf([granted], [], []) } },
  };
  const keep = ['review', 'invoice', '--decision=Keep', '--reason=in use'];
  const recorded = (): unknown[] => server.list(resources.accessReviews);

  beforeEach(() => {
    server.put(resources.automationIdentities, identity);
  });

  it('shows what there is, and writes nothing', async () => {
    const { code, out } = await cli('review', 'invoice');
    expect(code).toBe(0);
    expect(out).toContain('get configmaps: x');
    expect(recorded()).toEqual([]);
    const json = await cli('review', 'invoice', '-o', 'json');
    expect(JSON.parse(json.out)).toMatchObject({ identity: 'finance/invoice', state: 'Current' });
    expect((await cli('review', 'invoyce')).err).toContain('no AutomationIdentity invoyce');
  });

  it('lists who was reviewed, overdue ones first', async () => {
    const put = (name: string, status: 'True' | 'False', due: string): void => {
      const conditions = [
        { type: 'ReviewOverdue', status, reason: 'X', message: '', lastTransitionTime: due },
      ];
      server.put(resources.automationIdentities, {
        metadata: { name, namespace: 'sales' },
        spec: {},
        status: { conditions, accessReview: { due, by: 'bob', decision: 'Keep' } },
      });
    };
    put('in-time', 'False', '2026-01-01T00:00:00Z');
    put('late', 'True', '2026-02-02T00:00:00Z');
    const { code, out } = await cli('review', '-A');
    expect(code).toBe(0);
    const rows = out.split('\n').map((line) => line.split(/ +/).slice(0, 5).join(' '));
    expect(rows).toEqual([
      'NAMESPACE NAME OVERDUE DECISION BY',
      'sales late True Keep bob',
      'sales in-time False Keep bob',
      'finance invoice',
    ]);
    expect((await cli('review', '-n', 'nowhere')).out).toBe('No AutomationIdentity found.');
  });

  it('records a decision about what was shown', async () => {
    const { code, out } = await cli(...keep);
    expect(code).toBe(0);
    expect(out).toContain('Recorded: Keep for finance/invoice.');
    expect(recorded()).toMatchObject([
      {
        spec: {
          identity: 'invoice',
          decision: 'Keep',
          reason: 'in use',
          digest: identity.status?.accessReview?.digest,
        },
      },
    ]);
  });

  it('says who reviews where admission demands it', async () => {
    server.faults.next('create', {
      kind: 'status',
      status: 403,
      message: `accessreviews "x" is forbidden: ValidatingAdmissionPolicy '${accessReviewCreationPolicyName}' with binding '${accessReviewCreationPolicyName}' denied request: reviewer is the authenticated user: write spec.reviewer: bob`,
    });
    await cli(...keep);
    expect(server.requests.map(({ plural }) => plural)).toContain('selfsubjectreviews');
  });

  it.each<[string, AutomationIdentity, string]>([
    [
      'nothing is published',
      { ...identity, status: { observedGeneration: 1 } },
      'set spec.accessReview.every',
    ],
    [
      'the operator has not seen the last change',
      { ...identity, status: { ...identity.status, observedGeneration: 0 } },
      'look again',
    ],
    [
      'something else is published than what is shown',
      { ...identity, spec: { permissions: [] } },
      'look again',
    ],
  ])('records nothing where %s', async (_what, standing, says) => {
    server.put(resources.automationIdentities, standing);
    const { code, err } = await cli(...keep);
    expect(code).toBe(1);
    expect(err).toContain(says);
    expect(recorded()).toEqual([]);
  });

  it('revokes without an operator, of what is shown', async () => {
    const { status: __, ...unseen } = identity;
    server.put(resources.automationIdentities, { ...unseen, spec: { permissions: [] } });
    const { code } = await cli('review', 'invoice', '--decision=Revoke', '--reason=gone');
    expect(code).toBe(0);
    const digest = digestOf([], [], []);
    expect(recorded()).toMatchObject([{ spec: { decision: 'Revoke', digest } }]);
  });

  it('shows what the operator found to who may not list what grants', async () => {
    server.faults.next('list', { kind: 'status', status: 403, message: 'you may not' });
    const { code, out } = await cli('review', 'invoice');
    expect(code).toBe(0);
    expect(out).toContain('You may not list the roles');
  });
});

describe('a whole namespace', () => {
  it('is killed by a flag, not by its reserved name', async () => {
    const { code } = await cli('kill', '--whole-namespace', '--reason=leak', '--wait=false');
    expect(code).toBe(0);
    expect(server.get(resources.killSwitches, 'finance/namespace')?.spec).toMatchObject({
      wholeNamespace: true,
      reason: 'leak',
    });
    expect((await cli('kill', 'namespace', '--reason=leak')).code).toBe(2);
    expect((await cli('kill', 'invoice', '--whole-namespace', '--reason=leak')).code).toBe(2);
  });
});

describe('release', () => {
  beforeEach(() => {
    server.put(resources.workflows, workflow);
  });

  it('asks for release with the reason', async () => {
    await cli('kill', 'invoice', '--reason=runaway', '--wait=false');
    const { code } = await cli('release', 'invoice', '--reason=fixed', '--wait=false');
    expect(code).toBe(0);
    expect(
      server.get(resources.killSwitches, 'finance/invoice')?.metadata.annotations,
    ).toMatchObject({ [annotation.release]: 'fixed' });
  });

  it('breaks the glass with a reason, and lifts the fence itself', async () => {
    await cli('kill', 'invoice', '--reason=runaway', '--wait=false');
    await cli('release', 'invoice', '--break-glass', '--reason=alone', '--wait=false');
    expect(server.get(resources.killSwitches, 'finance/invoice')?.metadata).toMatchObject({
      annotations: { [annotation.release]: 'alone', [annotation.breakGlass]: 'alone' },
      labels: { [label.releasing]: 'true' },
    });
  });

  /** Releases one, and its KillSwitch goes as the operator lets it go. */
  async function releaseOf(...argv: string[]): ReturnType<typeof cli> {
    await cli('kill', ...argv, '--reason=runaway', '--wait=false');
    const [killSwitch] = server.list(resources.killSwitches);
    if (killSwitch === undefined) throw new Error('no KillSwitch');
    const released = cli('release', ...argv, '--reason=fixed', '--timeout=3');
    const at = `finance/${killSwitch.metadata.name}`;
    await waitFor('the release to be asked for', () => {
      const { annotations = {} } = server.get(resources.killSwitches, at)?.metadata ?? {};
      return annotation.release in annotations;
    });
    server.remove(resources.killSwitches, at);
    return released;
  }

  it('says that all is back where nothing is held', async () => {
    const { code, out } = await releaseOf('invoice');
    expect(code).toBe(0);
    expect(out).toContain('everything is as its owners want it');
  });

  it.each(['invoice', '--whole-namespace'])(
    'of %s says what is held and so is not back, with a non-zero exit code',
    async (what) => {
      const status = { conditions: [{ type: 'Held', status: 'True', reason: 'OwnerMissing' }] };
      server.put(resources.automationIdentities, {
        metadata: workflow.metadata,
        spec: { permissions: [{ verbs: ['get'] }] },
        status,
      } as never);
      const { code, out, err } = await releaseOf(what);
      expect(code).toBe(1);
      expect(out).not.toContain('everything is');
      expect(err).toContain('AutomationIdentity invoice: RoleBinding: OwnerMissing');
    },
  );

  it('fails where nothing is engaged', async () => {
    const { code, err } = await cli('release', 'invoice', '--reason=fixed');
    expect(code).toBe(1);
    expect(err).toContain('No kill switch is engaged');
  });
});

describe('status', () => {
  const killSwitch: KillSwitch = {
    metadata: { name: 'invoice', namespace: 'finance', creationTimestamp: '2026-01-02T03:04:05Z' },
    spec: { workflow: 'invoice', reason: 'runaway', engagedBy: 'alice' },
  };

  it('lists what is engaged first, also without its Workflow', () => {
    const other: Workflow = {
      metadata: { name: 'a', namespace: 'finance' },
      spec: { targets: [] },
    };
    const rows = statusRows([other, workflow], [killSwitch]);
    expect(rows.map(({ name, engagedBy }) => [name, engagedBy])).toEqual([
      ['invoice', 'alice'],
      ['a', ''],
    ]);
    expect(statusRows([], [killSwitch])).toHaveLength(1);
  });

  it('tells of a Workflow whose whole namespace is stopped', () => {
    const whole: KillSwitch = {
      metadata: { name: 'namespace', namespace: 'finance' },
      spec: { wholeNamespace: true, reason: 'leak', engagedBy: 'bob' },
    };
    const rows = statusRows([workflow], [whole]);
    expect(rows.map(({ name, engagedBy }) => [name, engagedBy])).toEqual([
      ['invoice', 'bob'],
      ['namespace', 'bob'],
    ]);
  });

  it('leaves the standing probe out of the view of all namespaces', async () => {
    server.put(resources.killSwitches, killSwitch);
    server.put(resources.killSwitches, {
      ...killSwitch,
      metadata: { name: 'canary', namespace: PROBE_NAMESPACE },
    });
    const { out } = await cli('status', '-A', '-o', 'json');
    expect((JSON.parse(out) as { name: string }[]).map(({ name }) => name)).toEqual(['invoice']);
  });

  it('prints the owner with -o wide', async () => {
    server.put(resources.workflows, {
      ...workflow,
      spec: { targets: [], owner: { team: 'payments', contact: 'p', escalation: 'pager' } },
    });
    expect((await cli('status')).out).not.toContain('pager');
    const { out } = await cli('status', '-o', 'wide');
    expect(out).toMatch(/TEAM +ESCALATION/);
    expect(out).toMatch(/payments +pager/);
  });

  it.each(['table', 'json', 'yaml'])('prints %s', async (format) => {
    server.put(resources.workflows, workflow);
    server.put(resources.killSwitches, killSwitch);
    const { code, out } = await cli('status', '-o', format);
    expect(code).toBe(0);
    expect(out).toContain('runaway');
    expect(out).toContain('alice');
  });

  it('fails for a name that there is not', async () => {
    expect((await cli('status', 'nobody')).code).toBe(1);
  });
});

describe('rotate', () => {
  const identity: AutomationIdentity = {
    metadata: { name: 'invoice', namespace: 'finance' },
    spec: {},
  };

  it.each([
    [[], annotation.rotate],
    [['--emergency'], annotation.rotateEmergency],
  ])('asks for it by a text of its own each time: %j', async (flags, key) => {
    server.put(resources.automationIdentities, identity);
    const asked = new Set<string | undefined>();
    for (const _ of ['once', 'again']) {
      const { code } = await cli('rotate', 'invoice', '--wait=false', ...flags);
      expect(code).toBe(0);
      asked.add(
        server.get(resources.automationIdentities, 'finance/invoice')?.metadata.annotations?.[key],
      );
    }
    expect(asked.size).toBe(2);
    expect(asked).not.toContain(undefined);
  });

  it('says that it is not done in time, and what it waits for', async () => {
    server.put(resources.automationIdentities, {
      ...identity,
      status: {
        conditions: [
          {
            type: 'Ready',
            status: 'False',
            reason: 'RotationFailed',
            message: 'the quota is exhausted',
            lastTransitionTime: '2026-01-01T00:00:00Z',
          },
        ],
      },
    });
    const { code, err } = await cli('rotate', 'invoice', '--timeout=0.01');
    expect(code).toBe(1);
    expect(err).toContain('the quota is exhausted');
  });

  it('fails for a name that there is not', async () => {
    expect((await cli('rotate', 'nobody')).code).toBe(1);
  });
});
