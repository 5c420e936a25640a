import { describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { annotation } from '../api/names.ts';
import { credentialFacts, rotationRequests } from './credential-facts.ts';
import { pendingRecords, type ChainState, type PendingRecord } from './observation.ts';

const alice = { name: 'kubectl-annotate', basis: 'asserted' } as const;

function identity(
  annotations: Record<string, string>,
  previousExpirationTime?: string,
): AutomationIdentity {
  return {
    metadata: { name: 'invoice', namespace: 'finance', uid: 'u', annotations },
    spec: {},
    status: {
      secrets: [
        {
          name: 'ledger',
          secretName: 'invoice-ledger',
          lastRotationTime: '2026-01-01T00:00:00Z',
          ...(previousExpirationTime !== undefined && { previousExpirationTime }),
        },
      ],
    },
  };
}

async function recordsOf(state: ChainState, of: AutomationIdentity): Promise<PendingRecord[]> {
  const requests = rotationRequests(of, {}, () => Promise.resolve(alice));
  return await pendingRecords(state, [requests, ...credentialFacts(of, {})], new Map(), 0);
}

describe('what cannot be undone of a credential', () => {
  it('is recorded as intended before it is done, and once more when it is', async () => {
    const state: ChainState = new Map();
    const expires = '2026-01-01T01:00:00Z';
    const rotated = await recordsOf(state, identity({}, expires));
    expect(rotated.map(({ draft }) => [draft.action, draft.outcome])).toEqual([
      ['SecretIssued', 'Succeeded'],
      ['PreviousValueExpires', 'Intended'],
    ]);
    const done = await recordsOf(state, identity({}));
    expect(done.map(({ draft }) => [draft.action, draft.outcome])).toEqual([
      ['PreviousValueWithdrawn', 'Succeeded'],
    ]);
  });

  it('is recorded when it is asked for, by whom, once for each request', async () => {
    const state: ChainState = new Map();
    await recordsOf(state, identity({}));
    const asked = identity({ [annotation.rotateEmergency]: 'secret-looking-nonce' });
    const records = await recordsOf(state, asked);
    expect(records.map(({ draft }) => [draft.action, draft.outcome, draft.actor.name])).toEqual([
      ['EmergencyRotationRequested', 'Intended', 'kubectl-annotate'],
    ]);
    expect(JSON.stringify(records)).not.toContain('nonce');
    expect(await recordsOf(state, asked)).toEqual([]);
  });
});
