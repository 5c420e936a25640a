import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PolicyRule, Role, RoleBinding } from '../../api/objects.ts';
import { ObjectStore } from '../../runtime/store.ts';
import { bindingIndexes, bindingsReaching, projectBinding, projectRole } from './bindings.ts';
import { effectivePermissions, excess, excessFinding, excessOf, type Grant } from './effective.ts';
import { childMetadata } from './plan.ts';

const account = { namespace: 'finance', name: 'poster' };
const apiGroup = 'rbac.authorization.k8s.io';

type Subject = NonNullable<RoleBinding['subjects']>[number];

function binding(
  name: string,
  {
    namespace,
    role = 'reader',
    kind = 'ClusterRole',
    subjects = [],
  }: {
    namespace?: string;
    role?: string;
    kind?: string;
    subjects?: Subject[];
  },
): RoleBinding {
  return {
    metadata: { name, ...(namespace !== undefined && { namespace }) },
    roleRef: { apiGroup, kind, name: role },
    subjects,
  };
}

function stores(bindings: readonly RoleBinding[], all: readonly Role[]) {
  const made = {
    roleBindings: new ObjectStore<RoleBinding>(bindingIndexes),
    clusterRoleBindings: new ObjectStore<RoleBinding>(bindingIndexes),
    roles: new ObjectStore<Role>(),
    clusterRoles: new ObjectStore<Role>(),
  };
  for (const one of bindings) {
    const { roleBindings, clusterRoleBindings } = made;
    const store = one.metadata.namespace === undefined ? clusterRoleBindings : roleBindings;
    store.set(projectBinding(one));
  }
  for (const role of all) {
    const store = role.metadata.namespace === undefined ? made.clusterRoles : made.roles;
    store.set(projectRole(role));
  }
  return made;
}

function effective(bindings: readonly RoleBinding[], roles: readonly Role[]): Grant[] {
  const made = stores(bindings, roles);
  return effectivePermissions(bindingsReaching(account, made), made, account);
}

const lists: PolicyRule = { apiGroups: [''], resources: ['pods'], verbs: ['list'] };
const reader: Role = { metadata: { name: 'reader' }, rules: [lists] };

describe('effectivePermissions', () => {
  it.each<[string, Subject, string | undefined, boolean]>([
    ['its ServiceAccount', { kind: 'ServiceAccount', ...account }, 'finance', true],
    ['it, elsewhere', { kind: 'ServiceAccount', ...account }, 'other', true],
    ['it, everywhere', { kind: 'ServiceAccount', ...account }, undefined, true],
    ['one without a namespace, here', { kind: 'ServiceAccount', name: 'poster' }, 'finance', true],
    ['the same, elsewhere', { kind: 'ServiceAccount', name: 'poster' }, 'other', false],
    ['the same, of no namespace', { kind: 'ServiceAccount', name: 'poster' }, undefined, false],
    [
      'its namesake',
      { kind: 'ServiceAccount', name: 'poster', namespace: 'other' },
      'finance',
      false,
    ],
    ['its user', { kind: 'User', name: 'system:serviceaccount:finance:poster' }, 'other', true],
    ['another', { kind: 'User', name: 'system:serviceaccount:finance:payer' }, 'finance', false],
    ['a person of its name', { kind: 'User', name: 'poster' }, 'finance', false],
    ['too long a user', { kind: 'User', name: 'system:serviceaccount:a:b:c' }, 'a', false],
    ['all ServiceAccounts', { kind: 'Group', name: 'system:serviceaccounts' }, undefined, true],
    [
      'those of its namespace',
      { kind: 'Group', name: 'system:serviceaccounts:finance' },
      'other',
      true,
    ],
    ['those of another', { kind: 'Group', name: 'system:serviceaccounts:other' }, 'finance', false],
    ['everybody', { kind: 'Group', name: 'system:authenticated' }, 'finance', true],
    ['nobody', { kind: 'Group', name: 'system:unauthenticated' }, 'finance', false],
    ['people', { kind: 'Group', name: 'finance' }, 'finance', false],
    ['a kind that there is not', { kind: 'Robot', ...account }, 'finance', false],
  ])('reaches %s, or not', (_, subject, namespace, reaches) => {
    const one = binding('one', { subjects: [subject], ...(namespace && { namespace }) });
    expect(effective([one], [reader]).map(({ rules }) => rules)).toEqual(reaches ? [[lists]] : []);
  });

  const own: Subject = { kind: 'ServiceAccount', ...account };

  it('takes the role of the namespace of the binding, and none that does not exist', () => {
    const roles = ['finance', 'other'].map((namespace) => ({
      metadata: { namespace, name: 'local' },
      rules: [{ ...lists, verbs: [namespace] }],
    }));
    const made = ['finance', 'other', 'third'].map((namespace) =>
      binding('b', { namespace, kind: 'Role', role: 'local', subjects: [own] }),
    );
    expect(effective(made, roles).map(({ rules }) => rules.flatMap(({ verbs }) => verbs))).toEqual([
      ['finance'],
      ['other'],
      [],
    ]);
  });

  it('knows URLs in ClusterRoleBindings alone', () => {
    const urls = { nonResourceURLs: ['/metrics'], verbs: ['get'] };
    const role = { metadata: { name: 'reader' }, rules: [lists, urls] };
    const made = [
      binding('a', { subjects: [own] }),
      binding('b', { namespace: 'finance', subjects: [own] }),
    ];
    expect(effective(made, [role]).map(({ rules }) => rules)).toEqual([[lists, urls], [lists]]);
  });

  it('counts a binding once, whatever number of its subjects reach', () => {
    const subjects = [own, { kind: 'Group', name: 'system:authenticated' }, own];
    expect(effective([binding('b', { subjects })], [reader])).toHaveLength(1);
  });
});

