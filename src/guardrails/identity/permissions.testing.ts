import * as fc from 'fast-check';
import type { Permission } from '../../api/automation-identity.ts';
import type { PolicyRule } from '../../api/objects.ts';

/** Whose spec it is, for {@link allowedOfRefused}. */
export const identityName = 'poster';

const some = (...items: string[]): fc.Arbitrary<string[]> =>
  fc.oneof(
    { weight: 3, arbitrary: fc.subarray(items, { minLength: 1, maxLength: 2 }) },
    { weight: 1, arbitrary: fc.subarray(items, { minLength: 1 }) },
  );

/** Permissions of which many are refused, and many are next to what is. */
export const anyPermission: fc.Arbitrary<Permission> = fc
  .record(
    {
      apiGroups: fc.oneof(
        some('', 'apps'),
        some(
          '',
          'apps',
          '*',
          'rbac.authorization.k8s.io',
          'admissionregistration.k8s.io',
          'automationguardrails.dev',
          'networking.k8s.io',
        ),
      ),
      resources: fc.oneof(
        some('configmaps', 'secrets', 'pods', 'deployments/scale'),
        some(
          '*',
          'pods/*',
          '*/exec',
          'pods/exec',
          'pods/attach',
          'pods/portforward',
          'pods/proxy',
          'pods/ephemeralcontainers',
          'services/proxy',
          'nodes/proxy',
          'serviceaccounts/token',
          'roles',
          'rolebindings',
          'killswitches',
          'validatingadmissionpolicies',
          'namespaces',
          'namespaces/status',
          'namespaces/finalize',
          'networkpolicies',
          'secrets',
          'pods/log',
        ),
      ),
      resourceNames: some('one', `aid.${identityName}.db`, 'aid.other.db', 'aid.', '*'),
      verbs: fc.oneof(
        some('get', 'list', 'watch', 'create'),
        some(
          '*',
          'get',
          'list',
          'watch',
          'create',
          'update',
          'patch',
          'delete',
          'deletecollection',
          'escalate',
          'bind',
          'impersonate',
          'impersonate:user-info',
        ),
      ),
      reason: fc.constant('a test'),
    },
    { requiredKeys: ['apiGroups', 'resources', 'verbs', 'reason'] },
  )
  .map(({ resourceNames, ...permission }) =>
    resourceNames === undefined ? permission : { ...permission, resourceNames },
  );

interface Request {
  group: string;
  resource: string;
  verb: string;
  name: string;
}

const writes = ['create', 'update', 'patch', 'delete', 'deletecollection'];
const verbs = ['get', 'list', 'watch', ...writes, 'anything'];

function requests(
  groups: readonly string[],
  resources: readonly string[],
  of: readonly string[],
  names: readonly string[] = ['one'],
): Request[] {
  return groups.flatMap((group) =>
    resources.flatMap((resource) =>
      of.flatMap((verb) => names.map((name) => ({ group, resource, verb, name }))),
    ),
  );
}

/**
 * What the design refuses, as requests that no automation may make, written without a look at how
 * it is refused. `anything` and `unheard-of` are only allowed to who may do everything.
 */
const refused: readonly Request[] = [
  ...requests(
    [''],
    [
      'pods/exec',
      'pods/attach',
      'pods/portforward',
      'pods/proxy',
      'pods/ephemeralcontainers',
      'services/proxy',
      'nodes/proxy',
      'serviceaccounts/token',
    ],
    verbs,
  ),
  ...requests(
    ['', 'apps', 'rbac.authorization.k8s.io', 'unheard-of'],
    ['configmaps', 'secrets', 'roles', 'unheard-of'],
    ['escalate', 'bind', 'impersonate', 'impersonate:user-info', 'anything'],
  ),
  ...requests(['unheard-of'], ['configmaps', 'pods'], verbs),
  ...requests(['', 'apps'], ['unheard-of', 'unheard-of/scale'], verbs),
  ...requests(['rbac.authorization.k8s.io'], ['roles', 'rolebindings'], writes),
  ...requests(['admissionregistration.k8s.io'], ['validatingadmissionpolicies'], writes),
  ...requests(['automationguardrails.dev'], ['killswitches'], writes),
  ...requests([''], ['namespaces', 'namespaces/status', 'namespaces/finalize'], writes),
  ...requests(['networking.k8s.io'], ['networkpolicies'], writes),
  ...requests([''], ['secrets'], ['list', 'watch', 'deletecollection'], ['', 'one']),
  ...requests([''], ['secrets'], ['get', 'update', 'patch', 'delete'], ['unheard-of']),
  ...requests([''], ['secrets'], ['get', 'update', 'patch', 'delete'], ['aid.other.db', 'aid.']),
];

function has(list: readonly string[] = [], item: string): boolean {
  return list.includes(item) || list.includes('*');
}

/** Which of the refused requests RBAC would allow by these rules. */
export function allowedOfRefused(rules: readonly PolicyRule[]): Request[] {
  return refused.filter(({ group, resource, verb, name }) =>
    rules.some(
      ({ apiGroups, resources, resourceNames = [], verbs: of }) =>
        has(apiGroups, group) &&
        (has(resources, resource) ||
          (resources ?? []).includes(resource.replace(/^[^/]*\//, '*/'))) &&
        has(of, verb) &&
        (resourceNames.length === 0 || resourceNames.includes(name)),
    ),
  );
}

/** Nothing is withheld, and everything can be granted. */
export const unlimited = {
  withheld: false,
  grantable: [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }],
};
