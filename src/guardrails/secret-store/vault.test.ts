import { beforeEach, describe, expect, it } from 'vitest';
import { FakeVault, type VaultFault } from '../../../test/fault/fake-vault.ts';
import { setUpVault } from '../../../test/operator/vault-setup.ts';
import { SecretStoreError, type Copy, type CopyKey } from './store.ts';
import { VaultClient } from './vault-client.ts';
import { VaultStore } from './vault.ts';

const second = 1000;
const minute = 60 * second;
const mount = 'secret';
const key: CopyKey = { namespace: 'finance', identity: 'poster', uid: 'uid-1', name: 'erp' };
const path = 'automation-guardrails/finance/poster/erp';
const { signal } = new AbortController();

let now: number;
let version: number;
let fake: FakeVault;
let client: VaultClient;
let store: VaultStore;
/** Whose token is asked for, as `namespace/name`. */
let asked: string[];

/** A token that says of itself whose it is; the fake's review believes it. */
function jwtOf(namespace: string, name: string): string {
  const payload = {
    aud: ['vault'],
    iat: 1,
    exp: 2,
    'kubernetes.io': { namespace, serviceaccount: { name, uid: `sa-${name}` } },
  };
  return `x.${Buffer.from(JSON.stringify(payload)).toString('base64url')}.x`;
}

const places = { mount, authMount: 'kubernetes', pathPrefix: 'automation-guardrails' };

function storeFor(vaultClient: VaultClient): VaultStore {
  return new VaultStore({
    client: vaultClient,
    tokens: {
      issue: ({ key: { namespace, identity } }) => {
        asked.push(`${namespace}/${identity}`);
        return Promise.resolve(jwtOf(namespace, identity));
      },
    },
    readOwnToken: () => Promise.resolve(jwtOf('automation-guardrails', 'automation-guardrails')),
    roles: { identity: 'automation-guardrails-identity', operator: 'automation-guardrails' },
    mount,
    pathPrefix: places.pathPrefix,
    clock: () => now,
    random: () => 0.5,
  });
}

function clientOf(address: string, timeoutMs: number): VaultClient {
  return new VaultClient({
    address,
    readCa: undefined,
    namespace: undefined,
    mount,
    authMount: 'kubernetes',
    userAgent: 'test',
    timeoutMs,
  });
}

/** For a test in which the vault hangs. */
async function waitShortly(): Promise<void> {
  await client.close();
  client = clientOf(fake.address, 500);
  store = storeFor(client);
}

beforeEach(async () => {
  now = Date.parse('2026-05-01T00:00:00Z');
  version = 1;
  asked = [];
  fake = new FakeVault({
    clock: () => now,
    review: (jwt) => {
      const [, payload = ''] = jwt.split('.');
      const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as {
        'kubernetes.io': { namespace: string; serviceaccount: { name: string; uid: string } };
      };
      const { namespace, serviceaccount } = claims['kubernetes.io'];
      return Promise.resolve({ namespace, ...serviceaccount });
    },
  });
  const address = await fake.start();
  await setUpVault({ address, rootToken: fake.rootToken }, places, { namespaces: ['finance'] });
  fake.requests.length = 0;
  // No answer of the fake is late for it, however slow the machine.
  client = clientOf(address, 60_000);
  store = storeFor(client);
  return async () => {
    await client.close();
    await fake.stop();
  };
});

function copyOf(password: string, extra: Partial<Copy> = {}): Copy {
  const secret = { name: 'aid.poster.erp', uid: 'secret-1', resourceVersion: String(version++) };
  return { key, secret, value: { password }, keepsPrevious: false, ...extra };
}

function keep(copy: Copy, isFresh = false): ReturnType<VaultStore['keep']> {
  return store.keep(copy, { isFresh, record: () => Promise.resolve(), signal });
}

/** Passwords that can be read, by version. */
function readable(at = path): Record<string, unknown> {
  return Object.fromEntries(
    [...fake.readable(mount, at)].map(([number, value]) => [number, value['password']]),
  );
}

async function failureOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error instanceof SecretStoreError ? error.failure : String(error);
}

