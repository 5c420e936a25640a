import { isTrue, type Finding } from '../../api/conditions.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { Condition } from '../../api/objects.ts';
import type { Problem } from './plan.ts';

/** What is known of an identity after a look at all its guardrails. */
export interface IdentityVerdict {
  killSwitch: KillSwitch | undefined;
  missing: readonly Problem[];
  /** Whatever else keeps it from being ready, the most important first. */
  problems: readonly Problem[];
}

/** The conditions of an AutomationIdentity: `Ready`, and `Held`, which is true when it is bad. */
export function identityFindings(verdict: IdentityVerdict): Finding[] {
  return [readyFinding(verdict), heldFinding(verdict)];
}

/** The one thing that is missing, or that several are; `undefined` where nothing is. */
export function heldReason(missing: readonly Problem[]): string | undefined {
  return missing.length > 1 ? 'Incomplete' : missing[0]?.reason;
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

function heldFinding({ missing }: IdentityVerdict): Finding {
  const reason = heldReason(missing);
  return reason === undefined
    ? { type: 'Held', status: 'False', reason: 'Complete', message: 'Nothing is missing.' }
    : { type: 'Held', status: 'True', reason, message: sentencesOf(missing) };
}

/** Something worth an event. */
export interface Transition {
  type: 'normal' | 'warning';
  reason: string;
  message: string;
}

/** What changed since the conditions that stood before, as events tell it. */
export function transitionsOf(
  findings: readonly Finding[],
  previous: readonly Condition[] | undefined,
): Transition[] {
  const isHeld = findings.some(({ type, status }) => type === 'Held' && status === 'True');
  return findings.flatMap(({ type, status, reason, message }): Transition[] => {
    const before = previous?.find((condition) => condition.type === type);
    if (before?.status === status && before.reason === reason) return [];
    if (type === 'Held') {
      if (status === 'True') return [{ type: 'warning', reason: 'Held', message }];
      return isTrue(previous, 'Held') ? [{ type: 'normal', reason: 'NoLongerHeld', message }] : [];
    }
    if (status === 'True') return [{ type: 'normal', reason: type, message }];
    // Held says it already; what is under way ends in an event of its own.
    if ((isHeld && reason !== 'KillSwitchEngaged') || reason === 'Provisioning') return [];
    return [{ type: 'warning', reason, message }];
  });
}

/** Bounded as a condition's message is. */
function sentencesOf(problems: readonly Problem[]): string {
  return problems
    .map(({ message }) => message)
    .join(' ')
    .slice(0, 8192);
}
