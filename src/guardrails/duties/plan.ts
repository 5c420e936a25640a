import type { Finding } from '../../api/conditions.ts';
import { some } from '../wording.ts';

/** Who did what of one automation, as admission stamped it. */
export interface Duties {
  /** Its ServiceAccount, as a user. */
  executor: string;
  /** Who approves what runs now. */
  approvers: readonly string[];
  /** Who asked for the release of its kill switch, while that is under way. */
  releaser: string | undefined;
  /** Workloads that it consists of, each with who changed what its pods run. */
  templates: readonly { name: string; changedBy: string | undefined }[];
}

/**
 * The condition `DutiesOverlap`: duties of different people that are one's, and that admission
 * couldn't refuse. It is there only while it is true, and holds nothing.
 */
export function overlapFinding(duties: Duties): Finding | undefined {
  const found = [ownCode(duties), approverReleases(duties)].flatMap((one) => one ?? []);
  const [first] = found;
  if (first === undefined) return undefined;
  return {
    type: 'DutiesOverlap',
    status: 'True',
    reason: first.reason,
    message: found.map(({ message }) => message).join(' '),
  };
}

type Overlap = Pick<Finding, 'reason' | 'message'>;

/** A right that others gave it: what is declared allows no workload that runs as itself. */
function ownCode({ executor, templates }: Duties): Overlap | undefined {
  const own = templates.filter(({ changedBy }) => changedBy === executor);
  if (own.length === 0) return undefined;
  return {
    reason: 'ExecutorIsRequester',
    message: `The automation itself changed what runs of it: ${some(own.map(({ name }) => name))}. Find out who lets it: kubectl guardrails who-can.`,
  };
}

function approverReleases({ approvers, releaser }: Duties): Overlap | undefined {
  if (releaser === undefined) return undefined;
  const isOne = approvers.some((one) => one.toLowerCase() === releaser.toLowerCase());
  if (!isOne) return undefined;
  return {
    reason: 'ApproverIsReleaser',
    message: `${releaser} approved what runs, and releases the kill of it. Have somebody else look at why it was stopped.`,
  };
}