describe('a copy', () => {
  it('is written as the identity, and only once', async () => {
    expect(await keep(copyOf('a'))).toEqual({ isWritten: true, destroyed: 0 });
    expect(await keep(copyOf('a'))).toEqual({ isWritten: false, destroyed: 0 });
    expect(readable()).toEqual({ 1: 'a' });
    expect(asked).toEqual(['finance/poster', 'finance/poster']);
  });

  it('is not asked for again while its Secret is the same, but after a while', async () => {
    const copy = copyOf('a');
    await keep(copy);
    const requests = fake.requests.length;
    await keep(copy);
    expect(fake.requests).toHaveLength(requests);
    await keep(copy, true);
    expect(fake.requests.length).toBeGreaterThan(requests);
    const later = fake.requests.length;
    now += 10 * minute;
    await keep(copy);
    expect(fake.requests.length).toBeGreaterThan(later);
  });

  it('keeps the version before while that is readable in its Secret, and destroys it then', async () => {
    await keep(copyOf('a'));
    await keep(copyOf('b', { keepsPrevious: true }));
    expect(readable()).toEqual({ 1: 'a', 2: 'b' });
    expect(await keep(copyOf('b'))).toEqual({ isWritten: false, destroyed: 1 });
    expect(readable()).toEqual({ 2: 'b' });
  });

  it('is written over what somebody else wrote, deleted or destroyed', async () => {
    await keep(copyOf('a'));
    const session = { token: fake.rootToken };
    await client.writeData(session, path, { password: 'forged' }, 1, signal);
    await keep(copyOf('a'));
    expect(readable()).toEqual({ 3: 'a' });
    await client.destroy(session, path, [3], signal);
    await keep(copyOf('a'));
    expect(readable()).toEqual({ 4: 'a' });
    await client.deleteMetadata(session, path, signal);
    await keep(copyOf('a'));
    expect(readable()).toEqual({ 1: 'a' });
  });

  it.each([
    ['no mark', undefined],
    [
      'the mark of another identity',
      { ...key, uid: 'uid-2', 'managed-by': 'automation-guardrails' },
    ],
  ])('with %s is left alone', async (_, mark) => {
    const session = { token: fake.rootToken };
    if (mark !== undefined) await client.writeMetadata(session, path, mark, signal);
    await client.writeData(session, path, { password: 'theirs' }, 0, signal);
    expect(await failureOf(keep(copyOf('a')))).toBe('Foreign');
    expect(await store.withdraw([key], signal)).toMatchObject({
      withdrawn: [],
      remaining: [{ name: 'erp', error: { failure: 'Foreign' } }],
    });
    expect(readable()).toEqual({ 1: 'theirs' });
  });

  it('is kept out of the path of another identity by the vault itself', async () => {
    const other = { ...key, identity: 'payer', uid: 'uid-9' };
    await keep(copyOf('theirs', { key: other }));
    // Whose token it is decides, not what the operator asks for.
    store = new VaultStore({
      client,
      tokens: { issue: () => Promise.resolve(jwtOf('finance', 'poster')) },
      readOwnToken: () => Promise.reject(new Error('unused')),
      roles: { identity: 'automation-guardrails-identity', operator: 'automation-guardrails' },
      mount,
      pathPrefix: places.pathPrefix,
      clock: () => now,
      random: () => 0.5,
    });
    expect(await failureOf(keep(copyOf('a', { key: other })))).toBe('Refused');
    expect(readable('automation-guardrails/finance/payer/erp')).toEqual({ 1: 'theirs' });
  });

  it.each([
    { namespace: '..' },
    { namespace: 'finance/payer' },
    { identity: '../payer' },
    { identity: 'a..b' },
    { identity: '' },
    { name: 'erp/../../payer/erp' },
    { name: 'erp%2f..' },
    { name: '*' },
    { name: '+' },
  ])('has no path for %o', async (part) => {
    const odd = { ...key, ...part };
    await expect(keep(copyOf('a', { key: odd }))).rejects.toMatchObject({ failure: 'Refused' });
    expect(await store.withdraw([odd], signal)).toMatchObject({
      withdrawn: [],
      remaining: [{ error: { failure: 'Refused' } }],
    });
    expect(fake.requests.map((request) => request.path)).toEqual(['auth/kubernetes/login']);
  });
});

