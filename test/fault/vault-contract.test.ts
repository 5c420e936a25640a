import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VaultClient, type VaultSession } from '../../src/guardrails/secret-store/vault-client.ts';
import {
  administer,
  setUpVault,
  type TestVault,
  type VaultPlaces,
} from '../operator/vault-setup.ts';
import { FakeVault } from './fake-vault.ts';

/**
 * What copies rely on of KV version 2, asked through the operator's own client: of the fake, or of
 * the Vault or OpenBao that `VAULT_ADDR` and `VAULT_TOKEN` name (`npm run test:vault`).
 */
const { VAULT_ADDR: realAddress, VAULT_TOKEN: realToken } = process.env;

const suffix = randomBytes(4).toString('hex');
const places: VaultPlaces = {
  mount: `guardrails-${suffix}`,
  authMount: `guardrails-${suffix}`,
  pathPrefix: 'automation-guardrails',
};
const { signal } = new AbortController();
const fake = new FakeVault();
let vault: TestVault;
let client: VaultClient;
let session: VaultSession;
let tearDown: (() => Promise<void>) | undefined;
let keys = 0;

beforeAll(async () => {
  vault =
    realAddress === undefined || realToken === undefined
      ? { address: await fake.start(), rootToken: fake.rootToken }
      : { address: realAddress, rootToken: realToken };
  tearDown = await setUpVault(vault, places, {
    namespaces: ['finance'],
    kubernetes: { kubernetes_host: 'https://127.0.0.1:1' },
  });
  client = new VaultClient({
    address: vault.address,
    readCa: undefined,
    namespace: undefined,
    mount: places.mount,
    authMount: places.authMount,
    userAgent: 'test',
  });
  session = { token: vault.rootToken };
});

afterAll(async () => {
  await client.close();
  await tearDown?.();
  if (realAddress === undefined) await fake.stop();
});

function freshKey(): string {
  keys++;
  return `automation-guardrails/finance/poster/key-${keys}`;
}

async function sessionWith(policy: string): Promise<VaultSession> {
  const name = `test-${suffix}-${keys}`;
  await administer(vault, 'POST', `sys/policies/acl/${name}`, { policy });
  const answer = (await administer(vault, 'POST', 'auth/token/create', { policies: [name] })) as {
    auth: { client_token: string };
  };
  return { token: answer.auth.client_token };
}

describe('a key', () => {
  it('is unknown before somebody makes it', async () => {
    const key = freshKey();
    expect(await client.readMetadata(session, key, signal)).toBeUndefined();
    expect(await client.readData(session, key, signal)).toBeUndefined();
  });

  it('has a mark and no version once its metadata is written', async () => {
    const key = freshKey();
    await client.writeMetadata(session, key, { owner: 'me', 'managed-by': 'us' }, signal);
    expect(await client.readMetadata(session, key, signal)).toEqual({
      currentVersion: 0,
      customMetadata: { owner: 'me', 'managed-by': 'us' },
      versions: [],
    });
    expect(await client.readData(session, key, signal)).toBeUndefined();
    expect(await client.writeData(session, key, { password: 'a' }, 0, signal)).toBe(true);
  });

  it('takes a version only on the one that is told', async () => {
    const key = freshKey();
    expect(await client.writeData(session, key, { password: 'a' }, 1, signal)).toBe(false);
    expect(await client.writeData(session, key, { password: 'a' }, 0, signal)).toBe(true);
    expect(await client.writeData(session, key, { password: 'b' }, 0, signal)).toBe(false);
    expect(await client.writeData(session, key, { password: 'b' }, 1, signal)).toBe(true);
    expect(await client.readData(session, key, signal)).toEqual({
      version: 2,
      value: { password: 'b' },
    });
  });

  it('keeps its mark when a version is written, and its versions when the mark is', async () => {
    const key = freshKey();
    await client.writeMetadata(session, key, { owner: 'me' }, signal);
    await client.writeData(session, key, { password: 'a' }, 0, signal);
    await client.writeMetadata(session, key, { owner: 'you' }, signal);
    const { currentVersion, customMetadata } =
      (await client.readMetadata(session, key, signal)) ?? {};
    expect({ currentVersion, customMetadata }).toEqual({
      currentVersion: 1,
      customMetadata: { owner: 'you' },
    });
  });

  it('has nothing left in a version that is destroyed, and says so', async () => {
    const key = freshKey();
    await client.writeData(session, key, { password: 'a' }, 0, signal);
    await client.writeData(session, key, { password: 'b' }, 1, signal);
    await client.destroy(session, key, [1], signal);
    await client.destroy(session, key, [1], signal);
    const metadata = await client.readMetadata(session, key, signal);
    expect(metadata?.versions.map(({ version, destroyed }) => [version, destroyed])).toEqual([
      [1, true],
      [2, false],
    ]);
    await client.destroy(session, key, [2], signal);
    expect(await client.readData(session, key, signal)).toBeUndefined();
    expect(await client.writeData(session, key, { password: 'c' }, 2, signal)).toBe(true);
  });

  it('is gone with its metadata, once or twice, and begins anew', async () => {
    const key = freshKey();
    await client.writeData(session, key, { password: 'a' }, 0, signal);
    await client.deleteMetadata(session, key, signal);
    await client.deleteMetadata(session, key, signal);
    expect(await client.readMetadata(session, key, signal)).toBeUndefined();
    expect(await client.writeData(session, key, { password: 'b' }, 0, signal)).toBe(true);
  });
});

describe('a policy', () => {
  it('that may read and delete metadata may do nothing else', async () => {
    const key = freshKey();
    await client.writeData(session, key, { password: 'a' }, 0, signal);
    const narrow = await sessionWith(
      `path "${places.mount}/metadata/automation-guardrails/+/+/+" { capabilities = ["read", "delete"] }`,
    );
    await expect(client.readData(narrow, key, signal)).rejects.toMatchObject({
      failure: 'Refused',
      status: 403,
    });
    await expect(client.writeData(narrow, key, { a: 'b' }, 1, signal)).rejects.toMatchObject({
      status: 403,
    });
    await expect(client.writeMetadata(narrow, key, { a: 'b' }, signal)).rejects.toMatchObject({
      status: 403,
    });
    await expect(client.destroy(narrow, key, [1], signal)).rejects.toMatchObject({ status: 403 });
    await expect(
      client.readMetadata(narrow, `${key}/deeper`, signal),
      'a plus sign is one segment',
    ).rejects.toMatchObject({ status: 403 });
    expect(await client.readMetadata(narrow, key, signal)).toMatchObject({ currentVersion: 1 });
    await client.deleteMetadata(narrow, key, signal);
    expect(await client.readMetadata(session, key, signal)).toBeUndefined();
  });
});

describe('a login', () => {
  it('is refused without a role, with an unknown one, and with what is no token', async () => {
    await expect(client.login('nobody', 'a.b.c', signal)).rejects.toMatchObject({
      failure: 'Refused',
    });
    await expect(client.login('automation-guardrails', 'a.b.c', signal)).rejects.toMatchObject({
      code: 'SECRET_STORE_ERROR',
    });
  });
});
