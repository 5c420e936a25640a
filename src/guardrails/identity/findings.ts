import { conditionOf, isTrue, type Finding } from '../../api/conditions.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { Condition } from '../../api/objects.ts';
import {
  heldFinding,
  heldReason,
  sentencesOf,
  type Problem,
  type Transition,
} from '../requirements.ts';

/** What is known of an identity after a look at all its guardrails. */
export interface IdentityVerdict {
  /** Engaged, or its fence isn't lifted yet. */
  killSwitch: KillSwitch | undefined;
  missing: readonly Problem[];
  /** Whatever else keeps it from being ready, the most important first. */
  problems: readonly Problem[];
  /** The condition `ExcessPermissions`; `undefined` where nobody has looked yet. */
  excess: Finding | undefined;
  /** The condition `ReviewOverdue`; `undefined` where no reviews are asked for. */
  review: Finding | undefined;
  /** The condition `PolicyViolation`; `undefined` where no policy sets ceilings. */
  policy: Finding | undefined;
  /** The condition `RequesterAllowed`. */
  requester: Finding | undefined;
  /** What of its credentials should have happened by now; it is ready all the same. */
  overdue: readonly Problem[];
}

/**
 * The conditions of an AutomationIdentity: `Ready`; `Held` and `ExcessPermissions`, which are true
 * when it is bad; `RotationOverdue`, which is bad, and there only while it is true; and
 * `ReviewOverdue` and `PolicyViolation`, which are bad too, where reviews are asked for and a policy
 * sets ceilings. Excess was given by others and
 * holds nothing.
 */
export function identityFindings(verdict: IdentityVerdict): Finding[] {
  const { missing, excess, overdue, review, policy, requester } = verdict;
  return [
    readyFinding(verdict),
    heldFinding(missing),
    ...(excess === undefined ? [] : [excess]),
    ...overdueFinding(overdue),
    ...(review === undefined ? [] : [review]),
    ...(policy === undefined ? [] : [policy]),
    ...(requester === undefined ? [] : [requester]),
  ];
}

function overdueFinding(overdue: readonly Problem[]): Finding[] {
  const [first] = overdue;
  if (first === undefined) return [];
  return [
    {
      type: 'RotationOverdue',
      status: 'True',
      reason: first.reason,
      message: sentencesOf(overdue),
    },
  ];
}

function readyFinding({ killSwitch, missing, problems }: IdentityVerdict): Finding {
  if (killSwitch !== undefined) {
    return {
      type: 'Ready',
      status: 'False',
      reason: 'KillSwitchEngaged',
      message: `The kill switch is engaged: ${killSwitch.spec.reason}`,
    };
  }
  const reason = heldReason(missing) ?? problems[0]?.reason;
  return reason === undefined
    ? {
        type: 'Ready',
        status: 'True',
        reason: 'Provisioned',
        message: 'ServiceAccount, permissions and credentials are in place.',
      }
    : { type: 'Ready', status: 'False', reason, message: sentencesOf([...missing, ...problems]) };
}

/** What changed since the conditions that stood before, as events tell it. */
export function transitionsOf(
  findings: readonly Finding[],
  previous: readonly Condition[] | undefined,
): Transition[] {
  const isHeld = findings.some(({ type, status }) => type === 'Held' && status === 'True');
  return findings.flatMap(({ type, status, reason, message }): Transition[] => {
    const before = conditionOf(previous, type);
    if (type === 'ExcessPermissions') {
      return excessTransition({ type, status, reason, message }, before);
    }
    if (before?.status === status && before.reason === reason) return [];
    if (type === 'Held') {
      if (status === 'True') return [{ type: 'warning', reason: 'Held', message }];
      return isTrue(previous, 'Held') ? [{ type: 'normal', reason: 'NoLongerHeld', message }] : [];
    }
    if (type === 'RotationOverdue') return [{ type: 'warning', reason, message }];
    // Held tells it where it holds.
    if (type === 'RequesterAllowed') return [];
    if (type === 'PolicyViolation') {
      if (status === 'True') return [{ type: 'warning', reason: 'PolicyViolation', message }];
      return before?.status === 'True' ? [{ type: 'normal', reason, message }] : [];
    }
    if (type === 'ReviewOverdue') {
      return status === 'True' ? [{ type: 'warning', reason: 'ReviewOverdue', message }] : [];
    }
    if (status === 'True') return [{ type: 'normal', reason: type, message }];
    // Held says it already; what is under way ends in an event of its own.
    if ((isHeld && reason !== 'KillSwitchEngaged') || reason === 'Provisioning') return [];
    return [{ type: 'warning', reason, message }];
  });
}

/** Told again when it is another binding or another right. */
function excessTransition(
  { status, reason, message }: Finding,
  before: Condition | undefined,
): Transition[] {
  if (before?.status === status && before.message === message) return [];
  if (status === 'True') return [{ type: 'warning', reason: 'ExcessPermissions', message }];
  if (status === 'Unknown') return [{ type: 'warning', reason, message }];
  return before?.status === 'True' ? [{ type: 'normal', reason, message }] : [];
}
