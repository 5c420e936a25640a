import type { AccessReview } from '../../api/access-review.ts';
import type {
  AccessReviewSettings,
  AccessReviewStatus,
  AutomationIdentity,
} from '../../api/automation-identity.ts';
import { timestamp, type Finding } from '../../api/conditions.ts';
import { parseDuration } from '../../api/duration.ts';
import type { KubeObject, ObjectMeta } from '../../api/objects.ts';
import type { Problem, Transition } from '../requirements.ts';

export interface ReviewObservation {
  identity: AutomationIdentity;
  /** `undefined` where no reviews are asked for, or where the spec can't be read. */
  settings: AccessReviewSettings | undefined;
  /** Those of this identity, by name. */
  reviews: readonly AccessReview[];
  /** Of what the identity may do; `undefined` where it isn't known yet. */
  digest: string | undefined;
  /** Nothing is asked for beyond what is granted. */
  isReduced: boolean;
  /** Milliseconds since the epoch. */
  now: number;
}

/** What comes of the reviews of an identity. */
export interface ReviewOutcome {
  /** `undefined` where no reviews are asked for, and none was made. */
  status: AccessReviewStatus | undefined;
  /** The condition `ReviewOverdue`; `undefined` where no reviews are asked for. */
  finding: Finding | undefined;
  /** What holds the identity. */
  missing: Problem[];
  /** Everything that it has is taken away. */
  isRevoked: boolean;
  /** Milliseconds since the epoch at which the next review is due, or was. */
  due: number | undefined;
  /** Milliseconds since the epoch at which to look again. */
  dueAt: number | undefined;
}

/**
 * What the latest review of an identity means now.
 *
 * - `Revoke` stands until a later `Keep`, whatever changes; also for an identity that is created
 *   anew under the name.
 * - `Reduce` holds until what was reviewed has changed, and nothing is asked for beyond what is
 *   granted: asking for more is no way out of it.
 * - `Keep` counts for the identity that was there.
 * - A review is void when what was reviewed has changed; the next one is due at once then.
 *
 * Times are those of the API server, and this machine's clock may differ: no time is taken to be
 * before one that the API server has written.
 */
export function planReview(observation: ReviewObservation): ReviewOutcome {
  const { identity, settings, digest, isReduced } = observation;
  const latest = latestOf(observation);
  if (settings === undefined && latest === undefined) return notReviewed;
  const decision = latest?.spec.decision;
  const isRevoked = decision === 'Revoke';
  const isVoid = !isRevoked && latest !== undefined && isOutdated(latest, digest);
  const known = [identity, ...(latest === undefined ? [] : [latest])].map(createdAt);
  const now = Math.max(observation.now, ...known);
  const changed = changedSince(identity, latest) ?? (isVoid ? now : undefined);
  const facts: Facts = { identity, latest, isVoid, changed, now };
  const timing = settings === undefined || isRevoked ? undefined : timingOf(settings, facts);
  return {
    status: {
      ...(digest !== undefined && { digest }),
      ...(latest !== undefined && {
        review: latest.metadata.name,
        decision: latest.spec.decision,
        by: reviewerOf(latest),
        lastReviewed: timestamp(createdAt(latest)),
      }),
      ...(changed !== undefined && { changed: timestamp(changed) }),
      ...(timing !== undefined && { due: timestamp(timing.due) }),
    },
    finding: settings === undefined ? undefined : findingOf(timing, facts),
    missing: [
      ...(latest !== undefined && isRevoked ? [revoked(latest)] : []),
      ...(latest !== undefined && decision === 'Reduce' && !(isVoid && isReduced)
        ? [toBeReduced(latest)]
        : []),
      ...(timing === undefined ? [] : heldBy(timing, facts)),
    ],
    isRevoked,
    due: timing?.due,
    dueAt: earliestAfter(now, [timing?.due, timing?.holdsAt]),
  };
}

const notReviewed: ReviewOutcome = {
  status: undefined,
  finding: undefined,
  missing: [],
  isRevoked: false,
  due: undefined,
  dueAt: undefined,
};

/** A new decision, as an event tells it. */
export function decisionTransition(
  before: AccessReviewStatus | undefined,
  after: AccessReviewStatus | undefined,
  reviews: readonly AccessReview[],
): Transition[] {
  if (after?.review === undefined || after.review === before?.review) return [];
  const review = reviews.find(({ metadata }) => metadata.name === after.review);
  if (review === undefined) return [];
  const { decision, reason } = review.spec;
  return [
    {
      type: decision === 'Keep' ? 'normal' : 'warning',
      reason: 'AccessReviewed',
      message: `${reviewerOf(review)} reviewed what it may do, and decided ${decision}: ${reason}`,
    },
  ];
}

/** The review that decides. Of two in the same second, the API server wrote one later. */
function latestOf({ identity, reviews }: ReviewObservation): AccessReview | undefined {
  const counting = reviews
    .filter(({ spec, metadata }) => spec.decision !== 'Keep' || isOfThis(metadata, identity))
    .toSorted((a, b) => createdAt(a) - createdAt(b) || compareVersions(a, b));
  const lastOf = (decision: AccessReview['spec']['decision']): number =>
    counting.findLastIndex(({ spec }) => spec.decision === decision);
  const revoke = lastOf('Revoke');
  return revoke > lastOf('Keep') ? counting[revoke] : counting.at(-1);
}

/**
 * Whether it was there when that was written. In the same second, nobody knows: a review of what
 * doesn't exist yet is checked by nobody.
 */
