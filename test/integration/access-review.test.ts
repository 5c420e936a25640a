import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AccessReview } from '../../src/api/access-review.ts';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { conditionOf } from '../../src/api/conditions.ts';
import { annotation, secretNameOf } from '../../src/api/names.ts';
import type { Condition, KubeObject, Role, Secret } from '../../src/api/objects.ts';
import { run as guardrails } from '../../src/cli/run.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { getObject, installGuardrails, kubectlOk, listObjects } from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const name = 'poster';
const namespace = 'finance';
const apiGroup = 'rbac.authorization.k8s.io';

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  operator = await startOperator({ kubeconfigPath });
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'automationguardrails.dev/environment': 'prod' } },
    },
    bind('alice', 'automation-guardrails-requester'),
    bind('alice', 'automation-guardrails-reviewer'),
    bind('bob', 'automation-guardrails-reviewer'),
    role('writes-reviews', ['create', 'patch', 'delete']),
    bind('alice', 'writes-reviews'),
    // What she asks for, she has to be allowed herself.
    bind('alice', 'view'),
    bind('carol', 'writes-reviews'),
    bind('carol', 'admin'),
    {
      ...bind('bot', 'automation-guardrails-reviewer'),
      subjects: [{ kind: 'ServiceAccount', namespace, name: 'bot' }],
    },
  ]);
  await as('alice', 'apply', identity([configmaps('get')]));
  await review('False', 'NotDue');
});

afterAll(async () => {
  operator?.kill();
  await controlPlane?.stop();
});

