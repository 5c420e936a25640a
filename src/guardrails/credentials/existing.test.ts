import { describe, expect, it } from 'vitest';
import type { SecretEntry } from '../../api/automation-identity.ts';
import type { ObjectMeta } from '../../api/objects.ts';
import { existingSecret } from './existing.ts';

const hour = 3_600_000;
const now = Date.parse('2026-05-01T12:00:00Z');
const entry: SecretEntry = {
  name: 'bank',
  type: 'Existing',
  secretName: 'bank-api',
  rotation: { every: '24h' },
};

const data = { 'f:data': { 'f:key': {} } };
const labels = { 'f:metadata': { 'f:labels': {} } };

function metadata(...managedFields: NonNullable<ObjectMeta['managedFields']>): ObjectMeta {
  return { name: 'bank-api', creationTimestamp: '2026-04-01T00:00:00Z', managedFields };
}

describe('existingSecret', () => {
  it('takes the last change of data that its metadata tells, and who made it', () => {
    const { status, overdue, dueAt } = existingSecret(
      entry,
      metadata(
        { manager: 'helm', time: '2026-04-20T00:00:00Z', fieldsV1: data },
        { manager: 'vault-sync', time: '2026-05-01T00:00:00Z', fieldsV1: data },
        { manager: 'labeller', time: '2026-05-01T11:00:00Z', fieldsV1: labels },
      ),
      now,
    );
    expect(status).toEqual({
      name: 'bank',
      secretName: 'bank-api',
      owner: 'vault-sync',
      lastRotationTime: '2026-05-01T00:00:00Z',
      nextRotationTime: '2026-05-02T00:00:00Z',
    });
    expect(overdue).toBeUndefined();
    expect(dueAt).toBe(now + 12 * hour);
  });

  it('names the controller before any manager', () => {
    const { status } = existingSecret(
      entry,
      {
        ...metadata({ manager: 'external-secrets', time: '2026-05-01T00:00:00Z', fieldsV1: data }),
        ownerReferences: [
          { apiVersion: 'v1', kind: 'ExternalSecret', name: 'bank', uid: 'u', controller: true },
        ],
      },
      now,
    );
    expect(status.owner).toBe('ExternalSecret bank');
  });

  it('is overdue when it is older than asked, by its creation where nothing else is known', () => {
    const { status, problem, overdue, dueAt } = existingSecret(entry, metadata(), now);
    expect(status.lastRotationTime).toBe('2026-04-01T00:00:00Z');
    expect(status).not.toHaveProperty('owner');
    expect(problem).toBeUndefined();
    expect(overdue).toEqual({
      reason: 'SecretOverdue',
      message: 'Secret bank-api was last changed at 2026-04-01T00:00:00Z, and should be every 24h.',
    });
    expect(dueAt).toBeUndefined();
  });

  it('is never overdue where nothing is asked', () => {
    const { rotation: _, ...quiet } = entry;
    const { overdue, status, dueAt } = existingSecret(quiet, metadata(), now);
    expect([overdue, status.nextRotationTime, dueAt]).toEqual([undefined, undefined, undefined]);
  });

  it('is a problem when there is none', () => {
    expect(existingSecret(entry, undefined, now)).toMatchObject({
      status: { name: 'bank', secretName: 'bank-api' },
      problem: { reason: 'SecretMissing' },
      overdue: undefined,
    });
  });

  it('bears metadata of any kind', () => {
    const odd = metadata({}, { time: 'yesterday', fieldsV1: data });
    const { status } = existingSecret(entry, { ...odd, creationTimestamp: 'never' }, now);
    expect(status.lastRotationTime).toBe('1970-01-01T00:00:00Z');
  });
});
