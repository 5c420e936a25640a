import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { expect, it } from 'vitest';
import { FakeVault } from '../../../test/fault/fake-vault.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { createSecretStore } from './create.ts';
import { copyLeftIn, leftOf, noSecretStore } from './store.ts';

const key = { namespace: 'finance', identity: 'poster', uid: 'uid-1', name: 'erp' };
const { signal } = new AbortController();

it('without the file of its authorities a vault is away, until that is there', async () => {
  const vault = new FakeVault();
  const folder = await mkdtemp(join(tmpdir(), 'vault-'));
  const [caFile, tokenFile] = [join(folder, 'ca.crt'), join(folder, 'token')];
  try {
    await writeFile(tokenFile, 'x.e30.x');
    let now = 0;
    const logged: string[] = [];
    const store = createSecretStore(
      {
        address: await vault.start(),
        caFile,
        namespace: undefined,
        mount: 'secret',
        pathPrefix: 'automation-guardrails',
        authMount: 'kubernetes',
        roles: { identity: 'identity', operator: 'operator' },
        audience: 'vault',
        tokenFile,
      },
      {
        client: new MemoryClient(() => now),
        userAgent: 'test',
        clock: () => now,
        log: { error: (message) => logged.push(message) },
      },
    );
    expect(logged).toHaveLength(1);
    expect(await store.withdraw([key], signal)).toMatchObject({
      remaining: [
        {
          what: leftOf('vault secret/automation-guardrails/finance/poster/erp'),
          error: { failure: 'Unavailable', message: expect.stringContaining('authorities') },
        },
      ],
    });
    expect(vault.requests).toEqual([]);

    await writeFile(caFile, rootCertificates[0] ?? '');
    now += 60_000;
    await store.withdraw([key], signal);
    expect(vault.requests.map(({ path }) => path)).toEqual(['auth/kubernetes/login']);
  } finally {
    await vault.stop();
    await rm(folder, { recursive: true });
  }
});

it('the place of a copy tells the server and its namespace, and what is said for people does not', () => {
  const of = (address: string, namespace?: string): ReturnType<typeof createSecretStore> =>
    createSecretStore(
      {
        address,
        caFile: undefined,
        namespace,
        mount: 'secret',
        pathPrefix: 'automation-guardrails',
        authMount: 'kubernetes',
        roles: { identity: 'identity', operator: 'operator' },
        audience: 'vault',
        tokenFile: 'token',
      },
      {
        client: new MemoryClient(() => 0),
        userAgent: 'test',
        clock: () => 0,
        log: { error: () => undefined },
      },
    );
  const [a, b] = ['https://a.example.com', 'https://b.example.com'];
  const stores = [of(a), of(b), of(a, 'team'), of(a, 'team/sub'), noSecretStore];
  const all = stores.map((store) => store.placeOf(key));
  expect(new Set(all).size).toBe(all.length);
  expect(all[2]).toBe(
    'vault https://a.example.com namespace team secret/automation-guardrails/finance/poster/erp',
  );
  for (const place of all) {
    expect(copyLeftIn('finance', leftOf(place))).toEqual({ ...key, uid: '' });
  }
  expect(of(a).locationOf(key)).toBe('vault secret/automation-guardrails/finance/poster/erp');
});

it('what is said of a copy tells which it is', async () => {
  const { remaining } = await noSecretStore.withdraw([key], signal);
  const said = [...remaining.map(({ what }) => what), leftOf('vault kv/a/b/finance/poster/erp')];
  for (const what of said) expect(copyLeftIn('finance', what)).toEqual({ ...key, uid: '' });
  expect(copyLeftIn('sales', said[0] ?? '')).toBeUndefined();
  expect(copyLeftIn('finance', 'Secret finance/poster/erp')).toBeUndefined();
});
