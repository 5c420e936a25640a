import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { conditionOf } from '../../api/conditions.ts';
import { resources } from '../../api/resources.ts';
import type { Workflow } from '../../api/workflow.ts';
import { fieldOf } from '../requirements.ts';

/** What a release doesn't give back, since it is held. */
export interface HeldBack {
  /** Kind and name of what is held. */
  name: string;
  /** What it asks for, and lacks. */
  lacks: string;
  /** Of the condition `Held`. */
  reason: string;
  message: string;
}

/**
 * Of Workflows and identities that were stopped, those that are held: what a kill takes from them
 * comes back when that ends, and no release waits for it.
 */
export function heldBack(
  workflows: readonly Workflow[],
  identities: readonly AutomationIdentity[],
): HeldBack[] {
  return [
    ...identities.flatMap((identity) =>
      heldBackOf(resources.automationIdentities.kind, identity, [
        ['permissions', 'RoleBinding'],
        ['secrets', 'credentials'],
        ['tokens', 'tokens'],
      ]),
    ),
    ...workflows.flatMap((workflow) =>
      heldBackOf(resources.workflows.kind, workflow, [
        ['egress', 'egress'],
        ['ingress', 'ingress'],
      ]),
    ),
  ];
}

/** @param parts fields of the spec by which it asks, and what for */
function heldBackOf(
  kind: string,
  { metadata, spec, status }: AutomationIdentity | Workflow,
  parts: readonly (readonly [field: string, what: string])[],
): HeldBack[] {
  const held = conditionOf(status?.conditions, 'Held');
  if (held?.status !== 'True' || metadata.deletionTimestamp !== undefined) return [];
  const lacks = parts.flatMap(([field, what]) => {
    const asked = fieldOf(spec, field);
    return asked === undefined || (Array.isArray(asked) && asked.length === 0) ? [] : [what];
  });
  if (lacks.length === 0) return [];
  const { reason, message } = held;
  return [{ name: `${kind} ${metadata.name}`, lacks: lacks.join(', '), reason, message }];
}
