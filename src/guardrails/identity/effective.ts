import type { AutomationIdentity } from '../../api/automation-identity.ts';
import type { Finding } from '../../api/conditions.ts';
import type { KubeObject, PolicyRule, Role, RoleBinding } from '../../api/objects.ts';
import { isControlledBy } from '../../runtime/applier.ts';
import {
  bindingsReaching,
  reachedThrough,
  rulesGivenBy,
  type Account,
  type RbacStores,
} from './bindings.ts';
import { markNameOf } from './plan.ts';
import { ruleText, subtractRules } from './rules.ts';

/** What one binding lets an account do. */
export interface Grant {
  binding: { kind: 'RoleBinding' | 'ClusterRoleBinding'; namespace?: string; name: string };
  role: { kind: string; name: string };
  /** `namespace/name` of the account, or the group by which the binding reaches it. */
  through: string;
  /** Where the rules hold; `undefined`: in all namespaces, and for what has none. */
  namespace: string | undefined;
  rules: readonly PolicyRule[];
}

/** Roles by what a binding of them says. */
export interface Roles {
  /** By `namespace/name`. */
  roles: { get(key: string): Role | undefined };
  /** By name. The aggregation controller has written the rules of those that are aggregated. */
  clusterRoles: { get(key: string): Role | undefined };
}

/**
 * What a ServiceAccount can really do, by each of the bindings that reach it, whatever kind of subject
 * it is for them. A binding to a role that doesn't exist gives nothing.
 *
 * @returns ordered by the bindings' kinds, namespaces and names
 */
export function effectivePermissions(
  bindings: Iterable<RoleBinding>,
  roles: Roles,
  account: Account,
): Grant[] {
  const grants: Grant[] = [];
  for (const binding of bindings) {
    const through = reachedThrough(binding, account);
    if (through === undefined) continue;
    const { namespace, name } = binding.metadata;
    const { kind, name: role } = binding.roleRef;
    const given = rulesGivenBy(binding, roles) ?? [];
    grants.push({
      binding:
        namespace === undefined
          ? { kind: 'ClusterRoleBinding', name }
          : { kind: 'RoleBinding', namespace, name },
      role: { kind, name: role },
      through,
      namespace,
      // A request for a URL has no namespace, and no RoleBinding is asked about it.
      rules: namespace === undefined ? given : given.filter(isOfResources),
    });
  }
  return grants.toSorted((a, b) => compare(keyOf(a), keyOf(b)));
}

/** The API server takes no rule that is of both. */
function isOfResources({ nonResourceURLs = [] }: PolicyRule): boolean {
  return nonResourceURLs.length === 0;
}

