import { digestOf } from '../api/digest.ts';
import type { KubeObject, NetworkPolicy, Role, RoleBinding } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import { ruleText } from '../guardrails/identity/rules.ts';
import { referenceTo, draftOf, type Place } from './drafts.ts';
import type { Fact, Observation } from './observation.ts';

/** What an identity may do, by what binds it. */
export function permissionFacts(
  role: Role | undefined,
  binding: RoleBinding | undefined,
  place: Place,
): Observation {
  const granted = role !== undefined && binding !== undefined;
  const rules = role?.rules ?? [];
  return {
    scope: 'permissions/',
    facts: !granted
      ? []
      : [
          {
            subject: 'permissions/',
            state: digestOf(rules),
            draft: (before) =>
              draftOf(place, {
                action: before === undefined ? 'PermissionsGranted' : 'PermissionsChanged',
                objects: [
                  referenceTo(resources.roles, role),
                  referenceTo(resources.roleBindings, binding),
                ],
                details: rulesIn(rules),
              }),
          },
        ],
    gone: () => draftOf(place, { action: 'PermissionsRevoked' }),
  };
}

/** One text each, as far as there is room. */
function rulesIn(rules: NonNullable<Role['rules']>): Record<string, string> {
  return Object.fromEntries(
    rules
      .slice(0, 12)
      .map((rule, index) => [`rule${index + 1}`, ruleText(rule, (items) => items.join(', '))]),
  );
}

/** One NetworkPolicy of a Workflow. */
export function egressFact(policy: NetworkPolicy, place: Place): Fact {
  return {
    subject: egressSubject(policy),
    state: digestOf(policy.spec),
    draft: (before) =>
      draftOf(place, {
        action: before === undefined ? 'EgressGranted' : 'EgressChanged',
        objects: [referenceTo(resources.networkPolicies, policy)],
        details: destinationsIn(policy),
      }),
  };
}

/** @param policies all of a Workflow */
export function egressFacts(policies: readonly NetworkPolicy[], place: Place): Observation {
  return {
    scope: egressScope,
    facts: policies.map((policy) => egressFact(policy, place)),
    gone: (subject) =>
      draftOf(place, {
        action: 'EgressRemoved',
        details: { policy: subject.slice(egressScope.length, -1) },
      }),
  };
}

const egressScope = 'egress/';

function egressSubject({ metadata }: KubeObject): string {
  return `${egressScope}${metadata.name}/`;
}

function destinationsIn({ spec }: NetworkPolicy): Record<string, string> {
  return Object.fromEntries(
    (spec.egress ?? []).slice(0, 12).map(({ to = [], ports = [] }, index) => {
      const peers = to.map(({ ipBlock, namespaceSelector }) => {
        if (ipBlock !== undefined) return ipBlock.cidr;
        return namespaceSelector === undefined ? 'pods' : 'pods of other namespaces';
      });
      const numbers = ports.map(
        ({ protocol, port, endPort }) =>
          `${protocol}/${port ?? 'any'}${endPort === undefined ? '' : `-${endPort}`}`,
      );
      return [`to${index + 1}`, `${peers.join(', ') || 'anywhere'} ${numbers.join(', ')}`];
    }),
  );
}
