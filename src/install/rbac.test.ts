import { describe, expect, it } from 'vitest';
import { rightsOf } from '../../test/operator/rights.ts';
import { roles } from './manifests.ts';
import {
  limitedOperatorRole,
  namespaceOperatorRole,
  operatorRole,
  ownNamespaceRole,
} from './rbac.ts';

describe('the roles of an installation', () => {
  it.each(roles.map((role) => [role.name, role.rules] as const))(
    '%s: no rule joins groups, and so grants a resource in a group that it is not of',
    (_, rules) => {
      for (const { apiGroups = [] } of rules) expect(apiGroups).toHaveLength(1);
    },
  );
});

describe('an operator that acts in listed namespaces alone', () => {
  const rights = (of: { rules: (typeof operatorRole)['rules'] }): Set<string> =>
    rightsOf([{ name: 'operator', rules: of.rules }]);
  const everywhere = rights(limitedOperatorRole);
  const listed = rights(namespaceOperatorRole);

  it('has every right of the other one, each either everywhere or in those', () => {
    expect(everywhere.union(listed)).toEqual(rights(operatorRole));
    expect(everywhere.intersection(listed)).toEqual(new Set());
  });

  it('is the operator for admission wherever it writes Secrets, its own namespace among them', () => {
    for (const role of [namespaceOperatorRole, ownNamespaceRole]) {
      expect(rights(role)).toContain('operator: create secrets');
      expect(rights(role)).toContain(
        'operator: issue-tokens automationidentities.automationguardrails.dev',
      );
    }
  });

  it('writes nothing everywhere but status, events, evidence, and what belongs to the whole cluster', () => {
    const writes = [...everywhere].filter((right) => !/: (get|list|watch|report) /.test(right));
    const harmless =
      /\/status\.automationguardrails\.dev$|events\.events\.k8s\.io$|evidencesegments\.|clusterkillswitches\.|clusternetworkpolicies\.|tokenreviews\.|subjectaccessreviews\./;
    expect(writes.filter((right) => !harmless.test(right))).toEqual([
      'operator: patch killswitches.automationguardrails.dev',
    ]);
    expect([...everywhere].filter((right) => right.includes(' secrets'))).toEqual([]);
  });

  it.each(['get secrets', 'create serviceaccounts/token', 'patch namespaces', 'delete pods'])(
    'may %s in those alone',
    (right) => {
      expect(listed).toContain(`operator: ${right}`);
      expect(everywhere).not.toContain(`operator: ${right}`);
    },
  );
});
