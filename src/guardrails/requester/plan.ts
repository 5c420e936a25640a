import { conditionOf, type Finding } from '../../api/conditions.ts';
import { digestOf } from '../../api/digest.ts';
import { annotation } from '../../api/names.ts';
import type { Condition, KubeObject, ResourceAttributes } from '../../api/objects.ts';
import type { WorkflowSpec } from '../../api/workflow.ts';
import { workloadResources } from '../../api/workload.ts';
import type { Problem } from '../requirements.ts';
import { rightText, some, triedAgain } from '../wording.ts';

/** Who asked for what an object says, as the API server authenticated him. */
export interface Requester {
  user: string;
  groups: readonly string[];
}

/**
 * Who changed the spec of an object last, with his groups. Those of a ServiceAccount follow from its
 * name, so that a pipeline has to write nothing but that where admission stamps nothing.
 *
 * @returns `undefined` where nobody says: the object is older than the stamps, or admission writes
 * nothing, and whoever changed it didn't either
 */
export function requesterOf({ metadata }: Pick<KubeObject, 'metadata'>): Requester | undefined {
  const { [annotation.changedBy]: user, [annotation.changedByGroups]: groups } =
    metadata.annotations ?? {};
  if (user === undefined) return undefined;
  if (groups === undefined) {
    const { namespace } =
      /^system:serviceaccount:(?<namespace>[^:]+):[^:]+$/.exec(user)?.groups ?? {};
    return namespace === undefined ? undefined : { user, groups: serviceAccountGroups(namespace) };
  }
  return { user, groups: groups.split('\n').filter((group) => group !== '') };
}

/** @see https://kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens */
function serviceAccountGroups(namespace: string): string[] {
  return ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'];
}

/** Single rights that are asked about one object; more can't be looked up, and hold it. */
export const maxQuestions = 256;

/** What whoever declares these targets has to be allowed himself: to write those workloads. */
export function rightsForTargets(
  namespace: string,
  targets: WorkflowSpec['targets'],
): ResourceAttributes[] {
  const rights = targets.map(({ kind, name }) => {
    const { group, plural: resource } = workloadResources[kind];
    return { namespace, verb: 'update', group, resource, ...(name !== undefined && { name }) };
  });
  return distinct(rights);
}

function distinct(rights: readonly ResourceAttributes[]): ResourceAttributes[] {
  return [...new Map(rights.map((right) => [rightText(right), right])).values()];
}

/** Of what was asked: by whom and about what. The same needs no second answer. */
export function questionDigest(
  requester: Requester,
  rights: readonly ResourceAttributes[],
): string {
  return digestOf([requester.user, requester.groups, rights.map(rightText)]);
}

/** What is known of a requester's rights. */
export type Answer =
  /** Nobody was stamped. */
  | { is: 'Unstamped' }
  /** It was asked before, and nothing of the question has changed. */
  | { is: 'Known'; condition: Condition }
  | { is: 'Asked'; requester: Requester; missing: readonly string[] }
  | { is: 'TooMany'; requester: Requester }
  | { is: 'Failed'; error: unknown };

/** The condition `RequesterAllowed`, and what holds. */
export interface RequesterOutcome {
  finding: Finding;
  problem: Problem | undefined;
}

const type = 'RequesterAllowed';

/** What comes of an answer. Whose rights aren't known because nobody asked, is held; who wasn't stamped, is not. */
export function outcomeOf(answer: Answer): RequesterOutcome {
  const finding = findingOf(answer);
  const holds = finding.status === 'False' || finding.reason === 'RequesterNotAsked';
  return {
    finding,
    problem: holds ? { reason: finding.reason, message: finding.message } : undefined,
  };
}

function findingOf(answer: Answer): Finding {
  switch (answer.is) {
    case 'Unstamped':
      return {
        type,
        status: 'Unknown',
        reason: 'RequesterUnknown',
        message: 'Nobody was stamped as who asked for it; the next change of its spec is.',
      };
    case 'Known': {
      const { status, reason, message } = answer.condition;
      return { type, status, reason, message };
    }
    case 'TooMany':
      return {
        type,
        status: 'False',
        reason: 'RequesterNotAllowed',
        message: `It asks for more than ${maxQuestions} single rights, which is more than is looked up of ${answer.requester.user}: ask for fewer, by fewer names.`,
      };
    case 'Failed':
      return {
        type,
        status: 'Unknown',
        reason: 'RequesterNotAsked',
        message: `Whether who asked for it is allowed that himself isn't known. ${triedAgain(answer.error)}`,
      };
    case 'Asked': {
      const { requester, missing } = answer;
      return missing.length === 0
        ? {
            type,
            status: 'True',
            reason: 'Allowed',
            message: `${requester.user} asked for it, and is allowed all of it himself.`,
          }
        : {
            type,
            status: 'False',
            reason: 'RequesterNotAllowed',
            message: `${requester.user} asked for what he isn't allowed himself: ${some(missing)}. Have it applied by somebody who is, or give him that right.`,
          };
    }
  }
}

/** What stands of a question that was answered before. @param digest of the question now */
export function knownAnswer(
  status: { requester?: string; conditions?: readonly Condition[] | undefined } | undefined,
  digest: string,
): Condition | undefined {
  const condition = conditionOf(status?.conditions, type);
  // A right that was missing may have been given since.
  return status?.requester === digest && condition?.status === 'True' ? condition : undefined;
}

/**
 * Whether what a Workflow asks for now mustn't start because of who asked for it: he isn't allowed
 * that, or nobody has looked yet. What was approved before it goes on.
 */
export function isHeldBack(
  object: Pick<KubeObject, 'metadata'> & {
    status?: { conditions?: readonly Condition[] | undefined };
  },
): boolean {
  if (requesterOf(object) === undefined) return false;
  const condition = conditionOf(object.status?.conditions, type);
  if (condition === undefined || condition.observedGeneration !== object.metadata.generation) {
    return true;
  }
  return condition.status === 'False' || condition.reason === 'RequesterNotAsked';
}
