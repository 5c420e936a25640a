import { expect, it } from 'vitest';
import { copyKeyOf, leftOf, noSecretStore } from '../secret-store/store.ts';
import { withdrawCopies } from './copies.ts';

it('an operator that is not told of a vault any more says where the copies were made, each once', async () => {
  const namespace = 'finance';
  const identity = {
    metadata: { namespace, name: 'poster', uid: 'uid-1' },
    spec: {},
    status: {
      secrets: ['erp', 'bank'].map((name) => ({
        name,
        secretName: `aid.poster.${name}`,
        store: 'Vault' as const,
      })),
    },
  };
  const place = 'vault https://before secret/finance/poster/erp';
  const { left, dueMs } = await withdrawCopies(
    { namespace, identities: [identity], told: [] },
    {
      store: noSecretStore,
      readLedger: () => Promise.resolve([{ key: copyKeyOf(identity, 'erp'), place }]),
    },
    new AbortController().signal,
  );
  expect(left.map(({ what }) => what)).toEqual([
    leftOf('a vault that the operator no longer knows: finance/poster/bank'),
    leftOf(place),
  ]);
  expect(dueMs).toBeGreaterThan(0);
});
