import { describe, expect, it } from 'vitest';
import type { GeneratedSecret } from '../../api/automation-identity.ts';
import { annotation } from '../../api/names.ts';
import type { KubeObject, Secret } from '../../api/objects.ts';
import { projectPod } from '../kill-switch/pods.ts';
import { askedOf, planCredential, spreadOf, type CredentialObservation } from './plan.ts';

const hour = 3_600_000;
const start = Date.parse('2026-05-01T00:00:00Z');
const time = (milliseconds: number): string => new Date(milliseconds).toISOString();

const credential: GeneratedSecret = {
  name: 'erp',
  type: 'Password',
  rotation: { every: '24h', overlap: '2h', restartConsumers: true },
};

const nothing = { rotate: undefined, emergency: undefined, owner: undefined };
const rotate = { ...nothing, rotate: 'now' };
const emergency = { ...nothing, emergency: 'now' };
const owner = { ...nothing, owner: 'them' };

/** Rotated once, at `start`, with a previous value until two hours later. */
function standing(
  annotations: Record<string, string | undefined> = {},
  data: Record<string, string | undefined> = {},
): Secret {
  const merged = {
    [annotation.rotatedAt]: time(start),
    [annotation.rotation]: '1',
    [annotation.previousExpiresAt]: time(start + 2 * hour),
    [annotation.consumersRestarted]: '1',
    ...annotations,
  };
  return {
    metadata: {
      name: 'aid.poster.erp',
      creationTimestamp: time(start - 10 * hour),
      annotations: definedOf(merged),
    },
    data: definedOf({ password: 'bmV3', 'previous.password': 'b2xk', ...data }),
  };
}

