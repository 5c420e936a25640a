import type { AccessReview } from '../api/access-review.ts';
import type { Approval } from '../api/approval.ts';
import type { Hold } from '../api/holds.ts';
import { digestOf } from '../api/digest.ts';
import type { Ledger } from '../api/limits.ts';
import type { Condition, KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Action } from './actions.ts';
import { unknown, referenceTo, draftOf, conditionFact, type Place, type Words } from './drafts.ts';
import type { Fact, Observation } from './observation.ts';
import type { Actor, RecordObject } from './record.ts';

/** Looks up who wrote a version of an object. */
export type AuthorOf = (of: Resource, object: KubeObject) => Promise<Actor>;

/** What the records of a spec are called. */
const specActions = {
  Workflow: {
    created: 'WorkflowCreated',
    changed: 'WorkflowChanged',
    deleted: 'WorkflowDeleted',
  },
  AutomationIdentity: {
    created: 'AutomationIdentityCreated',
    changed: 'AutomationIdentityChanged',
    deleted: 'AutomationIdentityDeleted',
  },
  GuardrailPolicy: {
    created: 'GuardrailPolicyCreated',
    changed: 'GuardrailPolicyChanged',
    deleted: 'GuardrailPolicyDeleted',
  },
} as const satisfies Record<string, Record<'created' | 'changed' | 'deleted', Action>>;

/** A kind whose spec is recorded. */
export type SpecKind = keyof typeof specActions;

const specResources: Readonly<Record<SpecKind, Resource>> = {
  Workflow: resources.workflows,
  AutomationIdentity: resources.automationIdentities,
  GuardrailPolicy: resources.guardrailPolicies,
};

/** What somebody asked of an automation, its Workflow or its identity; or of all: the policy. */
export function specFacts(
  kind: SpecKind,
  object: KubeObject & { spec?: unknown },
  place: Place,
  authorOf: AuthorOf,
): Observation {
  const of = specResources[kind];
  const { created, changed } = specActions[kind];
  const { uid = '', generation = 0 } = object.metadata;
  const digest = digestOf(object.spec);
  return {
    facts: [
      {
        subject: `${kind}/spec`,
        state: `${uid.slice(0, 8)} g${generation} ${digest}`,
        draft: async (before) =>
          draftOf(place, {
            action: before?.startsWith(uid.slice(0, 8)) === true ? changed : created,
            actor: await authorOf(of, object),
            objects: [referenceTo(of, object)],
            details: { digest, generation: String(generation) },
          }),
      },
    ],
  };
}

/** A Workflow or an identity that is no more. */
export function specGone(kind: SpecKind, place: Place): Observation {
  return {
    scope: `${kind}/spec`,
    facts: [],
    gone: () =>
      draftOf(place, { action: specActions[kind].deleted, actor: unknown, outcome: 'Observed' }),
  };
}

/** What its guardrails found: conditions that are true when it is bad. */
export function findingFacts(
  kind: SpecKind,
  object: KubeObject & {
    status?: {
      conditions?: Condition[] | undefined;
      holds?: Hold[] | undefined;
      runs?: Pick<Ledger, 'acknowledged'> | undefined;
    };
  },
  place: Place,
): Observation {
  const of = specResources[kind];
  const { acknowledged } = object.status?.runs ?? {};
  const facts = (object.status?.conditions ?? []).flatMap((condition) => {
    const words = findings[condition.type];
    if (words === undefined) return [];
    const objects = [referenceTo(of, object)];
    return [
      conditionFact(`${kind}/${condition.type}`, condition, words, place, {
        objects,
        isFinding: true,
        // A breach takes the acknowledgement of the one before away.
        ...(condition.type === 'LimitBreached' &&
          acknowledged !== undefined && {
            endedBy: {
              actor: { name: acknowledged.by, basis: 'authenticated' },
              message: acknowledged.reason,
            },
          }),
      }),
    ];
  });
  const known = (object.status?.holds ?? []).flatMap(
    (hold) => acknowledgedFact(`${kind}/hold/`, hold, place, [referenceTo(of, object)]) ?? [],
  );
  return { facts: [...facts, ...known] };
}