describe('excess', () => {
  const everybody = { kind: 'Group', name: 'system:authenticated' };
  const own: Subject = { kind: 'ServiceAccount', ...account };

  function beyond(bindings: RoleBinding[], roles: Role[], declared: PolicyRule[]): Grant[] {
    return excess(effective(bindings, roles), { namespace: 'finance', rules: declared });
  }

  it('is nothing where what is granted was declared, in its namespace and nowhere else', () => {
    const here = binding('b', { namespace: 'finance', subjects: [own] });
    const there = binding('b', { namespace: 'other', subjects: [own] });
    const everywhere = binding('b', { subjects: [own] });
    expect(beyond([here], [reader], [lists])).toEqual([]);
    expect(beyond([here], [reader], [])).toHaveLength(1);
    expect(beyond([there], [reader], [lists])).toHaveLength(1);
    expect(beyond([everywhere], [reader], [lists])).toHaveLength(1);
  });

  it('leaves out what everybody has by Kubernetes, by whatever binding, and no more', () => {
    const basic = {
      apiGroups: ['authorization.k8s.io'],
      resources: ['selfsubjectaccessreviews'],
      verbs: ['create'],
    };
    const discovery = { nonResourceURLs: ['/apis', '/apis/*'], verbs: ['get'] };
    const bootstrapping = { 'kubernetes.io/bootstrapping': 'rbac-defaults' };
    const role = { metadata: { name: 'reader' }, rules: [basic, discovery] };
    const made = { ...binding('system:basic-user', { subjects: [everybody] }) };
    expect(beyond([made], [role], [])).toEqual([]);
    // A label is no excuse: whoever edits a role of the system gives it to everybody.
    const edited = { ...role, rules: [...role.rules, lists] };
    made.metadata.labels = bootstrapping;
    expect(beyond([made], [edited], []).map(({ rules }) => rules)).toEqual([[lists]]);
  });

  const verbs = fc.subarray(['get', 'list', 'delete'], { minLength: 1 });
  const rule = fc.record({
    apiGroups: fc.subarray(['', 'apps'], { minLength: 1 }),
    resources: fc.subarray(['pods', 'secrets'], { minLength: 1 }),
    verbs,
  });
  const subject = fc.constantFrom<Subject>(
    own,
    { kind: 'User', name: 'system:serviceaccount:finance:poster' },
    { kind: 'Group', name: 'system:serviceaccounts:finance' },
    everybody,
    { kind: 'ServiceAccount', name: 'payer', namespace: 'finance' },
    { kind: 'User', name: 'alice' },
  );

  it('is exactly what the account may do and did not declare, request by request', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            namespace: fc.constantFrom('finance', 'other', undefined),
            subjects: fc.array(subject, { maxLength: 2 }),
            rules: fc.array(rule, { maxLength: 2 }),
          }),
          { maxLength: 4 },
        ),
        fc.array(rule, { maxLength: 2 }),
        (given, declared) => {
          const bindings = given.map(({ namespace, subjects }, index) =>
            binding(`b${index}`, {
              role: `r${index}`,
              subjects,
              ...(namespace !== undefined && { namespace }),
            }),
          );
          const roles = given.map(({ rules }, index) => ({
            metadata: { name: `r${index}` },
            rules,
          }));
          const found = beyond(bindings, roles, declared);
          const reaching = given.map(({ subjects }) =>
            subjects.some(({ name }) => name !== 'payer' && name !== 'alice'),
          );
          for (const [namespace, group, resource, verb] of requests) {
            const allows = ({ apiGroups, resources, verbs: of }: PolicyRule): boolean =>
              apiGroups!.includes(group) && resources!.includes(resource) && of.includes(verb);
            const isDeclared = namespace === 'finance' && declared.some(allows);
            const isAllowed = given.some(
              ({ namespace: where, rules }, index) =>
                reaching[index] &&
                (where === undefined || where === namespace) &&
                rules.some(allows),
            );
            const isFound = found.some(
              ({ namespace: where, rules }) =>
                (where === undefined || where === namespace) && rules.some(allows),
            );
            if (isAllowed && !isDeclared) expect(isFound).toBe(true);
            // What is granted everywhere is beyond what is declared here, and named as a whole.
            const isEverywhere = given.some(
              ({ namespace: where, rules }, index) =>
                reaching[index] && where === undefined && rules.some(allows),
            );
            if (!isAllowed || (isDeclared && !isEverywhere)) expect(isFound).toBe(false);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  const requests = ['finance', 'other'].flatMap((namespace) =>
    ['', 'apps'].flatMap((group) =>
      ['pods', 'secrets'].flatMap((resource) =>
        ['get', 'list', 'delete'].map((verb) => [namespace, group, resource, verb] as const),
      ),
    ),
  );
});

