import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { label } from '../../src/api/names.ts';
import type { Condition, PolicyRule, Role, RoleBinding } from '../../src/api/objects.ts';
import {
  bindingIndexes,
  bindingsReaching,
  projectBinding,
  projectRole,
} from '../../src/guardrails/identity/bindings.ts';
import { effectivePermissions } from '../../src/guardrails/identity/effective.ts';
import { areCovered } from '../../src/guardrails/identity/rules.ts';
import { ObjectStore } from '../../src/runtime/store.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { getObject, installGuardrails, kubectlOk } from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const name = 'poster';
const namespace = 'finance';
const apiGroup = 'rbac.authorization.k8s.io';
const user = `system:serviceaccount:${namespace}:${name}`;

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  // What is bound before there is an identity, admission lets pass.
  await controlPlane.apply([
    namespaced(namespace, 'prod'),
    namespaced('elsewhere'),
    role('ClusterRole', 'pod-lister', [rule('pods', 'list')]),
    binding('RoleBinding', 'early', 'pod-lister', account),
  ]);
  operator = await startOperator({ kubeconfigPath });
  await controlPlane.apply([identity([rule('configmaps', 'get', 'list')])]);
});

afterAll(async () => {
  operator?.kill();
  await controlPlane?.stop();
});

function namespaced(of: string, environment?: string): object {
  const labels = environment === undefined ? {} : { [label.environment]: environment };
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name: of, labels } };
}

function rule(
  resource: string,
  ...verbs: string[]
): PolicyRule & Required<Pick<PolicyRule, 'apiGroups' | 'resources'>> {
  return { apiGroups: [''], resources: [resource], verbs };
}

function role(kind: 'Role' | 'ClusterRole', of: string, rules: PolicyRule[], more = {}): object {
  const metadata = { name: of, ...(kind === 'Role' && { namespace }) };
  return { apiVersion: `${apiGroup}/v1`, kind, metadata, rules, ...more };
}

const account = { kind: 'ServiceAccount', name, namespace };
const group = (of: string): object => ({ apiGroup, kind: 'Group', name: of });

function binding(
  kind: 'RoleBinding' | 'ClusterRoleBinding',
  of: string,
  to: string,
  subject: object,
  where: string = namespace,
): object {
  return {
    apiVersion: `${apiGroup}/v1`,
    kind,
    metadata: { name: of, ...(kind === 'RoleBinding' && { namespace: where }) },
    roleRef: { apiGroup, kind: 'ClusterRole', name: to },
    subjects: [subject],
  };
}

