import { describe, expect, it } from 'vitest';
import { PROBE_NAMESPACE } from '../api/names.ts';
import { admissionPolicies, canaryServiceAccounts, policyProbes } from './index.ts';

const policies = admissionPolicies().filter(({ kind }) => !kind.endsWith('Binding'));
const requests = [...policyProbes].flatMap(([name, probe]) =>
  probe.kind === 'Comparison' ? [] : probe.requests.map((request) => ({ name, request })),
);

describe('the standing probe', () => {
  it('asks every policy, or says why not', () => {
    expect([...policyProbes.keys()].toSorted()).toEqual(
      policies.map(({ metadata }) => metadata.name).toSorted(),
    );
    for (const probe of policyProbes.values()) {
      if (probe.kind === 'Comparison') expect(probe.reason).toMatch(/^[A-Z].*\.$/);
    }
  });

  it('refuses or changes as the policy does', () => {
    for (const { kind, metadata } of policies) {
      const probe = policyProbes.get(metadata.name);
      if (probe?.kind === 'Denial') expect(kind).toBe('ValidatingAdmissionPolicy');
      if (probe?.kind === 'Mutation') expect(kind).toBe('MutatingAdmissionPolicy');
    }
  });

  it.each(requests)('asks what the policy looks at: $name', ({ name, request }) => {
    const rules = policies.find(({ metadata }) => metadata.name === name)?.spec.matchConstraints
      ?.resourceRules;
    const operation = { create: 'CREATE', patch: 'UPDATE', delete: 'DELETE' } as const;
    const { group, plural } = request.resource;
    const matching = rules?.filter(
      ({ apiGroups, resources, operations }) =>
        apiGroups.includes(group) &&
        resources.includes(plural) &&
        operations.includes(operation[request.verb]),
    );
    expect(matching).not.toEqual([]);
  });

  it.each(requests)('asks for no token, and in its own namespace: $name', ({ request }) => {
    expect(request.resource.plural).not.toContain('/');
    if (request.verb === 'create') {
      expect(request.object.metadata.namespace).toBe(PROBE_NAMESPACE);
    } else if (request.resource.plural === 'namespaces') {
      expect(request.name).toBe(PROBE_NAMESPACE);
    }
  });

  it('stops a ServiceAccount by one fence each, so that one policy alone can answer', () => {
    expect(new Set(canaryServiceAccounts).size).toBe(canaryServiceAccounts.length);
  });
});
