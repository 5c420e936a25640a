import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { GeneratedSecret } from '../../api/automation-identity.ts';
import { credentialFormats } from '../../api/credential-formats.ts';
import { tiers } from '../../api/guardrail-policy.ts';
import { tokenMarks } from '../../api/token-marks.ts';
import { generateValue } from './generate.ts';
import { seededBytes } from './random.testing.ts';

function generate(parts: Partial<GeneratedSecret>, source = seededBytes()): Record<string, string> {
  const credential = { name: 'erp', type: 'Password', ...parts } as const;
  return generateValue(credential, source, 'aid.poster.erp', 'test');
}

const countOf = (text: string, characters: RegExp): number => text.match(characters)?.length ?? 0;

describe('generateValue', () => {
  it.each([
    ['Password', 'password'],
    ['Token', 'token'],
  ] as const)('makes a %s of 32 characters, or as long as asked', (type, key) => {
    expect(generate({ type }, randomBytes)[key]).toHaveLength(32);
    for (const length of [16, 17, 43, 256]) {
      expect(generate({ type, length }, randomBytes)[key]).toHaveLength(length);
    }
  });

  it.each([
    ['Password', 'password', /^[A-Za-z0-9._~-]+$/],
    ['Token', 'token', /^[A-Za-z0-9_-]+$/],
  ] as const)('makes a %s of characters that need no escaping', (type, key, characters) => {
    for (let round = 0; round < 50; round++) {
      expect(generate({ type }, randomBytes)[key]).toMatch(characters);
    }
  });

  it.each([
    ['Password', 'password', 66],
    ['Token', 'token', 64],
  ] as const)('uses every character of a %s equally often', (type, key, size) => {
    const source = seededBytes();
    const counts = new Map<string, number>();
    for (let round = 0; round < 1000; round++) {
      for (const character of (generate({ type, length: 256 }, source)[key] ?? '').replace(
        tokenMarks.test,
        '',
      )) {
        counts.set(character, (counts.get(character) ?? 0) + 1);
      }
    }
    expect(counts.size).toBe(size);
    const frequencies = [...counts.values()];
    // Taking the remainder of a byte alone would make it 4 to 3.
    expect(Math.max(...frequencies) / Math.min(...frequencies)).toBeLessThan(1.2);
  });

  it.each(tiers)('marks a token of %s as such, where enough characters are left', (tier) => {
    const generated = (length?: number): string =>
      generateValue(
        { name: 'erp', type: 'Token', ...(length !== undefined && { length }) },
        seededBytes(),
        'aid.poster.erp',
        tier,
      )['token'] ?? '';
    const isKnown = credentialFormats.map(({ pattern }) => new RegExp(`^(${pattern})`));
    for (const token of [generated(), generated(32), generated(256)]) {
      expect(token.startsWith(tokenMarks[tier])).toBe(true);
      expect(isKnown.some((format) => format.test(token))).toBe(true);
    }
    expect(generated(31)).toMatch(/^[\w-]{31}$/);
    expect(generated(31)).not.toContain(tokenMarks[tier]);
  });

  it('ends when the random source is broken', () => {
    const stuck = (size: number): Uint8Array => new Uint8Array(size).fill(255);
    expect(() => generate({}, stuck)).toThrow('random source');
  });

  it('puts the username beside a password', () => {
    const { password, ...rest } = generate({ type: 'BasicAuth', username: 'svc-erp' });
    expect(rest).toEqual({ username: 'svc-erp' });
    expect(password).toHaveLength(32);
  });
});

describe('the policy of a password', () => {
  it('is fulfilled, whatever it asks for, with no character but its own', () => {
    const least = fc.integer({ min: 0, max: 8 });
    const policies = fc.record({
      length: fc.integer({ min: 32, max: 64 }),
      lowercase: least,
      uppercase: least,
      digits: least,
      symbols: least,
      symbolSet: fc.constantFrom(undefined, '!', '#%', '!!??'),
    });
    const source = seededBytes();
    fc.assert(
      fc.property(policies, ({ length, symbolSet, ...counts }) => {
        const characters = { ...counts, ...(symbolSet !== undefined && { symbolSet }) };
        const { password = '' } = generate({ length, characters }, source);
        expect(password).toHaveLength(length);
        const symbols = password.match(/[^A-Za-z0-9]/g) ?? [];
        expect(symbols.length).toBeGreaterThanOrEqual(counts.symbols);
        for (const symbol of symbols) expect(symbolSet ?? '-._~').toContain(symbol);
        expect(countOf(password, /[a-z]/g)).toBeGreaterThanOrEqual(counts.lowercase);
        expect(countOf(password, /[A-Z]/g)).toBeGreaterThanOrEqual(counts.uppercase);
        expect(countOf(password, /[0-9]/g)).toBeGreaterThanOrEqual(counts.digits);
      }),
      { numRuns: 200 },
    );
  });

  it('can ask for one class alone, or for none of the symbols', () => {
    expect(generate({ length: 16, characters: { digits: 16 } })['password']).toMatch(/^\d{16}$/);
    expect(generate({ length: 256, characters: { symbolSet: '' } })['password']).toMatch(
      /^[A-Za-z0-9]{256}$/,
    );
  });

  it('makes none of the passwords that fulfil it likelier than another', () => {
    // Of 16 digits and symbols at least 15 digits: 16 · 10¹⁵ · 1 with a symbol, 10¹⁶ without.
    const source = seededBytes();
    const places = new Map<number, number>();
    const rounds = 4000;
    for (let round = 0; round < rounds; round++) {
      const { password = '' } = generate(
        { length: 16, characters: { digits: 15, symbols: 1, symbolSet: '!' } },
        source,
      );
      const place = password.indexOf('!');
      places.set(place, (places.get(place) ?? 0) + 1);
    }
    expect(places.has(-1)).toBe(false);
    for (let place = 0; place < 16; place++) {
      expect(places.get(place)).toBeGreaterThan((rounds / 16) * 0.75);
      expect(places.get(place)).toBeLessThan((rounds / 16) * 1.25);
    }
  });

  it('draws how many there are of a class by how many passwords have so many', () => {
    const source = seededBytes();
    const rounds = 3000;
    let digits = 0;
    for (let round = 0; round < rounds; round++) {
      const { password = '' } = generate(
        { length: 16, characters: { digits: 1, symbolSet: '' } },
        source,
      );
      digits += countOf(password, /[0-9]/g);
    }
    // As many as chance gives to 16 characters of 62, where there is one at least.
    const each = 10 / 62;
    const expected = (16 * each) / (1 - (1 - each) ** 16);
    expect(digits / rounds).toBeGreaterThan(expected - 0.1);
    expect(digits / rounds).toBeLessThan(expected + 0.1);
  });
});

