import { describe, expect, it } from 'vitest';
import { FIELD_MANAGER } from '../api/names.ts';
import type { KubeObject, ObjectMeta, Role } from '../api/objects.ts';
import { digestsOf, whoChanged } from './drift.ts';

type Fields = NonNullable<ObjectMeta['managedFields']>;

const desired: Role = {
  metadata: { name: 'poster', labels: { app: 'poster', tier: 'a' } },
  rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }],
};
const widened: Role = {
  metadata: { ...desired.metadata, uid: 'u', annotations: { note: 'theirs' } },
  rules: [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }],
};
const ownsRules = { 'f:rules': {} };

function by(manager: string, fieldsV1: object, time = '2026-01-01T00:00:00Z'): Fields[number] {
  return { manager, operation: 'Update', time, fieldsV1 };
}

describe('who changed an object', () => {
  it('is the last one who wrote what differs', () => {
    const fields = [
      by('early', ownsRules),
      by('late', ownsRules, '2026-01-02T00:00:00Z'),
      by(
        'elsewhere',
        { 'f:metadata': { 'f:annotations': { 'f:note': {} } } },
        '2026-01-03T00:00:00Z',
      ),
    ];
    expect(whoChanged(desired, widened, fields)).toEqual({
      manager: 'late',
      changedAt: '2026-01-02T00:00:00Z',
    });
  });

  it('is nobody where the plan is what changed', () => {
    expect(whoChanged(desired, widened, [by(FIELD_MANAGER, ownsRules)])).toBeUndefined();
    expect(whoChanged(desired, widened, [])).toBeUndefined();
  });

  it('is nobody who wrote the same as is planned, or another label', () => {
    const relabelled: KubeObject = {
      ...desired,
      metadata: { name: 'poster', labels: { app: 'other', tier: 'a' } },
    };
    const label = (name: string): object => ({
      'f:metadata': { 'f:labels': { [`f:${name}`]: {} } },
    });
    expect(whoChanged(desired, relabelled, [by('same', label('tier'))])).toBeUndefined();
    expect(whoChanged(desired, relabelled, [by('new', label('more'))])).toBeUndefined();
    expect(whoChanged(desired, relabelled, [by('it', label('app'))])?.manager).toBe('it');
  });

  it('is nobody who wrote a status', () => {
    const status = { ...by('kubelet', ownsRules), subresource: 'status' };
    expect(whoChanged(desired, widened, [status])).toBeUndefined();
  });
});

describe('digests of a repaired object', () => {
  it('speak of what is planned alone', () => {
    const { before, after } = digestsOf(desired, widened);
    expect(before).not.toBe(after);
    const annotated = { ...desired, metadata: { ...desired.metadata, annotations: { a: 'b' } } };
    expect(digestsOf(desired, annotated).before).toBe(after);
  });
});