describe('a withdrawal', () => {
  it('ends all versions, and is nothing the second time', async () => {
    await keep(copyOf('a'));
    await keep(copyOf('b', { keepsPrevious: true }));
    expect(await store.withdraw([key], signal)).toMatchObject({
      withdrawn: ['erp'],
      remaining: [],
    });
    expect(fake.keys(mount)).toEqual([]);
    expect(await store.withdraw([key], signal)).toMatchObject({ withdrawn: [], remaining: [] });
  });

  it('asks nothing where there is nothing to withdraw', async () => {
    await store.withdraw([], signal);
    expect(fake.requests).toEqual([]);
  });

  it('says what is left, and where, and does not wait for a vault that was just away', async () => {
    await keep(copyOf('a'));
    fake.isSealed = true;
    expect(await failureOf(keep(copyOf('b')))).toBe('Unavailable');
    const { withdrawn, remaining } = await store.withdraw([key], signal);
    expect(withdrawn).toEqual([]);
    expect(remaining).toMatchObject([
      { name: 'erp', what: `Copy in vault secret/${path}`, error: { failure: 'Unavailable' } },
    ]);
    fake.isSealed = false;
    now += 10 * second;
    expect(await store.withdraw([key], signal)).toMatchObject({
      withdrawn: ['erp'],
      remaining: [],
    });
  });

  it('leaves a vault alone that did not answer, for all identities, longer each time', async () => {
    await keep(copyOf('a'));
    fake.isSealed = true;
    const before = fake.requests.length;
    const other = { ...key, identity: 'payer' };
    const said = new Set<string>();
    for (let elapsed = 0; elapsed < 10 * minute; elapsed += second) {
      for (const one of [key, other]) {
        const { remaining } = await store.withdraw([one], signal);
        expect(remaining).toMatchObject([{ name: 'erp', error: { failure: 'Unavailable' } }]);
        for (const { error } of remaining) said.add(error.message);
      }
      now += second;
    }
    expect(said.size).toBe(1);
    expect(fake.requests.length - before).toBeGreaterThan(10);
    expect(fake.requests.length - before, 'about once in 45 seconds').toBeLessThan(25);
    fake.isSealed = false;
    now += minute;
    expect(await store.withdraw([key], signal)).toMatchObject({ withdrawn: ['erp'] });
    fake.isSealed = true;
    expect(await store.withdraw([key], signal), 'at once after it answered').toMatchObject({
      wasAsked: true,
    });
  });

  it('holds up one kill at a time, at most, while the vault hangs', async () => {
    await waitShortly();
    fake.fault = () => ({ kind: 'hang' });
    expect(await store.withdraw([key], signal)).toMatchObject({ wasAsked: true });
    expect(await store.withdraw([key], signal)).toMatchObject({ wasAsked: false });
    now += 10 * second;
    const looks = Array.from({ length: 5 }, () => store.withdraw([key], signal));
    const answers = await Promise.all(looks);
    expect(answers.map(({ wasAsked }) => wasAsked)).toEqual([true, false, false, false, false]);
  });

  it('does not grow the pause by those that asked at one time', async () => {
    fake.isSealed = true;
    await Promise.all(Array.from({ length: 5 }, () => store.withdraw([key], signal)));
    now += 10 * second;
    expect(await store.withdraw([key], signal)).toMatchObject({ wasAsked: true });
  });

  it('touches nothing of which nobody knows whose it is, and says whether it is there', async () => {
    await keep(copyOf('a'));
    const orphan = { ...key, uid: '' };
    expect(await store.withdraw([orphan], signal)).toMatchObject({
      withdrawn: [],
      remaining: [
        {
          name: 'erp',
          error: {
            failure: 'Foreign',
            message: expect.stringContaining('identity was deleted') as unknown,
          },
        },
      ],
    });
    expect(readable()).toEqual({ 1: 'a' });
    await store.withdraw([key], signal);
    expect(await store.withdraw([orphan], signal)).toMatchObject({ withdrawn: [], remaining: [] });
  });
});