function definedOf(entries: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(entries).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

function plan(parts: Partial<CredentialObservation>) {
  return planCredential({
    identity: 'poster',
    credential,
    live: standing(),
    asked: nothing,
    lastHandled: nothing,
    spread: 0,
    hookRun: () => ({ state: 'Absent' }),
    pods: [],
    recorded: undefined,
    isWithheld: false,
    now: start,
    ...parts,
  });
}

describe('planCredential', () => {
  it.each<{ what: string; parts: Partial<CredentialObservation>; expected: object }>([
    {
      what: 'creates what isn’t there',
      parts: { live: undefined },
      expected: { action: 'Create', rotation: 0 },
    },
    {
      what: 'counts the successor of a deleted Secret as a rotation',
      parts: {
        live: undefined,
        recorded: { name: 'erp', secretName: 'aid.poster.erp', lastRotationTime: time(start) },
      },
      expected: { action: 'Create', rotation: 1 },
    },
    {
      what: 'creates nothing while withheld',
      parts: { live: undefined, isWithheld: true },
      expected: { action: 'None' },
    },
    { what: 'leaves a fresh value alone', parts: {}, expected: { action: 'None' } },
    {
      what: 'leaves a value alone until the millisecond at which it is due',
      parts: {
        now: start + 24 * hour - 1,
        live: { ...standing(), data: { password: 'bmV3' } },
      },
      expected: { action: 'None' },
    },
    {
      what: 'rotates when due',
      parts: { now: start + 24 * hour },
      expected: {
        action: 'Rotate',
        cause: 'Scheduled',
        rotation: 2,
        previousExpiresAt: start + 26 * hour,
      },
    },
    {
      what: 'rotates once after any number of missed times, and counts the overlap from then',
      parts: { now: start + 1000 * hour },
      expected: { action: 'Rotate', rotation: 2, previousExpiresAt: start + 1002 * hour },
    },
    {
      what: 'rotates a standing value while withheld, too',
      parts: { now: start + 24 * hour, isWithheld: true },
      expected: { action: 'Rotate', cause: 'Scheduled' },
    },
    {
      what: 'rotates when asked to',
      parts: { asked: rotate },
      expected: { action: 'Rotate', cause: 'Requested', answers: rotate },
    },
    {
      what: 'carries out a nonce once',
      parts: { asked: rotate, live: standing({ [annotation.handledRotation]: 'now' }) },
      expected: { action: 'None' },
    },
    {
      what: 'keeps no previous value in an emergency',
      parts: { asked: emergency },
      expected: { action: 'Rotate', cause: 'Emergency', previousExpiresAt: undefined },
    },
    {
      what: 'keeps none in an emergency either, where the standing one was taken out',
      parts: { asked: emergency, live: standing({}, { password: '' }) },
      expected: { action: 'Rotate', cause: 'ValueLost', previousExpiresAt: undefined },
    },
    {
      what: 'answers all that is asked by one rotation, as the emergency wants it',
      parts: { asked: { rotate: 'a', emergency: 'b', owner: 'c' }, now: start + 24 * hour },
      expected: {
        action: 'Rotate',
        answers: { rotate: 'a', emergency: 'b', owner: 'c' },
        previousExpiresAt: undefined,
      },
    },
    {
      what: 'carries out an emergency once',
      parts: { asked: emergency, live: standing({ [annotation.handledEmergency]: 'now' }) },
      expected: { action: 'None' },
    },
    {
      what: 'rotates for another owner, with the overlap',
      parts: { asked: owner, live: standing({ [annotation.ownerDigest]: 'others' }) },
      expected: { action: 'Rotate', cause: 'OwnerChanged', previousExpiresAt: start + 2 * hour },
    },
    {
      what: 'takes note of the owner of a value that nobody’s is recorded for',
      parts: { asked: owner },
      expected: { action: 'RecordOwner', owner: 'them' },
    },
    {
      what: 'leaves a value alone whose owner is the same',
      parts: { asked: owner, live: standing({ [annotation.ownerDigest]: 'them' }) },
      expected: { action: 'None' },
    },
    {
      what: 'leaves a value alone while its owner is incomplete',
      parts: { live: standing({ [annotation.ownerDigest]: 'others' }) },
      expected: { action: 'None' },
    },
    {
      what: 'keeps no previous value without an overlap',
      parts: { asked: rotate, credential: { name: 'erp', type: 'Password' } },
      expected: { action: 'Rotate', previousExpiresAt: undefined },
    },
    {
      what: 'generates anew what was taken out',
      parts: { live: standing({}, { password: '' }) },
      expected: { action: 'Rotate', cause: 'ValueLost' },
    },
    {
      what: 'grants a lost value not again while withheld',
      parts: { live: standing({}, { password: '' }), isWithheld: true },
      expected: { action: 'None' },
    },
    {
      what: 'generates anew under another key when the type is changed',
      parts: { credential: { ...credential, type: 'Token' } },
      expected: { action: 'Rotate', cause: 'ValueLost' },
    },
    {
      what: 'withdraws the previous value at its time',
      parts: { now: start + 2 * hour },
      expected: { action: 'Retire' },
    },
    {
      what: 'withdraws it earlier when the overlap was shortened meanwhile',
      parts: {
        now: start + hour,
        credential: { ...credential, rotation: { every: '24h', overlap: '1h' } },
      },
      expected: { action: 'Retire' },
    },
    {
      what: 'withdraws it after the overlap when its time can’t be read',
      parts: {
        now: start + 2 * hour,
        live: standing({ [annotation.previousExpiresAt]: 'soon' }),
      },
      expected: { action: 'Retire' },
    },
    {
      what: 'withdraws it at once when nothing says how long it may stay',
      parts: {
        live: standing({ [annotation.previousExpiresAt]: undefined }),
        credential: { name: 'erp', type: 'Password' },
      },
      expected: { action: 'Retire' },
    },
    {
      what: 'takes the creation time where the rotation time can’t be read',
      parts: {
        now: start + 14 * hour,
        live: standing({ [annotation.rotatedAt]: 'yesterday' }),
      },
      expected: { action: 'Rotate', cause: 'Scheduled' },
    },
    {
      what: 'does not believe a rotation time in the future',
      parts: {
        now: start + 14 * hour,
        live: standing({ [annotation.rotatedAt]: time(start + 1000 * hour) }),
      },
      expected: { action: 'Rotate', cause: 'Scheduled' },
    },
    {
      what: 'bears a Secret without any annotation',
      parts: { live: { metadata: { name: 'aid.poster.erp' }, data: { password: 'eA==' } } },
      expected: { action: 'Rotate', cause: 'Scheduled', rotation: 1 },
    },
    {
      what: 'leaves a Secret that is being deleted alone',
      parts: {
        asked: rotate,
        live: {
          ...standing(),
          metadata: { ...standing().metadata, deletionTimestamp: time(start) },
        },
      },
      expected: { action: 'None' },
    },
  ])('$what', ({ parts, expected }) => {
    expect(plan(parts).step).toMatchObject(expected);
  });

  it('says when it has to look again, and puts the times into status', () => {
    expect(plan({})).toMatchObject({
      dueAt: start + 2 * hour,
      status: {
        name: 'erp',
        secretName: 'aid.poster.erp',
        state: 'Converging',
        lastRotationTime: '2026-05-01T00:00:00Z',
        nextRotationTime: '2026-05-02T00:00:00Z',
        previousExpirationTime: '2026-05-01T02:00:00Z',
      },
    });
  });

  it.each([
    ['after a rotation', { [annotation.consumersRestarted]: undefined }, start],
    ['not for the first value', { [annotation.rotation]: '0' }, undefined],
    ['not when it is done', {}, undefined],
    ['again for the next rotation', { [annotation.consumersRestarted]: '0' }, start],
    ['not when the count can’t be read', { [annotation.rotation]: 'many' }, undefined],
  ])('asks for a restart of consumers: %s', (_what, annotations, expected) => {
    expect(plan({ live: standing(annotations) }).restartSince).toBe(expected);
  });

  it.each([
    ['nothing before the first rotation', { [annotation.rotation]: '0' }, {}, undefined],
    [
      'Published while consumers are being restarted',
      { [annotation.consumersRestarted]: undefined },
      {},
      'Published',
    ],
    ['Converging while the previous value is there', {}, {}, 'Converging'],
    ['Retired when it is withdrawn', {}, { 'previous.password': undefined }, 'Retired'],
  ])('says %s', (_what, annotations, data, expected) => {
    expect(plan({ live: standing(annotations, data) }).status.state).toBe(expected);
  });

  describe('with a pod that started before', () => {
    const pod = projectPod({
      metadata: { name: 'poster-1', namespace: 'billing' },
      spec: { containers: [{ envFrom: [{ secretRef: { name: 'aid.poster.erp' } }] }] },
      status: { phase: 'Running', startTime: time(start - hour) },
    } as KubeObject);

    it('keeps the previous value beyond the overlap, tells nobody for an hour, and then names it', () => {
      const over = start + 2 * hour;
      expect(plan({ pods: [pod], now: over })).toMatchObject({
        step: { action: 'None' },
        dueAt: over + 15_000,
        holdouts: [],
        status: { state: 'Converging' },
      });
      expect(plan({ pods: [pod], now: over + hour - 1 }).holdouts).toEqual([]);
      expect(plan({ pods: [pod], now: over + hour })).toMatchObject({
        step: { action: 'None' },
        dueAt: over + hour + 60_000,
        holdouts: [{ metadata: { name: 'poster-1' } }],
      });
      expect(plan({ pods: [], now: over }).step.action).toBe('Retire');
    });

    it.each([
      ['an emergency', { asked: emergency, now: start + 3 * hour }, 'Rotate'],
      ['the next rotation', { now: start + 24 * hour }, 'Rotate'],
    ])('does not put off %s', (_what, parts, expected) => {
      expect(plan({ pods: [pod], ...parts }).step.action).toBe(expected);
    });
  });

  it('keeps the previous value while consumers are still being restarted', () => {
    const live = standing({ [annotation.consumersRestarted]: undefined });
    expect(plan({ live, now: start + 2 * hour })).toMatchObject({ step: { action: 'None' } });
  });

  it('asks for no restart unless the spec does', () => {
    const quiet = { ...credential, rotation: { every: '24h' } };
    expect(plan({ credential: quiet }).restartSince).toBeUndefined();
  });

  it('says what is wrong with the rotation, and doesn’t rotate by it', () => {
    const { defects, step } = plan({
      credential: { ...credential, rotation: { schedule: 'monthly' } },
      live: standing({}, {}),
    });
    expect(defects).toMatchObject([{ reason: 'RotationUnreadable' }]);
    expect(step.action).not.toBe('Rotate');
  });
});

describe('spreadOf', () => {
  it('is the same for an identity each time, and spreads many evenly', () => {
    const of = (uid: string): number => spreadOf({ metadata: { name: 'poster', uid } });
    expect(of('a')).toBe(of('a'));
    const tenths = Array.from({ length: 2000 }, (_, index) => Math.floor(of(`uid-${index}`) * 10));
    const counts = Array.from(
      { length: 10 },
      (_, tenth) => tenths.filter((t) => t === tenth).length,
    );
    expect(Math.min(...counts)).toBeGreaterThan(140);
    expect(Math.max(...counts)).toBeLessThan(260);
  });
});

describe('askedOf', () => {
  it.each([
    [undefined, undefined],
    ['', undefined],
    ['  ', undefined],
    [' 7 ', '7'],
    ['x'.repeat(10_000), 'x'.repeat(253)],
  ])('reads %j', (text, expected) => {
    const annotations =
      text === undefined ? {} : { [annotation.rotate]: text, [annotation.rotateEmergency]: text };
    expect(askedOf({ metadata: { name: 'poster', annotations }, spec: {} })).toEqual({
      rotate: expected,
      emergency: expected,
      owner: undefined,
    });
  });

  it('knows an owner by team and contact', () => {
    const ownerOf = (of: object): string | undefined =>
      askedOf({ metadata: { name: 'poster' }, spec: { owner: of } }).owner;
    const finance = ownerOf({ team: 'finance', contact: 'a@example.com' });
    expect(finance).toMatch(/^[0-9a-f]{16}$/);
    expect(ownerOf({ team: ' finance', contact: 'a@example.com', escalation: 'x' })).toBe(finance);
    expect(ownerOf({ team: 'hr', contact: 'a@example.com' })).not.toBe(finance);
    expect(ownerOf({ team: 'finance', contact: 'b@example.com' })).not.toBe(finance);
    expect(ownerOf({ team: 'finance', contact: ' ' })).toBeUndefined();
    expect(ownerOf({ contact: 'a@example.com' })).toBeUndefined();
  });
});
