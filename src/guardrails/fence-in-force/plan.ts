import type { AdmissionObject } from '../../admission/index.ts';
import type { Finding } from '../../api/conditions.ts';
import { some } from '../wording.ts';

/** What the standing probe knows of one policy. */
export interface PolicyState {
  /** Name of the policy, and of its binding. */
  name: string;
  /** Proven by a request, or by comparison where no harmless request reaches the policy. */
  force: Force;
  comparison: Comparison;
}

/** How the stored policy and its binding compare with what was installed. */
export type Comparison =
  | { kind: 'Same' }
  /** @property what in a few words */
  | { kind: 'Differs'; what: string }
  | { kind: 'NotRead' };

export type Force =
  | { kind: 'InForce' }
  /** The API server did what the policy would have kept it from, or doesn't have it. */
  | { kind: 'NotInForce'; why: string }
  | { kind: 'Unknown'; why: string };

/** The policies and bindings that the API server has, by kind and name. */
export type StoredPolicies = (kind: AdmissionObject['kind'], name: string) => Stored;

export type Stored =
  | { spec: unknown }
  | 'absent'
  | 'not read'
  /** The API server doesn't have the kind: this Kubernetes is too old for it. */
  | 'not served';

/**
 * What the API server adds to a policy or a binding that doesn't say it. A field with another value,
 * or another field, changes what the policy does.
 */
const serverDefaults: Readonly<Record<string, readonly unknown[]>> = {
  matchPolicy: ['Equivalent'],
  namespaceSelector: [{}],
  objectSelector: [{}],
  scope: ['*'],
};

/**
 * Compares a stored policy and its binding with what was installed.
 *
 * @param installed the policy and the binding, as this version brings them
 */
export function compare(installed: readonly AdmissionObject[], stored: StoredPolicies): Comparison {
  for (const { kind, metadata, spec } of installed) {
    const what = kind.endsWith('Binding') ? 'its binding' : 'the policy';
    const found = stored(kind, metadata.name);
    if (found === 'not read') return { kind: 'NotRead' };
    if (found === 'absent' || found === 'not served') {
      return { kind: 'Differs', what: `${what} is missing` };
    }
    const path = firstDifference(spec, found.spec);
    if (path !== undefined) return { kind: 'Differs', what: `${path} of ${what} differs` };
  }
  return { kind: 'Same' };
}

/** What a comparison says of a policy that no request can prove. */
export function forceByComparison(comparison: Comparison): Force {
  switch (comparison.kind) {
    case 'Same':
      return { kind: 'InForce' };
    case 'Differs':
      return { kind: 'NotInForce', why: comparison.what };
    case 'NotRead':
      return { kind: 'Unknown', why: 'it could not be read' };
  }
}

/** @returns path of the first field that differs, or `undefined` */
function firstDifference(wanted: unknown, stored: unknown, path = 'spec'): string | undefined {
  if (Array.isArray(wanted) && Array.isArray(stored)) {
    if (wanted.length !== stored.length) return path;
    for (const [index, item] of wanted.entries()) {
      const found = firstDifference(item, stored[index], `${path}[${index}]`);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  if (!isFields(wanted) || !isFields(stored)) return wanted === stored ? undefined : path;
  for (const key of new Set([...Object.keys(wanted), ...Object.keys(stored)])) {
    const inner = `${path}.${key}`;
    if (stored[key] === undefined && isEmpty(wanted[key])) continue;
    if (wanted[key] === undefined) {
      const isDefault = serverDefaults[key]?.some((value) => isSame(value, stored[key]));
      if (isDefault !== true) return inner;
      continue;
    }
    const found = firstDifference(wanted[key], stored[key], inner);
    if (found !== undefined) return found;
  }
  return undefined;
}

function isSame(a: unknown, b: unknown): boolean {
  return a === b || (isEmpty(a) && isEmpty(b));
}

/** The API server doesn't store an empty map. */
function isEmpty(value: unknown): boolean {
  return isFields(value) && Object.keys(value).length === 0;
}

function isFields(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The conditions of the canary, `Ready` last. */
export function fenceInForceFindings(states: readonly PolicyState[]): Finding[] {
  const inForce = inForceFinding(states);
  const intact = intactFinding(states);
  const open = [inForce, intact].find(({ status }) => status !== 'True');
  return [
    inForce,
    intact,
    open === undefined
      ? {
          type: 'Ready',
          status: 'True',
          reason: 'PoliciesAnswered',
          message: 'Every admission policy is in force, as it was installed.',
        }
      : { ...open, type: 'Ready', status: open.status === 'Unknown' ? 'Unknown' : 'False' },
  ];
}

function inForceFinding(states: readonly PolicyState[]): Finding {
  const type = 'FenceInForce';
  const open = states.filter(({ force }) => force.kind === 'NotInForce');
  if (open.length > 0) {
    return {
      type,
      status: 'False',
      reason: 'PolicyNotInForce',
      message: `${open.length} of ${states.length} admission policies are not in force: ${some(open.map(whyOf))}. Install them again: kubectl apply -k config/admission, or upgrade the Helm release.`,
    };
  }
  const unknown = states.filter(({ force }) => force.kind === 'Unknown');
  if (unknown.length > 0) {
    return {
      type,
      status: 'Unknown',
      reason: 'PolicyNotAnswered',
      message: `${unknown.length} of ${states.length} admission policies gave no answer that proves anything: ${some(unknown.map(whyOf))}.`,
    };
  }
  return {
    type,
    status: 'True',
    reason: 'PoliciesAnswered',
    message: `${states.length} admission policies are in force; proven by dry runs where one can prove it, else by comparison.`,
  };
}

function intactFinding(states: readonly PolicyState[]): Finding {
  const type = 'PoliciesIntact';
  const edited = states.flatMap(({ name, comparison }) =>
    comparison.kind === 'Differs' ? [`${name} (${comparison.what})`] : [],
  );
  if (edited.length > 0) {
    return {
      type,
      status: 'False',
      reason: 'PolicyEdited',
      message: `${edited.length} of ${states.length} admission policies differ from what this version installs: ${some(edited)}.`,
    };
  }
  const unread = states.flatMap(({ name, comparison }) =>
    comparison.kind === 'NotRead' ? [name] : [],
  );
  if (unread.length > 0) {
    return {
      type,
      status: 'Unknown',
      reason: 'PolicyNotRead',
      message: `${unread.length} of ${states.length} admission policies could not be read: ${some(unread)}.`,
    };
  }
  return {
    type,
    status: 'True',
    reason: 'AsInstalled',
    message: `${states.length} admission policies and their bindings are as this version installs them.`,
  };
}

function whyOf({ name, force }: PolicyState): string {
  return force.kind === 'InForce' ? name : `${name} (${force.why})`;
}
