import { describe, expect, it } from 'vitest';
import type { RoleBinding } from '../api/objects.ts';
import { holdersOf, ruleAllows, type Access } from './access.ts';

const release: Access = {
  verb: 'release',
  group: 'automationguardrails.dev',
  resource: 'killswitches',
  name: 'invoice',
};
const patch: Access = { ...release, verb: 'patch' };
const rule = {
  apiGroups: ['automationguardrails.dev'],
  resources: ['killswitches'],
  verbs: ['release'],
};

describe('a rule of RBAC', () => {
  it.each([
    ['the same', rule, true],
    ['every verb', { ...rule, verbs: ['*'] }, true],
    ['everything', { apiGroups: ['*'], resources: ['*'], verbs: ['*'] }, true],
    ['the name', { ...rule, resourceNames: ['invoice'] }, true],
    ['another name', { ...rule, resourceNames: ['other'] }, false],
    ['another verb', { ...rule, verbs: ['get'] }, false],
    ['another group', { ...rule, apiGroups: [''] }, false],
    ['another resource', { ...rule, resources: ['killswitches/status'] }, false],
    ['a URL', { nonResourceURLs: ['*'], verbs: ['*'] }, false],
  ])('for %s', (_, candidate, expected) => {
    expect(ruleAllows(candidate, release)).toBe(expected);
  });

  it('for a name allows nothing that has no name yet', () => {
    const create: Access = { verb: 'create', group: release.group, resource: release.resource };
    const named = { ...rule, verbs: ['create'], resourceNames: ['invoice'] };
    expect(ruleAllows(named, create)).toBe(false);
    expect(ruleAllows({ ...rule, verbs: ['create'] }, create)).toBe(true);
  });
});

describe('who may', () => {
  const binding = (
    name: string,
    role: string,
    subject: string,
    namespace?: string,
  ): RoleBinding => ({
    metadata: { name, ...(namespace !== undefined && { namespace }) },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
    subjects: [{ kind: 'User', name: subject }],
  });
  const rules: Record<string, (typeof rule)[]> = {
    releaser: [{ ...rule, verbs: ['release', 'patch'] }],
    half: [rule],
    patcher: [{ ...rule, verbs: ['patch'] }],
  };
  const whoMay = (...bindings: RoleBinding[]): string[] =>
    holdersOf([release, patch], bindings, ({ roleRef }) => rules[roleRef.name] ?? []).map(
      ({ subject, binding: by }) => `${subject} by ${by}`,
    );

  it('is who is allowed all of it, by one binding or by several', () => {
    expect(
      whoMay(
        binding('leads', 'releaser', 'bob'),
        binding('half', 'half', 'carol', 'finance'),
        binding('half', 'half', 'dave'),
        binding('rest', 'patcher', 'dave', 'finance'),
        binding('gone', 'no-such-role', 'eve'),
      ),
    ).toEqual(['bob by ClusterRoleBinding/leads', 'dave by ClusterRoleBinding/half']);
  });

  it('tells a ServiceAccount by its namespace, which may be the binding’s', () => {
    const account: RoleBinding = {
      ...binding('bots', 'releaser', 'bot', 'finance'),
      subjects: [{ kind: 'ServiceAccount', name: 'bot' }],
    };
    expect(whoMay(account)).toEqual(['finance/bot by RoleBinding/bots']);
  });
});
