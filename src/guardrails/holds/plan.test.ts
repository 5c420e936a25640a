import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { annotation } from '../../api/names.ts';
import { acknowledgedNow, holdsOf, notedPatch, type Holdable } from './plan.ts';

const start = Date.parse('2026-03-01T10:00:00Z');
const metadata = { name: 'invoice', namespace: 'finance', uid: 'u', resourceVersion: '7' };
const missing = (...reasons: string[]) =>
  reasons.map((reason) => ({ reason, message: `${reason}: do this.` }));
const acknowledging = (text: string, by: string | undefined = 'eve') => ({
  ...metadata,
  annotations: {
    [annotation.acknowledgeHold]: text,
    ...(by !== '' && { [annotation.holdAcknowledgedBy]: by }),
  },
});
const standing = {
  reason: 'OwnerMissing',
  message: 'OwnerMissing: do this.',
  since: '2026-03-01T09:00:00Z',
};

describe('what holds an object', () => {
  it('is one entry for each reason, with everything that there is to do', () => {
    const problems = [
      { reason: 'OtherEnvironment', message: 'Take a out.' },
      { reason: 'OwnerMissing', message: 'Missing spec.owner.team.' },
      { reason: 'OtherEnvironment', message: 'Take b out.' },
    ];
    expect(holdsOf(problems, { metadata }, start)).toEqual([
      {
        reason: 'OtherEnvironment',
        message: 'Take a out. Take b out.',
        since: '2026-03-01T10:00:00Z',
      },
      {
        reason: 'OwnerMissing',
        message: 'Missing spec.owner.team.',
        since: '2026-03-01T10:00:00Z',
      },
    ]);
  });

  it('keeps since when it holds while the message changes, and begins anew after it ended', () => {
    const held = { metadata, status: { holds: [standing] } };
    const changed = [{ reason: 'OwnerMissing', message: 'Missing spec.owner.contact.' }];
    expect(holdsOf(changed, held, start)).toEqual([
      { ...standing, message: 'Missing spec.owner.contact.' },
    ]);
    expect(holdsOf([], held, start)).toEqual([]);
    const free = { metadata, status: { holds: [] } };
    expect(holdsOf(changed, free, start)[0]?.since).toBe('2026-03-01T10:00:00Z');
  });

  it('is bounded, in number and in length', () => {
    const many = Array.from({ length: 50 }, (_, index) => ({
      reason: `Reason${index}`,
      message: 'x'.repeat(5000),
    }));
    const holds = holdsOf(many, { metadata }, start);
    expect(holds).toHaveLength(32);
    expect(holds[0]?.message).toHaveLength(2048);
  });
});

describe('an acknowledgement', () => {
  const object: Holdable = {
    metadata: acknowledging('OwnerMissing: asked the team'),
    status: { holds: [standing] },
  };
  const acknowledged = { by: 'eve', reason: 'asked the team', time: '2026-03-01T10:00:00Z' };

  it('is kept with its hold, and taken away once it stands there', () => {
    expect(notedPatch(object)).toBeUndefined();
    const holds = holdsOf(missing('OwnerMissing', 'NotApproved'), object, start);
    expect(holds[0]).toEqual({ ...standing, acknowledged });
    expect(holds[1]).not.toHaveProperty('acknowledged');
    expect(acknowledgedNow(object, holds)).toEqual([
      {
        type: 'normal',
        reason: 'HoldAcknowledged',
        message: 'eve acknowledged OwnerMissing: asked the team',
      },
    ]);
    const stored = { ...object, status: { holds } };
    expect(notedPatch(stored)).toEqual({
      metadata: {
        uid: 'u',
        resourceVersion: '7',
        annotations: {
          [annotation.acknowledgeHold]: null,
          [annotation.holdAcknowledgedBy]: null,
        },
      },
    });
    const later = { metadata, status: { holds } };
    expect(holdsOf(missing('OwnerMissing'), later, start + 1e6)[0]).toEqual(holds[0]);
    expect(acknowledgedNow(later, holds)).toEqual([]);
  });

  it.each([
    ['names a hold that does not stand', acknowledging('NotApproved: fine')],
    ['has no stamp', acknowledging('OwnerMissing: fine', '')],
    ['names none', acknowledging('fine')],
  ])('that %s counts for nothing, and goes', (_, marks) => {
    const marked = { metadata: marks, status: { holds: [standing] } };
    expect(holdsOf(missing('OwnerMissing', 'NotApproved'), marked, start)).toEqual([
      standing,
      expect.not.objectContaining({ acknowledged: expect.anything() }),
    ]);
    expect(notedPatch(marked)).toBeDefined();
  });

  it('never outlives its hold, whatever happens in between, and a crash after any write', () => {
    const step = fc.record({
      held: fc.boolean(),
      acknowledges: fc.boolean(),
      crashes: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        let current: Holdable = { metadata };
        let isKnown = false;
        for (const [index, { held, acknowledges, crashes }] of steps.entries()) {
          // As admission has it: only what stands can be acknowledged.
          if (acknowledges && (current.status?.holds ?? []).length > 0) {
            current = { ...current, metadata: acknowledging(`OwnerMissing: ${index}`) };
          }
          const isOpen = notedPatch(current) === undefined;
          if (!isOpen) current = { ...current, metadata };
          const stamp = current.metadata.annotations !== undefined;
          const before = current.status?.holds?.[0];
          const holds = holdsOf(held ? missing('OwnerMissing') : [], current, start + index * 1000);
          isKnown = held && before !== undefined && (isKnown || stamp);
          current = { ...current, status: { holds } };
          expect(holds[0]?.acknowledged !== undefined).toBe(isKnown);
          if (!crashes && notedPatch(current) !== undefined) current = { ...current, metadata };
        }
      }),
    );
  });
});