describe('a vault that fails', () => {
  const faults: [string, VaultFault, string][] = [
    ['is sealed', { kind: 'status', status: 503 }, 'Unavailable'],
    ['is overloaded', { kind: 'status', status: 429 }, 'Unavailable'],
    ['refuses', { kind: 'status', status: 403 }, 'Refused'],
    ['has done it and says 500', { kind: 'commit', status: 500 }, 'Unavailable'],
    ['has done it and breaks off', { kind: 'reset' }, 'Unavailable'],
    ['never answers', { kind: 'hang' }, 'Unavailable'],
    ['answers without an end', { kind: 'huge' }, 'Refused'],
    ['sends elsewhere', { kind: 'redirect', location: 'http://127.0.0.1:1/' }, 'Unavailable'],
  ];

  it.each(faults)(
    'and %s, at any request, ends with one version of each value',
    async (_, fault, failure) => {
      if (fault.kind === 'hang') await waitShortly();
      await keep(copyOf('a'));
      for (let at = 0; ; at++) {
        const before = fake.requests.length;
        const password = `b${at}`;
        fake.fault = () => (fake.requests.length === before + at + 1 ? fault : undefined);
        const copy = copyOf(password);
        const failed = await failureOf(keep(copy));
        fake.fault = () => undefined;
        const wasHit = fake.requests.length > before + at;
        if (wasHit) expect(failed).toBe(failure);
        now += 2 * minute;
        const standing = Object.values(readable());
        expect(standing.length, 'never without a version').toBeGreaterThan(0);
        await keep(copy);
        expect(Object.values(readable())).toEqual([password]);
        expect(fake.currentVersion(mount, path), 'no version twice').toBe(at + 2);
        if (!wasHit) break;
        expect(at).toBeLessThan(20);
      }
    },
  );

  it('is left alone, longer each time, with one word to say', async () => {
    fake.isSealed = true;
    const said = new Set<string>();
    let waits = 0;
    for (let elapsed = 0; elapsed < 10 * minute; elapsed += second) {
      const error: unknown = await keep(copyOf('a')).catch((reason: unknown) => reason);
      if (error instanceof SecretStoreError) said.add(error.message);
      expect(error).toMatchObject({ failure: 'Unavailable', status: 503 });
      waits++;
      now += second;
    }
    expect(waits).toBe(600);
    expect(said.size).toBe(1);
    expect(fake.requests.length, 'about once in 45 seconds').toBeLessThan(30);
    fake.isSealed = false;
    now += minute;
    expect(await keep(copyOf('a'))).toMatchObject({ isWritten: true });
  });

  it('refuses one identity without holding up the others', async () => {
    fake.fault = ({ path: where }) => (where.includes('/poster/') ? { kind: 'huge' } : undefined);
    expect(await failureOf(keep(copyOf('a')))).toBe('Refused');
    const other = { ...key, identity: 'payer' };
    expect(await keep(copyOf('a', { key: other }))).toMatchObject({ isWritten: true });
  });

  it('is not asked without end where somebody else writes over each version', async () => {
    let writes = 0;
    fake.fault = ({ method, path: where }) => {
      if (method === 'GET' && where === `${mount}/data/${path}`) {
        writes++;
        fake.put(mount, path, { password: `theirs-${writes}` });
      }
      return undefined;
    };
    expect(await failureOf(keep(copyOf('a')))).toBe('Refused');
    expect(writes).toBeLessThan(10);
  });
});

it('a vault is reached at its address alone', async () => {
  let elsewhere = 0;
  const other = new FakeVault();
  const location = `${await other.start()}/v1/stolen`;
  other.fault = () => {
    elsewhere++;
    return undefined;
  };
  fake.fault = () => ({ kind: 'redirect', location });
  expect(await failureOf(keep(copyOf('a')))).toBe('Unavailable');
  expect(elsewhere).toBe(0);
  await other.stop();
});

it('nothing that a vault says is repeated', async () => {
  fake.fault = () => ({ kind: 'status', status: 400 });
  const error: unknown = await keep(copyOf('a')).catch((reason: unknown) => reason);
  expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain('fault"');
});
