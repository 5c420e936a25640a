import { label } from '../api/names.ts';
import type { Finding } from '../api/conditions.ts';
import type { Namespace, ObjectMeta } from '../api/objects.ts';
import { triedAgain } from './wording.ts';

/**
 * What Workflows and AutomationIdentities have in common: what both need before anything is
 * granted to them, and how they say that something is missing.
 */

/** Something that keeps an object from being ready: a stable reason and a sentence. */
export type Problem = Pick<Finding, 'reason' | 'message'>;

/** Something worth an event. */
export interface Transition {
  type: 'normal' | 'warning';
  reason: string;
  message: string;
}

/** Somebody answers for it: a team, how to reach it, and whom to wake. */
export function ownerMissing(spec: unknown): Problem | undefined {
  const owner = fieldOf(spec, 'owner');
  const missing = ['team', 'contact', 'escalation'].filter((part) => isBlank(fieldOf(owner, part)));
  if (missing.length === 0) return undefined;
  const parts = missing.map((part) => `spec.owner.${part}`).join(', ');
  return { reason: 'OwnerMissing', message: `Missing ${parts}.` };
}

/** The namespace is one that the admission policies are bound to. */
export function namespaceNotGuarded(
  namespace: Namespace | undefined,
  { namespace: name = '' }: Pick<ObjectMeta, 'namespace'>,
): Problem | undefined {
  if (isGuarded(namespace)) return undefined;
  return {
    reason: 'NamespaceNotGuarded',
    message: `Missing the environment of namespace ${name}: kubectl label namespace ${name} ${label.environment}=prod`,
  };
}

/** The operator was told to act in other namespaces alone. */
export function namespaceNotCovered(namespace: string): Problem {
  return {
    reason: 'NamespaceNotCovered',
    message: `The operator acts in the namespaces alone that it was given (--namespaces), and ${namespace} is none of them: nothing is granted, changed, stopped or put back here. Add it to them, and give the operator its rights there.`,
  };
}

/** Whether the admission policies are bound to it; they never are to `kube-system`. */
export function isGuarded(namespace: Namespace | undefined): boolean {
  const environment = namespace?.metadata.labels?.[label.environment];
  return !isBlank(environment) && namespace?.metadata.name !== 'kube-system';
}

/** The one thing that is missing, or that several are; `undefined` where nothing is. */
export function heldReason(missing: readonly Problem[]): string | undefined {
  return missing.length > 1 ? 'Incomplete' : missing[0]?.reason;
}

/** The condition `Held`, which is true when it is bad, with the exact list of what is missing. */
export function heldFinding(missing: readonly Problem[]): Finding {
  const reason = heldReason(missing);
  return reason === undefined
    ? { type: 'Held', status: 'False', reason: 'Complete', message: 'Nothing is missing.' }
    : { type: 'Held', status: 'True', reason, message: sentencesOf(missing) };
}

/** One text of all of them, bounded as a condition's message is. */
export function sentencesOf(problems: readonly Problem[]): string {
  return problems
    .map(({ message }) => message)
    .join(' ')
    .slice(0, 8192);
}

/** Something could not be written, or not be asked. */
export function applyFailed(error: unknown): Problem {
  return { reason: 'ApplyFailed', message: triedAgain(error) };
}

/** The spec may be malformed, so that nothing about its shape can be taken for granted. */
export function fieldOf(value: unknown, field: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, field) : undefined;
}

export function isBlank(value: unknown): boolean {
  return typeof value !== 'string' || value.trim() === '';
}