function isOfThis(metadata: ObjectMeta, identity: AutomationIdentity): boolean {
  return createdAt({ metadata }) > createdAt(identity);
}

/** Resource versions of one kind grow (KEP-5504); where they can't be read, no order is known. */
function compareVersions(a: AccessReview, b: AccessReview): number {
  const [first, second] = [a, b].map(({ metadata }) => metadata.resourceVersion ?? '');
  if (first === undefined || second === undefined) return 0;
  if (!/^[0-9]+$/.test(first) || !/^[0-9]+$/.test(second)) return 0;
  return first.length - second.length || (first < second ? -1 : first > second ? 1 : 0);
}

function isOutdated({ spec }: AccessReview, digest: string | undefined): boolean {
  return digest !== undefined && spec.digest !== digest;
}

/** Times in milliseconds since the epoch. */
interface Timing {
  due: number;
  /** `undefined` where an overdue review only warns. */
  holdsAt: number | undefined;
  isReadable: boolean;
}

interface Facts {
  identity: AutomationIdentity;
  latest: AccessReview | undefined;
  isVoid: boolean;
  /** When it was first seen that what was reviewed has changed. */
  changed: number | undefined;
  now: number;
}

/** An interval that can't be read has always been over. */
function timingOf(
  { every: text, onOverdue, gracePeriod }: AccessReviewSettings,
  { identity, latest, isVoid, changed, now }: Facts,
): Timing {
  const every = parseDuration(text) ?? 0;
  const since = createdAt(latest ?? identity);
  const regular = since + every;
  const due = isVoid ? Math.min(regular, changed ?? now) : regular;
  const grace = gracePeriod === undefined ? 0 : (parseDuration(gracePeriod) ?? 0);
  return {
    due,
    holdsAt: onOverdue === 'Hold' ? due + grace : undefined,
    isReadable: every > 0,
  };
}

/**
 * As status has it of that review. It isn't forgotten when the change is taken back: who changed it
 * again would have another grace period each time.
 */
function changedSince(
  { status }: AutomationIdentity,
  latest: AccessReview | undefined,
): number | undefined {
  const { review, changed = '' } = status?.accessReview ?? {};
  const time = Date.parse(changed);
  return Number.isNaN(time) || review !== latest?.metadata.name ? undefined : time;
}

const type = 'ReviewOverdue';

/** @param timing `undefined` where everything was taken away */
function findingOf(timing: Timing | undefined, { identity, latest, isVoid, now }: Facts): Finding {
  if (timing === undefined) {
    const message = 'There is nothing to review: its access was revoked.';
    return { type, status: 'False', reason: 'NotDue', message };
  }
  const { due, holdsAt, isReadable } = timing;
  const before =
    latest === undefined
      ? 'It has not been reviewed yet.'
      : `${reviewerOf(latest)} reviewed it on ${timestamp(createdAt(latest))} (${latest.spec.decision}).`;
  const hold =
    holdsAt === undefined ? '' : ` Nothing new is granted from ${timestamp(holdsAt)} on.`;
  if (!isReadable) {
    const message = `spec.accessReview.every can't be read: write a duration in hours, such as 2160h.${hold}`;
    return { type, status: 'True', reason: 'ReviewUnreadable', message };
  }
  if (isVoid) {
    const message = `What it may do has changed, so that its last review is void. ${before}${hold} ${how(identity)}`;
    return { type, status: 'True', reason: 'PermissionsChanged', message };
  }
  const date = timestamp(due);
  if (now < due) {
    const message = `${before} The next review is due on ${date}.`;
    return { type, status: 'False', reason: 'NotDue', message };
  }
  const message = `A review of what it may do was due on ${date}. ${before}${hold} ${how(identity)}`;
  return { type, status: 'True', reason: 'ReviewDue', message };
}

function heldBy({ due, holdsAt }: Timing, { identity, isVoid, now }: Facts): Problem[] {
  if (holdsAt === undefined || now < holdsAt) return [];
  const what = isVoid
    ? 'What it may do has changed since its last review, and the new one'
    : 'A review of what it may do';
  return [
    {
      reason: 'ReviewOverdue',
      message: `${what} was due on ${timestamp(due)}. ${how(identity)}`,
    },
  ];
}

function how({ metadata: { namespace = '', name } }: KubeObject): string {
  return `Somebody else than who changed it last reviews it: kubectl guardrails review ${name} -n ${namespace}`;
}

function revoked(review: AccessReview): Problem {
  return {
    reason: 'AccessRevoked',
    message: `${reviewerOf(review)} revoked its access on ${timestamp(createdAt(review))}: ${review.spec.reason}. Only a later review that decides Keep gives it back.`,
  };
}

function toBeReduced(review: AccessReview): Problem {
  return {
    reason: 'ReduceRequested',
    message: `${reviewerOf(review)} asked on ${timestamp(createdAt(review))} that it may do less: ${review.spec.reason}. Take what it doesn't need out of spec.permissions, and add nothing; or have it reviewed again.`,
  };
}

function reviewerOf({ spec }: AccessReview): string {
  return spec.reviewer ?? 'somebody';
}

function createdAt({ metadata }: KubeObject): number {
  const time = Date.parse(metadata.creationTimestamp ?? '');
  return Number.isNaN(time) ? 0 : time;
}

function earliestAfter(now: number, times: readonly (number | undefined)[]): number | undefined {
  const ahead = times.flatMap((time) => (time === undefined || time <= now ? [] : [time]));
  return ahead.length === 0 ? undefined : Math.min(...ahead);
}
