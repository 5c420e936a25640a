import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AccessReview, AccessReviewSpec } from '../../api/access-review.ts';
import type { AccessReviewSettings, AutomationIdentity } from '../../api/automation-identity.ts';
import { conditionsFrom, timestamp } from '../../api/conditions.ts';
import {
  decisionTransition,
  planReview,
  type ReviewObservation,
  type ReviewOutcome,
} from './plan.ts';

const hour = 3_600_000;
const start = Date.parse('2026-01-01T00:00:00Z');
const quarter = 2160 * hour;
const digest = `sha256:${'a'.repeat(64)}`;
const other = `sha256:${'b'.repeat(64)}`;

const identity: AutomationIdentity = {
  metadata: { namespace: 'finance', name: 'poster', creationTimestamp: timestamp(start) },
  spec: {},
};

function review(
  decision: AccessReviewSpec['decision'],
  at: number,
  fields: Partial<AccessReviewSpec> = {},
  resourceVersion = '1',
): AccessReview {
  return {
    metadata: {
      namespace: 'finance',
      name: `${decision.toLowerCase()}-${(at - start) / hour}`,
      creationTimestamp: timestamp(at),
      resourceVersion,
    },
    spec: { identity: 'poster', decision, reason: 'so it is', digest, reviewer: 'bob', ...fields },
  };
}

const settings: AccessReviewSettings = { every: '2160h' };
const holding: AccessReviewSettings = { every: '2160h', onOverdue: 'Hold', gracePeriod: '24h' };

function plan(parts: Partial<ReviewObservation> = {}): ReviewOutcome {
  return planReview({
    identity,
    settings,
    reviews: [],
    digest,
    isReduced: true,
    now: start,
    ...parts,
  });
}

const shortOf = ({ finding, missing, isRevoked }: ReviewOutcome): string =>
  [
    finding === undefined ? 'no condition' : `${finding.status} ${finding.reason}`,
    ...missing.map(({ reason }) => reason),
    ...(isRevoked ? ['revoked'] : []),
  ].join(', ');