function bind(who: string, clusterRole: string) {
  return {
    apiVersion: `${apiGroup}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: `${who}-${clusterRole}` },
    roleRef: { apiGroup, kind: 'ClusterRole', name: clusterRole },
    subjects: [{ apiGroup, kind: 'User', name: who }],
  };
}

function role(of: string, verbs: string[]): object {
  const rules = [{ apiGroups: ['automationguardrails.dev'], resources: ['accessreviews'], verbs }];
  return { apiVersion: `${apiGroup}/v1`, kind: 'ClusterRole', metadata: { name: of }, rules };
}

const configmaps = (...verbs: string[]): object => ({
  apiGroups: [''],
  resources: ['configmaps'],
  verbs,
  reason: 'its settings',
});

function identity(permissions: object[], asked: object = { onOverdue: 'Hold' }): object {
  return {
    apiVersion: 'automationguardrails.dev/v1alpha1',
    kind: 'AutomationIdentity',
    metadata: { name, namespace },
    spec: {
      purpose: 'posts invoices',
      owner: { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' },
      permissions,
      secrets: [{ name: 'erp', type: 'Password' }],
      tokens: [{ name: 'ci', audience: 'https://ci.example.com' }],
      accessReview: { every: '2160h', ...asked },
    },
  };
}

async function as(user: string, verb: 'apply' | 'create', object: object): Promise<string> {
  return kubectlOk(controlPlane, [verb, '-f', '-'], { as: user, input: JSON.stringify(object) });
}

function accessReview(fields: object, of = 'by-hand'): object {
  return {
    apiVersion: 'automationguardrails.dev/v1alpha1',
    kind: 'AccessReview',
    metadata: { name: of, namespace },
    spec: { identity: name, decision: 'Keep', reason: 'a test', ...fields },
  };
}

async function cli(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await guardrails({
    argv: [...argv, `--kubeconfig=${controlPlane.kubeconfigPath}`, `--namespace=${namespace}`],
    stdout: (line) => out.push(line),
    stderr: (line) => err.push(line),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

/** As bob, once the operator has seen what there is to review. */
async function decide(decision: string): Promise<void> {
  await waitFor(`bob to decide ${decision}`, async () => {
    const argv = ['review', name, '--as=bob', `--decision=${decision}`, `--reason=${decision} it`];
    const { code, err } = await cli(...argv);
    if (code !== 0 && !/look( at it)? again/.test(err)) throw new Error(err);
    return code === 0;
  });
}

async function read(): Promise<AutomationIdentity> {
  const found = await getObject<AutomationIdentity>(controlPlane, 'aid', name, namespace);
  if (found === undefined) throw new Error('there is no identity');
  return found;
}

async function condition(type: string, status: string, reason: string): Promise<Condition> {
  return waitFor(`${type} to be ${status} ${reason}`, async () => {
    const found = await read();
    const standing = conditionOf(found.status?.conditions, type);
    const isSeen = found.status?.observedGeneration === found.metadata.generation;
    return isSeen && standing?.status === status && standing.reason === reason
      ? standing
      : undefined;
  });
}

const review = (status: string, reason: string): Promise<Condition> =>
  condition('ReviewOverdue', status, reason);

async function digest(): Promise<string> {
  return (await read()).status?.accessReview?.digest ?? '';
}

async function granted(): Promise<string[]> {
  const found = await getObject<Role>(controlPlane, 'role', name, namespace);
  return (found?.rules ?? []).flatMap(({ verbs }) => verbs);
}

describe('who changed an identity last', () => {
  it('is stamped, stays as long as the spec does, and is nobody’s to say', async () => {
    expect((await read()).metadata.annotations?.[annotation.changedBy]).toBe('alice');
    await kubectlOk(controlPlane, [
      'annotate',
      'aid',
      name,
      `-n=${namespace}`,
      '--overwrite',
      `${annotation.changedBy}=mallory`,
      'example.com/note=by the administrator',
    ]);
    const { annotations } = (await read()).metadata;
    expect(annotations?.['example.com/note']).toBe('by the administrator');
    expect(annotations?.[annotation.changedBy]).toBe('alice');
  });
});

describe('who may review', () => {
  it.each<[string, string, object, RegExp]>([
    ['who changed it last', 'alice', {}, /alice changed poster last; somebody else has to/],
    ['who has no right to', 'carol', {}, /carol may not review poster: it takes the verb review/],
    [
      'a ServiceAccount',
      `system:serviceaccount:${namespace}:bot`,
      {},
      /a ServiceAccount may not review/,
    ],
    [
      'who looked at something else',
      'bob',
      { digest: `sha256:${'0'.repeat(64)}` },
      /what poster may do has changed meanwhile: look at it again/,
    ],
    ['nobody without a digest', 'bob', { digest: 'sha256:1' }, /the digest that .* shows/],
  ])('not %s', async (_, user, fields, says) => {
    await expect(
      as(user, 'create', accessReview({ digest: await digest(), ...fields })),
    ).rejects.toThrow(says);
  });

  it('not anybody of what is in a namespace that is not guarded', async () => {
    const object = accessReview({ digest: await digest() });
    Object.assign(object, { metadata: { name: 'by-hand', namespace: 'default' } });
    await expect(as('bob', 'create', object)).rejects.toThrow('this namespace is not guarded');
  });
});

describe('an access review', () => {
  it('is shown whole, and recorded in the name of who reviews', async () => {
    const shown = await cli('review', name, '--as=bob');
    expect(shown.code).toBe(0);
    for (const text of [
      'posts invoices',
      'finance, a@example.com, b@example.com',
      'Changed by  alice',
      'get configmaps: its settings',
      `Secret ${secretNameOf(name, 'erp')}`,
      'ci for https://ci.example.com: expires 20',
      'no Workflow of this name',
      'The next review is due on',
      await digest(),
    ]) {
      expect(shown.out).toContain(text);
    }
    await as('bob', 'create', accessReview({ digest: await digest(), reviewer: 'alice' }));
    await waitFor('the review to count', async () => {
      const { accessReview: found } = (await read()).status ?? {};
      return found?.by === 'bob' && found.decision === 'Keep' && found.review === 'by-hand';
    });
    expect((await review('False', 'NotDue')).message).toContain('bob reviewed it on');
    await waitFor('the event', async () => (await events()).includes('Normal AccessReviewed'));
  });

  it('is never changed, nor deleted by who may', async () => {
    const of = ['accessreview', 'by-hand', `-n=${namespace}`];
    const patch = ['patch', ...of, '--type=merge', '-p={"spec":{"decision":"Revoke"}}'];
    await expect(kubectlOk(controlPlane, patch)).rejects.toThrow("can't be changed");
    await expect(kubectlOk(controlPlane, ['delete', ...of], { as: 'alice' })).rejects.toThrow(
      'stays as it was made',
    );
  });

  it('is void when the identity may do something else, which is not granted before the next', async () => {
    await as('alice', 'apply', identity([configmaps('get', 'list')]));
    expect((await review('True', 'PermissionsChanged')).message).toContain('bob reviewed it on');
    await condition('Held', 'True', 'ReviewOverdue');
    expect(await granted()).toEqual(['get']);
    await waitFor('the metric', async () => (await metric('overdue_access_reviews')) === 1);
    await decide('Keep');
    await condition('Held', 'False', 'Complete');
    await waitFor('the grant', async () => (await granted()).includes('list'));
    await waitFor('the metric', async () => (await metric('overdue_access_reviews')) === 0);
  });

  it('is void, too, when others grant more', async () => {
    const binding = bind('poster', 'view');
    const { metadata } = binding;
    const subjects = [{ kind: 'ServiceAccount', namespace, name }];
    await controlPlane.apply([{ ...binding, subjects }]);
    await review('True', 'PermissionsChanged');
    const shown = await cli('review', name, '--as=bob');
    expect(shown.out).toContain(
      `ClusterRoleBinding ${metadata.name} (ClusterRole view) everywhere:`,
    );
    await kubectlOk(controlPlane, ['delete', 'clusterrolebinding', metadata.name]);
    await review('False', 'NotDue');
  });

  it('that asks for less holds until there is less, and more is no way out', async () => {
    const grace = { onOverdue: 'Hold', gracePeriod: '24h' };
    await as('alice', 'apply', identity([configmaps('get', 'list')], grace));
    await decide('Reduce');
    const { message } = await condition('Held', 'True', 'ReduceRequested');
    expect(message).toContain('Reduce it');
    await as('alice', 'apply', identity([configmaps('get', 'list', 'watch')], grace));
    await condition('Held', 'True', 'ReduceRequested');
    expect(await granted()).toEqual(['get', 'list']);
    await as('alice', 'apply', identity([configmaps('list')], grace));
    await condition('Held', 'False', 'Complete');
    await review('True', 'PermissionsChanged');
    expect(await granted()).toEqual(['list']);
  });
});

describe('a revocation', () => {
  const secretName = secretNameOf(name, 'erp');
  let before: Secret | undefined;

  it('takes away permissions, credentials, tokens and the ServiceAccount', async () => {
    before = await getObject<Secret>(controlPlane, 'secret', secretName, namespace);
    expect(before).toBeDefined();
    const account = ['serviceaccount', name, `-n=${namespace}`];
    await kubectlOk(controlPlane, ['annotate', ...account, 'example.com/cloud-role=poster']);
    await decide('Revoke');
    const { message } = await condition('Held', 'True', 'AccessRevoked');
    expect(message).toContain('Revoke it');
    await waitFor('nothing to be left but the mark', async () => {
      const kinds = 'serviceaccounts,roles,rolebindings,secrets';
      const left = await listObjects<KubeObject>(controlPlane, kinds, namespace);
      const names = left.map(({ metadata }) => metadata.name);
      return names.filter((one) => one !== 'default').join() === `${name}.identity`;
    });
    await expect(kubectlOk(controlPlane, ['create', ...account], { as: 'carol' })).rejects.toThrow(
      'an AutomationIdentity of this name has its ServiceAccount from',
    );
    await waitFor('the event', async () =>
      /Warning AccessReviewed .*Revoke it/.test(await events()),
    );
  });

  it('stands whatever is changed, and whoever operates', async () => {
    await as('alice', 'apply', identity([configmaps('get')]));
    await condition('Held', 'True', 'AccessRevoked');
    expect(await granted()).toEqual([]);
    expect(await operator.stop()).toBe(0);
    operator = await startOperator({ kubeconfigPath });
    await condition('Held', 'True', 'AccessRevoked');
  });

  it('ends with a later review: new values, and what others had on the ServiceAccount', async () => {
    await decide('Keep');
    await condition('Ready', 'True', 'Provisioned');
    const account = await getObject<KubeObject>(controlPlane, 'serviceaccount', name, namespace);
    expect(account?.metadata.annotations?.['example.com/cloud-role']).toBe('poster');
    const after = await getObject<Secret>(controlPlane, 'secret', secretName, namespace);
    expect(after?.data?.['password']).toBeDefined();
    expect(after?.data?.['password']).not.toBe(before?.data?.['password']);
    expect(await granted()).toEqual(['get']);
    await waitFor('the mark to keep nothing any more', async () => {
      const mark = await getObject<KubeObject>(
        controlPlane,
        'rolebinding',
        `${name}.identity`,
        namespace,
      );
      return mark?.metadata.annotations?.[annotation.restoreServiceAccount] === undefined;
    });
    const reviews = await listObjects<AccessReview>(controlPlane, 'accessreviews', namespace);
    expect(reviews.map(({ spec }) => spec.decision).toSorted()).toEqual(
      ['Keep', 'Keep', 'Reduce', 'Revoke', 'Keep'].toSorted(),
    );
  });

  it('is not escaped by making the identity anew: what was kept before was another one’s', async () => {
    const reviewed = (await read()).status?.accessReview?.decision;
    expect(reviewed).toBe('Keep');
    // Times have whole seconds: in the same one, the review would count.
    const second = Math.floor(Date.now() / 1000);
    await waitFor('another second', async () => Math.floor(Date.now() / 1000) > second);
    await kubectlOk(controlPlane, ['delete', 'aid', name, `-n=${namespace}`], { as: 'alice' });
    await as('alice', 'apply', identity([configmaps('get')]));
    await condition('Held', 'True', 'AccessRevoked');
    expect((await read()).status?.accessReview?.by).toBe('bob');
  });
});

async function events(): Promise<string> {
  const format =
    '-o=jsonpath={range .items[*]}{.type} {.reason} {.regarding.kind} {.note}{"\\n"}{end}';
  return kubectlOk(controlPlane, ['get', 'events.events.k8s.io', `-n=${namespace}`, format]);
}

async function metric(of: string): Promise<number> {
  const text = await (await fetch(operator.metricsUrl())).text();
  const found = new RegExp(`^automation_guardrails_${of} (\\S+)$`, 'm').exec(text);
  return Number(found?.[1] ?? Number.NaN);
}
