import type { GeneratedSecret } from '../../api/automation-identity.ts';

/** Source of cryptographically strong random bytes, as `crypto.randomBytes`. */
export type RandomBytes = (size: number) => Uint8Array;

/** Characters of a password where the spec doesn't say. */
const defaultLength = 32;
/** Below this a password can be guessed; 16 of these characters are 96 bits. */
const minLength = 16;
const maxLength = 256;
/** Bytes in a token. */
const tokenBytes = 32;

/** The unreserved characters of RFC 3986: nothing to escape in a URL, a shell or a DSN. */
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~';

/**
 * A new value: a password, each character of which is as likely as any other, or a token of
 * 256 bits in base64url.
 *
 * @throws Error where the random source yields nothing usable
 */
export function generateValue({ type, length }: GeneratedSecret, randomBytes: RandomBytes): string {
  switch (type) {
    case 'Password':
      return password(length ?? defaultLength, randomBytes);
    case 'Token':
      return Buffer.from(randomBytes(tokenBytes)).toString('base64url');
  }
}

function password(length: number, randomBytes: RandomBytes): string {
  const wanted = Math.min(Math.max(length, minLength), maxLength);
  // Bytes beyond the last whole multiple would make the first characters likelier.
  const limit = 256 - (256 % alphabet.length);
  let value = '';
  for (let round = 0; value.length < wanted; round++) {
    if (round === 100) throw new Error('the random source yields no usable bytes');
    for (const byte of randomBytes(wanted)) {
      if (byte < limit && value.length < wanted) value += alphabet.charAt(byte % alphabet.length);
    }
  }
  return value;
}