function identity(permissions: PolicyRule[], of: string = name): object {
  return {
    apiVersion: 'automationguardrails.dev/v1alpha1',
    kind: 'AutomationIdentity',
    metadata: { name: of, namespace },
    spec: {
      purpose: 'posts invoices',
      owner: { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' },
      permissions: permissions.map((one) => ({ ...one, reason: 'a test' })),
    },
  };
}

function conditionOf(found: AutomationIdentity | undefined, type: string): Condition | undefined {
  return found?.status?.conditions?.find((condition) => condition.type === type);
}

function readIdentity(of = name): Promise<AutomationIdentity | undefined> {
  return getObject<AutomationIdentity>(controlPlane, 'aid', of, namespace);
}

/** Waits until the condition says so, and its message all of this. */
async function excess(status: Condition['status'], ...says: string[]): Promise<Condition> {
  return waitFor(`ExcessPermissions to be ${status}: ${says.join()}`, async () => {
    const condition = conditionOf(await readIdentity(), 'ExcessPermissions');
    const fits =
      condition?.status === status && says.every((text) => condition.message.includes(text));
    return fits ? condition : undefined;
  });
}

async function remove(kind: string, of: string, where = namespace): Promise<void> {
  await kubectlOk(controlPlane, ['delete', kind, of, `-n=${where}`]);
}

async function metric(state: string): Promise<number> {
  const text = await (await fetch(operator.metricsUrl())).text();
  const found = new RegExp(`excess_permissions\\{state="${state}"\\} (\\d+)`).exec(text);
  return Number(found?.[1] ?? Number.NaN);
}

describe('what others let an identity do', () => {
  it('is found where it was bound before, and keeps it from nothing', async () => {
    const { reason } = await excess(
      'True',
      'RoleBinding finance/early (ClusterRole pod-lister) allows: list pods.',
    );
    expect(reason).toBe('GrantedElsewhere');
    await waitFor('the identity to be ready', async () => {
      const found = await readIdentity();
      return conditionOf(found, 'Ready')?.status === 'True';
    });
    expect(conditionOf(await readIdentity(), 'Held')?.status).toBe('False');
    await waitFor('the metric', async () => (await metric('excess')) === 1);
    await waitFor('the event', async () => {
      const events = await kubectlOk(controlPlane, [
        'get',
        'events.events.k8s.io',
        `-n=${namespace}`,
        '-o=jsonpath={range .items[*]}{.type} {.reason} {.note}{"\\n"}{end}',
      ]);
      return /Warning ExcessPermissions .*finance\/early/.test(events);
    });
  });

  it('is over when it is taken away: what is left was declared, or everybody has it', async () => {
    await remove('rolebinding', 'early');
    await excess('False');
    await waitFor('the metric', async () => (await metric('excess')) === 0);
  });

  it.each<[string, object[], string, string[]]>([
    [
      'its ServiceAccount, everywhere',
      [binding('ClusterRoleBinding', 'x', 'view', account)],
      'ClusterRoleBinding x (ClusterRole view) allows in every namespace: ',
      ['clusterrolebinding', 'x'],
    ],
    [
      'its user, everywhere',
      [binding('ClusterRoleBinding', 'x', 'view', { apiGroup, kind: 'User', name: user })],
      'ClusterRoleBinding x (ClusterRole view) allows in every namespace: ',
      ['clusterrolebinding', 'x'],
    ],
    [
      'all ServiceAccounts',
      [binding('ClusterRoleBinding', 'x', 'view', group('system:serviceaccounts'))],
      'allows by the group system:serviceaccounts in every namespace: ',
      ['clusterrolebinding', 'x'],
    ],
    [
      'the ServiceAccounts of its namespace, in another one',
      [
        binding(
          'RoleBinding',
          'x',
          'view',
          group(`system:serviceaccounts:${namespace}`),
          'elsewhere',
        ),
      ],
      'RoleBinding elsewhere/x (ClusterRole view) allows by the group system:serviceaccounts:finance: ',
      ['rolebinding', 'x', 'elsewhere'],
    ],
    [
      'everybody, in another namespace',
      [binding('RoleBinding', 'x', 'view', group('system:authenticated'), 'elsewhere')],
      'allows by the group system:authenticated: ',
      ['rolebinding', 'x', 'elsewhere'],
    ],
    [
      'its ServiceAccount, in another namespace',
      [binding('RoleBinding', 'x', 'view', account, 'elsewhere')],
      'RoleBinding elsewhere/x (ClusterRole view) allows: ',
      ['rolebinding', 'x', 'elsewhere'],
    ],
  ])('is found by whichever subject: %s', async (_, objects, says, [kind = '', of = '', where]) => {
    await controlPlane.apply(objects);
    await excess('True', says);
    await remove(kind, of, where);
    await excess('False');
  });

  it('follows what is aggregated into a ClusterRole, and what a role that was bound comes to allow', async () => {
    const labels = { 'example.com/aggregate-to-wide': 'true' };
    const aggregationRule = { clusterRoleSelectors: [{ matchLabels: labels }] };
    await controlPlane.apply([
      role('ClusterRole', 'wide', [], { aggregationRule }),
      binding('ClusterRoleBinding', 'wide', 'wide', account),
    ]);
    await excess('False');
    const part = { metadata: { name: 'part', labels } };
    await controlPlane.apply([role('ClusterRole', 'part', [rule('nodes', 'get')], part)]);
    await excess('True', 'ClusterRoleBinding wide (ClusterRole wide)', 'get nodes');
    await controlPlane.apply([role('ClusterRole', 'part', [rule('services', 'list')], part)]);
    await excess('True', 'list services');
    await remove('clusterrole', 'part');
    await excess('False');
    await remove('clusterrolebinding', 'wide');
  });

  it('is what the API server answers too', async () => {
    const asked: [string, string, string, string?][] = [
      [namespace, 'list', 'configmaps'],
      [namespace, 'delete', 'configmaps'],
      [namespace, 'get', 'secrets', 'one'],
      [namespace, 'get', 'secrets', 'two'],
      [namespace, 'patch', 'deployments/scale'],
      [namespace, 'patch', 'deployments'],
      ['elsewhere', 'list', 'pods'],
      ['elsewhere', 'list', 'configmaps'],
    ];
    await controlPlane.apply([
      role('ClusterRole', 'one-secret', [
        { ...rule('secrets', 'get'), resourceNames: ['one'] },
        { apiGroups: ['apps', 'extensions'], resources: ['*/scale'], verbs: ['*'] },
      ]),
      binding('ClusterRoleBinding', 'one-secret', 'one-secret', account),
      role('ClusterRole', 'pod-lister', [rule('pods', 'list')]),
      binding('RoleBinding', 'y', 'pod-lister', group('system:serviceaccounts'), 'elsewhere'),
    ]);
    await excess('True', 'one-secret', 'elsewhere/y');
    const stores = await readRbac();
    const grants = effectivePermissions(bindingsReaching(account, stores), stores, account);
    for (const [where, verb, path, object] of asked) {
      const [resource = '', subresource] = path.split('/');
      const apiGroups = resource === 'deployments' ? ['apps'] : [''];
      const request: PolicyRule = {
        apiGroups,
        resources: [path],
        verbs: [verb],
        ...(object !== undefined && { resourceNames: [object] }),
      };
      const reaching = grants.filter((grant) => [undefined, where].includes(grant.namespace));
      const answer = areCovered(
        [request],
        reaching.flatMap(({ rules }) => rules),
      );
      const review = await controlPlane.kubectl(['create', '-o=json', '-f', '-'], {
        input: JSON.stringify({
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SubjectAccessReview',
          spec: {
            user,
            groups: [
              'system:serviceaccounts',
              `system:serviceaccounts:${namespace}`,
              'system:authenticated',
            ],
            resourceAttributes: {
              namespace: where,
              verb,
              group: apiGroups[0],
              resource,
              ...(subresource !== undefined && { subresource }),
              ...(object !== undefined && { name: object }),
            },
          },
        }),
      });
      const { status } = JSON.parse(review.stdout) as { status: { allowed: boolean } };
      expect({ where, verb, path, object, allowed: answer }).toEqual({
        where,
        verb,
        path,
        object,
        allowed: status.allowed,
      });
    }
    await remove('clusterrolebinding', 'one-secret');
    await remove('rolebinding', 'y', 'elsewhere');
    await excess('False');
  });

  async function readRbac() {
    const list = async <T>(kinds: string): Promise<T[]> => {
      const text = await kubectlOk(controlPlane, ['get', kinds, '-A', '-o=json']);
      return (JSON.parse(text) as { items: T[] }).items;
    };
    const stores = {
      roleBindings: new ObjectStore<RoleBinding>(bindingIndexes),
      clusterRoleBindings: new ObjectStore<RoleBinding>(bindingIndexes),
      roles: new ObjectStore<Role>(),
      clusterRoles: new ObjectStore<Role>(),
    };
    const bindings = await list<RoleBinding>('rolebindings');
    bindings.map(projectBinding).forEach((one) => stores.roleBindings.set(one));
    const ofCluster = await list<RoleBinding>('clusterrolebindings');
    ofCluster.map(projectBinding).forEach((one) => stores.clusterRoleBindings.set(one));
    (await list<Role>('roles')).map(projectRole).forEach((one) => stores.roles.set(one));
    const clusterRoles = await list<Role>('clusterroles');
    clusterRoles.map(projectRole).forEach((one) => stores.clusterRoles.set(one));
    return stores;
  }
});

describe('permissions that the installation doesn’t allow', () => {
  it('are not granted, though the operator itself holds them', async () => {
    await controlPlane.apply([identity([rule('pods', 'list')], 'borrower')]);
    await waitFor('the refusal', async () => {
      const ready = conditionOf(await readIdentity('borrower'), 'Ready');
      return ready?.reason === 'PermissionsNotGrantable' && ready.message.includes('list pods');
    });
    const granted = await kubectlOk(controlPlane, [
      'get',
      'role',
      'borrower',
      `--namespace=${namespace}`,
      '--ignore-not-found',
    ]);
    expect(granted).toBe('');
  });

  it('are named once, with where to add them, and granted when they were added', async () => {
    const declared = [rule('configmaps', 'get'), rule('endpoints', 'get')];
    await controlPlane.apply([identity(declared, 'wishful')]);
    const { message } = await waitFor('the refusal', async () => {
      const ready = conditionOf(await readIdentity('wishful'), 'Ready');
      return ready?.reason === 'PermissionsNotGrantable' ? ready : undefined;
    });
    expect(message).toContain('get endpoints');
    expect(message).toContain("the chart's value grantable");
    expect(message).toContain('ClusterRole automation-guardrails-grantable');
    const failures = operator.logs.filter(
      (line) => line.includes('"level":"error"') && line.includes('wishful'),
    );
    expect(failures).toEqual([]);
    await kubectlOk(controlPlane, [
      'patch',
      'clusterrole',
      'automation-guardrails-grantable',
      '--type=json',
      `-p=${JSON.stringify([{ op: 'add', path: '/rules/-', value: rule('endpoints', 'get') }])}`,
    ]);
    await waitFor('the grant', async () => {
      const ready = conditionOf(await readIdentity('wishful'), 'Ready');
      return ready?.status === 'True';
    });
  });
});

describe('an operator that may not list what binds the whole cluster', () => {
  it('says that it doesn’t know, works on, and knows again when it may', async () => {
    const path = '/rules';
    const text = await kubectlOk(controlPlane, [
      'get',
      'clusterrole',
      'automation-guardrails-operator',
      '-o=json',
    ]);
    const { rules } = JSON.parse(text) as { rules: PolicyRule[] };
    const give = (value: PolicyRule[]): Promise<string> =>
      kubectlOk(controlPlane, [
        'patch',
        'clusterrole',
        'automation-guardrails-operator',
        '--type=json',
        `-p=${JSON.stringify([{ op: 'replace', path, value }])}`,
      ]);
    expect(await operator.stop()).toBe(0);
    await give(rules.filter(({ resources = [] }) => !resources.includes('clusterrolebindings')));
    await waitFor('the API server to forbid it', async () => {
      const { stdout } = await controlPlane.kubectl(
        ['auth', 'can-i', 'list', 'clusterrolebindings'],
        { as: 'system:serviceaccount:automation-guardrails:automation-guardrails' },
      );
      return stdout.trim() === 'no';
    });
    operator = await startOperator({ kubeconfigPath });
    const { reason, message } = await excess('Unknown');
    expect(reason).toBe('BindingsNotRead');
    expect(message).toContain('list clusterrolebindings and clusterroles');
    expect(conditionOf(await readIdentity(), 'Ready')?.status).toBe('True');
    await waitFor('the metric', async () => (await metric('unknown')) === 3);
    expect((await fetch(`${operator.healthUrl()}/readyz`)).ok).toBe(true);
    await give(rules);
    await excess('False');
  });
});
