import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ApiError } from '../runtime/errors.ts';
import { isSensitiveKey, redact, redacted, redactText } from './redact.ts';

const canary = 'c4n4ry-value-of-a-secret';

describe('isSensitiveKey', () => {
  it.each([
    'token',
    'Token',
    'accessToken',
    'access_token',
    'id-token',
    'password',
    'previous.password',
    'Authorization',
    'Proxy-Authorization',
    'data',
    'stringData',
    'client-key-data',
    'clientKeyData',
    'privateKey',
    'api_key',
    'credentials',
    'Set-Cookie',
  ])('%s is', (key) => {
    expect(isSensitiveKey(key)).toBe(true);
  });

  it.each(['secret', 'secretName', 'name', 'metadata', 'tokens', 'key', 'reason', 'database'])(
    '%s is not',
    (key) => {
      expect(isSensitiveKey(key)).toBe(false);
    },
  );
});

describe('redactText', () => {
  it.each([
    [`Authorization: Bearer ${canary}`, `Authorization: Bearer ${redacted}`],
    [`basic ${canary}==, then`, `basic ${redacted}, then`],
    ['eyJhbGciOiJSUzI1.eyJpc3MiOiJrdWJl.c2lnbmF0dXJl is it', `${redacted} is it`],
    [`it sent agprod_${canary}, twice`, `it sent ${redacted}, twice`],
    [`https://user:${canary}@host/path`, `https://${redacted}@host/path`],
    [`-----BEGIN RSA PRIVATE KEY-----\n${canary}\n-----END RSA PRIVATE KEY-----`, redacted],
    ['the bearer of bad news', 'the bearer of bad news'],
    ['mail to a@b.example', 'mail to a@b.example'],
  ])('%j becomes %j', (text, expected) => {
    expect(redactText(text)).toBe(expected);
  });

  it('bounds the length, and cuts no credential in half', () => {
    const text = redactText(
      `${'x'.repeat(8_170)} https://user:${canary}@host ${'y'.repeat(9_000)}`,
    );

    expect(text.length).toBeLessThan(8_300);
    expect(text).toContain(' characters)');
    expect(text).not.toContain(canary.slice(0, 4));
  });
});

describe('redact', () => {
  it('keeps what may be seen', () => {
    const value = { a: 1, b: 'x', c: [true, null], d: { e: 'f' }, secret: 'db.password' };

    expect(redact(value)).toEqual(value);
  });

  it('replaces the values of sensitive keys at any depth', () => {
    const value = { list: [{ token: canary, deep: { stringData: { password: canary } } }] };

    expect(redact(value)).toEqual({
      list: [{ token: redacted, deep: { stringData: redacted } }],
    });
  });

  it('makes name, code, message and stack of an error, and nothing else', () => {
    const error = Object.assign(new TypeError('bad'), {
      code: 'ERR_BAD',
      response: { body: canary },
      body: canary,
      headers: { authorization: canary },
    });

    expect(redact({ error })).toEqual({
      error: { name: 'TypeError', code: 'ERR_BAD', message: 'bad', stack: error.stack },
    });
  });

  it('tells status and reason of an answer of the API server', () => {
    const error = new ApiError('denied', { status: 403, reason: 'Forbidden' });

    expect(redact(error)).toMatchObject({
      name: 'ApiError',
      code: 'KUBE_API_ERROR',
      status: 403,
      reason: 'Forbidden',
      message: 'denied',
    });
  });

  it('follows causes and the errors of an AggregateError, but only errors', () => {
    const cause = new Error('inner', { cause: { body: canary } });
    const error = new AggregateError([new Error('one'), { body: canary }], 'many', { cause });

    expect(redact(error)).toMatchObject({
      message: 'many',
      errors: [{ message: 'one' }, '[object]'],
      cause: { message: 'inner', cause: '[object]' },
    });
  });

  it('ends on cycles, depth and size', () => {
    const cycle: Record<string, unknown> = {};
    cycle['self'] = cycle;
    const error: Error & { cause?: unknown } = new Error('loop');
    error.cause = error;
    const deep: unknown = JSON.parse(`${'{"a":'.repeat(50)}1${'}'.repeat(50)}`);

    expect(redact(cycle)).toEqual({ self: '[circular]' });
    expect(redact(error)).toMatchObject({ cause: '[circular]' });
    expect(JSON.stringify(redact(deep))).toContain('[too deep]');
    expect(redact(Array.from({ length: 1_000 }, (_, i) => i))).toHaveLength(101);
    expect(
      Object.keys(
        Object(redact(Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`k${i}`, i])))),
      ),
    ).toHaveLength(101);
  });

  it('survives what cannot be read', () => {
    const value = {
      get broken(): string {
        throw new Error('no');
      },
    };

    expect(redact({ value, after: 1 })).toEqual({ value: '[unreadable]', after: 1 });
  });

  it('shows no bytes', () => {
    expect(redact({ a: Buffer.from(canary), b: new Uint8Array(4) })).toEqual({
      a: '[binary]',
      b: '[binary]',
    });
  });

  it('makes JSON of anything', () => {
    fc.assert(
      fc.property(
        fc.anything({
          withBigInt: true,
          withDate: true,
          withMap: true,
          withSet: true,
          withTypedArray: true,
          withSparseArray: true,
          withNullPrototype: true,
        }),
        (value) => {
          expect(() => JSON.stringify({ value: redact(value) })).not.toThrow();
        },
      ),
    );
  });

  it('lets no value under a sensitive key through, wherever it stands', () => {
    const leaf = fc.constantFrom('token', 'password', 'data', 'authorization').map((key) => ({
      [key]: canary,
    }));
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 6 },
        leaf,
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(fc.string(), tie('tree'), { maxKeys: 3 }),
        fc.string().map((text) => new Error(text, { cause: { token: canary } })),
      ),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        expect(JSON.stringify(redact({ value }))).not.toContain(canary);
      }),
    );
  });
});