/** Who knows of a hold. */
function acknowledgedFact(
  scope: string,
  { reason, since, acknowledged }: Hold,
  place: Place,
  objects: readonly RecordObject[],
): Fact | undefined {
  if (acknowledged === undefined) return undefined;
  const { by, reason: message, time } = acknowledged;
  return {
    subject: `${scope}${reason}/`,
    state: `${since} ${time}`,
    draft: () =>
      draftOf(place, {
        action: 'HoldAcknowledged',
        actor: { name: by, basis: 'authenticated' },
        happened: time,
        reason,
        message,
        objects,
      }),
  };
}

const findings: Readonly<Record<string, Words>> = {
  Held: { on: 'Held', off: 'NoLongerHeld' },
  ExcessPermissions: { on: 'ExcessPermissionsFound', off: 'ExcessPermissionsCleared' },
  RotationOverdue: { on: 'RotationOverdue', off: 'RotationCaughtUp' },
  LimitBreached: { on: 'LimitBreached', off: 'LimitHoldEnded' },
  EgressWidened: { on: 'EgressWidened', off: 'EgressAsListed' },
  SecretInSpec: { on: 'SecretInSpecFound', off: 'SecretInSpecGone' },
  PolicyViolation: { on: 'PolicyViolated', off: 'PolicyKept' },
  ReviewOverdue: { on: 'ReviewOverdue', off: 'ReviewCaughtUp' },
};

const decisionScope = 'decision/';

/** By its UID: a name could be longer than a subject can be. */
function decisionSubject(kind: string, { metadata }: KubeObject): string {
  return `${decisionScope}${kind}/${metadata.uid ?? ''}/`;
}

/** What somebody decided on a revision of a Workflow. */
export function approvalFact(approval: Approval, place: Place): Fact {
  const { metadata, spec } = approval;
  const { decision, reason, digest, ticket, expires, approver, run } = spec;
  return {
    subject: decisionSubject('Approval', approval),
    state: decision,
    draft: () =>
      draftOf(place, {
        action: decision === 'Approve' ? 'Approved' : 'Rejected',
        actor: approver === undefined ? unknown : { name: approver, basis: 'authenticated' },
        message: reason,
        objects: [referenceTo(resources.approvals, approval)],
        details: {
          digest,
          ...(run !== undefined && { run: `${run.kind} ${run.name} ${run.uid}` }),
          ...(ticket !== undefined && { ticket }),
          ...(expires !== undefined && { expires }),
        },
        ...(metadata.creationTimestamp !== undefined && { happened: metadata.creationTimestamp }),
      }),
  };
}

/** What somebody decided on what an AutomationIdentity may do. */
export function reviewFact(review: AccessReview, place: Place): Fact {
  const { metadata, spec } = review;
  const { decision, reason, digest, reviewer } = spec;
  return {
    subject: decisionSubject('AccessReview', review),
    state: decision,
    draft: () =>
      draftOf(place, {
        action: 'AccessReviewed',
        actor: reviewer === undefined ? unknown : { name: reviewer, basis: 'authenticated' },
        message: reason,
        objects: [referenceTo(resources.accessReviews, review)],
        details: { decision, digest },
        ...(metadata.creationTimestamp !== undefined && { happened: metadata.creationTimestamp }),
      }),
  };
}

/**
 * Decisions on one automation. One that is gone was withdrawn by somebody, or is so old that the
 * operator removed it.
 *
 * @param scope subjects of which this speaks completely; default: all decisions
 */
export function decisionFacts(
  facts: readonly Fact[],
  place: Place,
  scope = decisionScope,
): Observation {
  return {
    facts,
    scope,
    gone: (subject) => {
      const [, kind = '', uid = ''] = subject.split('/');
      return draftOf(place, { action: 'DecisionGone', actor: unknown, details: { kind, uid } });
    },
  };
}