describe('an SSH key pair', () => {
  /** The length-prefixed fields of the format (RFC 4251, section 5). */
  function fieldsOf(bytes: Buffer, count: number): { fields: Buffer[]; rest: Buffer } {
    const fields: Buffer[] = [];
    let offset = 0;
    for (let index = 0; index < count; index++) {
      const size = bytes.readUInt32BE(offset);
      fields.push(bytes.subarray(offset + 4, offset + 4 + size));
      offset += 4 + size;
    }
    return { fields, rest: bytes.subarray(offset) };
  }

  it('has the public part that ssh-keygen finds in the private one', () => {
    const zeros = (size: number): Uint8Array => new Uint8Array(size);
    // Printed by `ssh-keygen -y` (OpenSSH 9) for the private key.
    expect(generate({ type: 'SSHKeyPair' }, zeros)['ssh-publickey']).toBe(
      'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop aid.poster.erp\n',
    );
  });

  it('has a private and a public part that belong together, in the format of OpenSSH', () => {
    const pair = generate({ type: 'SSHKeyPair' });
    const [kind, encoded = '', comment] = pair['ssh-publickey']?.trimEnd().split(' ') ?? [];
    expect([kind, comment]).toEqual(['ssh-ed25519', 'aid.poster.erp']);
    const publicBlob = Buffer.from(encoded, 'base64');

    const pem = pair['ssh-privatekey'] ?? '';
    expect(pem).toMatch(
      /^-----BEGIN OPENSSH PRIVATE KEY-----\n([A-Za-z0-9+/=]{1,70}\n)+-----END OPENSSH PRIVATE KEY-----\n$/,
    );
    const body = Buffer.from(pem.replaceAll(/-----.*-----|\n/g, ''), 'base64');
    const magic = 'openssh-key-v1\0';
    expect(body.subarray(0, magic.length).toString()).toBe(magic);
    const { fields, rest } = fieldsOf(body.subarray(magic.length), 3);
    expect(fields.map(String)).toEqual(['none', 'none', '']);
    expect(rest.readUInt32BE(0)).toBe(1);
    const { fields: parts, rest: nothing } = fieldsOf(rest.subarray(4), 2);
    expect(nothing).toHaveLength(0);
    expect(parts[0]?.equals(publicBlob)).toBe(true);

    const secret = parts[1] ?? Buffer.alloc(0);
    expect(secret.length % 8).toBe(0);
    expect(secret.readUInt32BE(0)).toBe(secret.readUInt32BE(4));
    const { fields: key, rest: padding } = fieldsOf(secret.subarray(8), 4);
    expect([...padding]).toEqual([...padding].map((_, index) => index + 1));
    expect([String(key[0]), String(key[3])]).toEqual(['ssh-ed25519', 'aid.poster.erp']);
    const seed = key[2]?.subarray(0, 32) ?? Buffer.alloc(0);
    const node = createPublicKey(
      createPrivateKey({
        key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]),
        format: 'der',
        type: 'pkcs8',
      }),
    );
    const expected = node.export({ format: 'der', type: 'spki' }).subarray(-32);
    expect(key[1]?.equals(expected)).toBe(true);
    expect(key[2]?.subarray(32).equals(expected)).toBe(true);
    expect(publicBlob.subarray(-32).equals(expected)).toBe(true);
  });

  it('is another one each time', () => {
    const source = seededBytes();
    const keys = [1, 2, 3].map(() => generate({ type: 'SSHKeyPair' }, source)['ssh-privatekey']);
    expect(new Set(keys).size).toBe(3);
  });
});