function keyOf({ binding: { kind, namespace = '', name } }: Grant): string {
  return `${kind} ${namespace}/${name}`;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * What every ServiceAccount may do in a cluster to which nobody added anything: the ClusterRoles
 * `system:basic-user`, `system:discovery`, `system:public-info-viewer`,
 * `system:service-account-issuer-discovery` and `system:cluster-trust-bundle-discovery` of Kubernetes
 * 1.36 (`k8s.io/kubernetes`, plugin/pkg/auth/authorizer/rbac/bootstrappolicy). By what they allow and
 * not by the label `kubernetes.io/bootstrapping`, which whoever writes a binding can write too.
 */
const everybodys: readonly PolicyRule[] = [
  {
    apiGroups: ['authorization.k8s.io'],
    resources: ['selfsubjectaccessreviews', 'selfsubjectrulesreviews'],
    verbs: ['create'],
  },
  { apiGroups: ['authentication.k8s.io'], resources: ['selfsubjectreviews'], verbs: ['create'] },
  {
    apiGroups: ['certificates.k8s.io'],
    resources: ['clustertrustbundles'],
    verbs: ['get', 'list', 'watch'],
  },
  {
    nonResourceURLs: [
      '/livez',
      '/readyz',
      '/healthz',
      '/version',
      '/version/',
      '/openapi',
      '/openapi/*',
      '/api',
      '/api/*',
      '/apis',
      '/apis/*',
      '/.well-known/openid-configuration',
      '/.well-known/openid-configuration/',
      '/openid/v1/jwks',
      '/openid/v1/jwks/',
    ],
    verbs: ['get'],
  },
];

/** What an identity declares. */
export interface Declared {
  namespace: string;
  rules: readonly PolicyRule[];
}

/**
 * What goes beyond the declared rules, which hold in the identity's namespace alone: rights anywhere
 * else are beyond them, unless everybody has them.
 *
 * @returns the grants that give more, each with those rules alone
 */
export function excess(effective: readonly Grant[], declared: Declared): Grant[] {
  const known = {
    own: [...everybodys, ...declared.rules],
    elsewhere: everybodys,
  };
  return effective.flatMap((grant) => {
    const covering = grant.namespace === declared.namespace ? known.own : known.elsewhere;
    const rules = subtractRules(grant.rules, covering);
    return rules.length === 0 ? [] : [{ ...grant, rules }];
  });
}

/**
 * What others let an identity do beyond the declared rules. Its own RoleBindings aren't looked at, nor
 * is who else binds its own Role: what those grant, the operator keeps as it is declared, and a cache
 * may have yesterday's.
 *
 * @param declared the rules that the identity's spec asks for
 */
export function excessOf(
  identity: AutomationIdentity,
  declared: readonly PolicyRule[],
  stores: RbacStores,
): Grant[] {
  const { namespace = '', name } = identity.metadata;
  const isOurs = (object: KubeObject | undefined): boolean =>
    object !== undefined && isControlledBy(object, identity);
  const hasOwnRole = isOurs(stores.roles.get(`${namespace}/${name}`));
  const foreign = bindingsReaching({ namespace, name }, stores).filter((binding) => {
    const own = [name, markNameOf(name)].includes(binding.metadata.name) && isOurs(binding);
    const { kind, name: role } = binding.roleRef;
    const isOfOwnRole =
      hasOwnRole && kind === 'Role' && role === name && binding.metadata.namespace === namespace;
    return !own && !isOfOwnRole;
  });
  const effective = effectivePermissions(foreign, stores, { namespace, name });
  return excess(effective, { namespace, rules: declared });
}

/** Bindings that a message names. */
const maxNamed = 5;

/**
 * The condition `ExcessPermissions`, which is true when it is bad.
 *
 * @param unread plural names of the kinds that the operator may not list
 */
export function excessFinding(beyond: readonly Grant[], unread: readonly string[]): Finding {
  const type = 'ExcessPermissions';
  const blind =
    unread.length === 0
      ? ''
      : `The API server doesn't let the operator list ${unread.join(' and ')}, so what they grant isn't known: give it the ClusterRole automation-guardrails-operator of this version.`;
  if (beyond.length > 0) {
    const named = beyond.slice(0, maxNamed).map(textOf);
    const more = beyond.length > maxNamed ? [`${beyond.length - maxNamed} more bindings.`] : [];
    return {
      type,
      status: 'True',
      reason: 'GrantedElsewhere',
      message: [
        'Its ServiceAccount may do more than spec.permissions declares.',
        ...named,
        ...more,
        'Take the subject out of the binding, or declare what the automation needs.',
        ...(blind === '' ? [] : [blind]),
      ].join(' '),
    };
  }
  if (blind !== '') {
    return { type, status: 'Unknown', reason: 'BindingsNotRead', message: blind };
  }
  return {
    type,
    status: 'False',
    reason: 'AsDeclared',
    message: 'Its ServiceAccount may do what spec.permissions declares, and no more.',
  };
}

function textOf({ binding, role, through, namespace, rules }: Grant): string {
  const { kind, name } = binding;
  const where = namespace === undefined ? name : `${namespace}/${name}`;
  const group = through.includes('/') ? '' : ` by the group ${through}`;
  const reach = namespace === undefined ? ' in every namespace' : '';
  const [first] = rules;
  const more = rules.length > 1 ? ' and more' : '';
  return `${kind} ${where} (${role.kind} ${role.name}) allows${group}${reach}: ${first === undefined ? '' : ruleText(first)}${more}.`;
}