describe('planReview', () => {
  it('says nothing where no reviews are asked for, and none was made', () => {
    expect(plan({ settings: undefined })).toEqual({
      status: undefined,
      finding: undefined,
      missing: [],
      isRevoked: false,
      due: undefined,
      dueAt: undefined,
    });
  });

  const keep = review('Keep', start + hour);
  it.each<[string, Partial<ReviewObservation>, string]>([
    ['not due yet', {}, 'False NotDue'],
    ['a moment before it is due', { now: start + quarter - 1 }, 'False NotDue'],
    ['due', { now: start + quarter }, 'True ReviewDue'],
    [
      'due, and holding after a time',
      { now: start + quarter, settings: holding },
      'True ReviewDue',
    ],
    [
      'held',
      { now: start + quarter + 24 * hour, settings: holding },
      'True ReviewDue, ReviewOverdue',
    ],
    [
      'held at once without a grace period',
      { now: start + quarter, settings: { every: '2160h', onOverdue: 'Hold' } },
      'True ReviewDue, ReviewOverdue',
    ],
    ['reviewed', { now: start + quarter, reviews: [keep] }, 'False NotDue'],
    ['due again', { now: start + hour + quarter, reviews: [keep] }, 'True ReviewDue'],
    ['void', { reviews: [keep], digest: other }, 'True PermissionsChanged'],
    ['not known to be void', { reviews: [keep], digest: undefined }, 'False NotDue'],
    [
      'to be reduced',
      { reviews: [keep, review('Reduce', start + 2 * hour)] },
      'False NotDue, ReduceRequested',
    ],
    [
      'changed, and to be reduced still',
      { reviews: [review('Reduce', start)], digest: other, isReduced: false },
      'True PermissionsChanged, ReduceRequested',
    ],
    ['reduced', { reviews: [review('Reduce', start)], digest: other }, 'True PermissionsChanged'],
    [
      'revoked',
      { reviews: [keep, review('Revoke', start + 2 * hour)] },
      'False NotDue, AccessRevoked, revoked',
    ],
    [
      'revoked, and changed since',
      { reviews: [review('Revoke', start)], digest: other, now: start + 2 * quarter },
      'False NotDue, AccessRevoked, revoked',
    ],
    [
      'revoked without being asked for',
      { settings: undefined, reviews: [review('Revoke', start)] },
      'no condition, AccessRevoked, revoked',
    ],
    [
      'revoked, and asked to be reduced afterwards',
      { reviews: [review('Revoke', start), review('Reduce', start + hour)] },
      'False NotDue, AccessRevoked, revoked',
    ],
    [
      'given back',
      { reviews: [review('Revoke', start), review('Keep', start + hour)] },
      'False NotDue',
    ],
    [
      'given back, and changed since',
      { reviews: [review('Revoke', start), review('Keep', start + hour, { digest: other })] },
      'True PermissionsChanged',
    ],
    [
      'revoked in the same second as kept, and later',
      { reviews: [review('Revoke', start, {}, '10'), review('Keep', start, {}, '9')] },
      'False NotDue, AccessRevoked, revoked',
    ],
    [
      'kept before it was created',
      { reviews: [review('Keep', start - hour)], now: start + quarter },
      'True ReviewDue',
    ],
    [
      'revoked, and kept before it was created anew',
      { reviews: [review('Revoke', start - 2 * hour), review('Keep', start - hour)] },
      'False NotDue, AccessRevoked, revoked',
    ],
    [
      'an interval that can’t be read',
      { settings: { ...holding, every: 'soon', gracePeriod: 'later' } },
      'True ReviewUnreadable, ReviewOverdue',
    ],
    ['no interval at all', { settings: { every: '0s' } }, 'True ReviewUnreadable'],
    [
      'a clock that is behind by a year',
      { now: start - 4 * quarter, reviews: [keep] },
      'False NotDue',
    ],
    ['a clock that is ahead by an hour', { now: start + quarter - hour + hour }, 'True ReviewDue'],
  ])('%s', (_, parts, expected) => {
    expect(shortOf(plan(parts))).toBe(expected);
  });

  it('tells when it was reviewed, by whom, and when it is due', () => {
    expect(plan({ reviews: [keep] }).status).toEqual({
      digest,
      review: 'keep-1',
      decision: 'Keep',
      by: 'bob',
      lastReviewed: timestamp(start + hour),
      due: timestamp(start + hour + quarter),
    });
  });

  it('looks again when it is due, and when it holds', () => {
    const due = start + quarter;
    expect(plan({ settings: holding }).dueAt).toBe(due);
    expect(plan({ settings: holding, now: due }).dueAt).toBe(due + 24 * hour);
    expect(plan({ settings: holding, now: due + 24 * hour }).dueAt).toBeUndefined();
  });

  it('counts the grace period of a void review from when that was seen, also after a restart', () => {
    const changed = start + 100 * hour;
    const first = plan({ settings: holding, reviews: [keep], digest: other, now: changed });
    expect(first.missing).toEqual([]);
    const seen: AutomationIdentity = {
      ...identity,
      status: {
        ...(first.status && { accessReview: first.status }),
        conditions: conditionsFrom(first.finding ? [first.finding] : [], [], 1, changed),
      },
    };
    const later = { identity: seen, settings: holding, reviews: [keep], digest: other };
    const next = plan({ ...later, now: changed + 23 * hour });
    expect(next.finding).toEqual(first.finding);
    expect(next.status).toEqual(first.status);
    expect(next.missing).toEqual([]);
    expect(plan({ ...later, now: changed + 24 * hour }).missing).toHaveLength(1);
    const back = plan({ ...later, digest, now: changed + hour });
    expect(shortOf(back)).toBe('False NotDue');
    const again = {
      ...seen,
      status: { ...seen.status, ...(back.status && { accessReview: back.status }) },
    };
    expect(plan({ ...later, identity: again, now: changed + 24 * hour }).missing).toHaveLength(1);
    const reviewed = [keep, review('Keep', changed + hour, { digest: other })];
    expect(shortOf(plan({ ...later, reviews: reviewed, now: changed + 24 * hour }))).toBe(
      'False NotDue',
    );
  });

  it('says the same at any time, whatever the reviews, until something is due', () => {
    const anyReview = fc.record({
      decision: fc.constantFrom('Keep' as const, 'Reduce' as const, 'Revoke' as const),
      hours: fc.integer({ min: -10, max: 10 }),
      isOther: fc.boolean(),
      version: fc.nat(99),
    });
    fc.assert(
      fc.property(
        fc.array(anyReview, { maxLength: 6 }),
        fc.constantFrom(settings, holding),
        fc.integer({ min: 10, max: 5000 }),
        fc.boolean(),
        (made, asked, hours, isReduced) => {
          const reviews = made.map(({ decision, hours: at, isOther, version }) =>
            review(decision, start + at * hour, isOther ? { digest: other } : {}, `${version}`),
          );
          const facts = { reviews, settings: asked, isReduced };
          const now = start + hours * hour;
          const outcome = plan({ ...facts, now });
          const seen: AutomationIdentity = {
            ...identity,
            status: {
              ...(outcome.status && { accessReview: outcome.status }),
              conditions: conditionsFrom(outcome.finding ? [outcome.finding] : [], [], 1, now),
            },
          };
          const until = (outcome.dueAt ?? now + 9 * quarter) - 1;
          for (const when of [now, until]) {
            const { due: _, dueAt: __, ...same } = plan({ ...facts, identity: seen, now: when });
            expect(outcome).toMatchObject(same);
          }
          const shuffled = plan({ ...facts, reviews: reviews.toReversed(), now });
          if (new Set(made.map(({ hours: at }) => at)).size === made.length) {
            expect(shuffled).toEqual(outcome);
          }
          // Nothing but a Keep of the identity itself ends a revocation.
          const revoked = made.some(({ decision }) => decision === 'Revoke');
          const kept = made.some(({ decision, hours: at }) => decision === 'Keep' && at >= 0);
          if (revoked && !kept) expect(outcome.isRevoked).toBe(true);
        },
      ),
    );
  });
});

describe('decisionTransition', () => {
  const keep = review('Keep', start + 1000);
  const revoke = review('Revoke', start + hour);

  it('tells each decision once', () => {
    const before = plan({ reviews: [keep] }).status;
    expect(decisionTransition(undefined, before, [keep])).toEqual([
      {
        type: 'normal',
        reason: 'AccessReviewed',
        message: 'bob reviewed what it may do, and decided Keep: so it is',
      },
    ]);
    expect(decisionTransition(before, before, [keep])).toEqual([]);
    const after = plan({ reviews: [keep, revoke] }).status;
    expect(decisionTransition(before, after, [keep, revoke])).toMatchObject([{ type: 'warning' }]);
    expect(decisionTransition(before, undefined, [])).toEqual([]);
  });
});