describe('excessOf', () => {
  const identity = { metadata: { ...account, uid: 'uid-of-poster' }, spec: {} };
  const own: Subject = { kind: 'ServiceAccount', ...account };
  const { metadata } = childrenOf('poster');
  const local = (name: string): RoleBinding =>
    binding(name, { namespace: 'finance', kind: 'Role', role: 'poster', subjects: [own] });

  function childrenOf(name: string): Pick<RoleBinding, 'metadata'> {
    return { metadata: childMetadata(identity, name) };
  }

  it('is none of the own bindings and the own Role, of which a cache may have yesterday’s', () => {
    const yesterdays = { metadata, rules: [lists] };
    const made = [
      { ...local('poster'), metadata },
      { ...binding('x', { role: 'mark', subjects: [own] }), ...childrenOf('poster.identity') },
      local('by-somebody-else'),
    ];
    const marks = { metadata: { name: 'mark' }, rules: [lists] };
    expect(excessOf(identity, [], stores(made, [yesterdays, marks]))).toEqual([]);
  });

  it('is what somebody else’s Role of the same name gives, or a binding that only looks own', () => {
    const theirs = { metadata: { ...account }, rules: [lists] };
    const forged = {
      ...local('poster'),
      metadata: { ...metadata, ownerReferences: [{ ...metadata.ownerReferences![0]!, uid: 'x' }] },
    };
    const found = excessOf(identity, [], stores([forged, local('more')], [theirs]));
    expect(found.map(({ binding: { name } }) => name)).toEqual(['more', 'poster']);
  });
});

describe('excessFinding', () => {
  const own: Subject = { kind: 'ServiceAccount', ...account };

  it('names five bindings, and the number of the others', () => {
    const many = Array.from({ length: 9 }, (_, index) => binding(`b${index}`, { subjects: [own] }));
    const found = excess(effective(many, [reader]), { namespace: 'finance', rules: [] });
    const { status, message } = excessFinding(found, []);
    expect(status).toBe('True');
    expect(message.match(/ClusterRoleBinding b\d/g)).toHaveLength(5);
    expect(message).toContain('4 more bindings');
    expect(message).toContain('allows in every namespace: list pods.');
  });

  it('stays short, whatever is granted', () => {
    const long = Array.from({ length: 500 }, (_, index) => 'x'.repeat(200) + index);
    const role = {
      metadata: { name: 'reader' },
      rules: [{ apiGroups: long, resources: long, resourceNames: long, verbs: long }],
    };
    const many = long.map((name) => binding(name, { subjects: [own] }));
    const found = excess(effective(many, [role]), { namespace: 'finance', rules: [] });
    expect(excessFinding(found, []).message.length).toBeLessThan(10_000);
  });
});

describe('what is kept of RBAC', () => {
  it('is nothing of people, and nothing but the rules of a role', () => {
    const own: Subject = { kind: 'ServiceAccount', ...account };
    const annotations = { note: 'x'.repeat(1_000) };
    const kept = projectBinding({
      ...binding('b', { namespace: 'finance', subjects: [{ kind: 'User', name: 'alice' }, own] }),
      metadata: { name: 'b', namespace: 'finance', uid: 'u', resourceVersion: '1', annotations },
    });
    expect(kept.subjects).toEqual([own]);
    expect(kept.metadata).toEqual({
      name: 'b',
      namespace: 'finance',
      uid: 'u',
      resourceVersion: '1',
    });
    expect(projectRole({ ...reader, metadata: { name: 'reader', annotations } })).toEqual(reader);
  });
});
