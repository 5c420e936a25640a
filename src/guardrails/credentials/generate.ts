import { defaultSecretLength, type GeneratedSecret } from '../../api/automation-identity.ts';

/** Source of cryptographically strong random bytes, as `crypto.randomBytes`. */
export type RandomBytes = (size: number) => Uint8Array;

/** The unreserved characters of RFC 3986: nothing to escape in a URL, a shell or a DSN. */
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~';

/**
 * A new value, each character of which is as likely as any other. 32 characters, the default, are
 * 193 bits in a password and 192 in a token, whose alphabet is base64url.
 *
 * @throws Error where the random source yields nothing usable
 */
export function generateValue(
  { type, length = defaultSecretLength }: GeneratedSecret,
  randomBytes: RandomBytes,
): string {
  return type === 'Password' ? password(length, randomBytes) : token(length, randomBytes);
}

function password(length: number, randomBytes: RandomBytes): string {
  // Bytes beyond the last whole multiple would make the first characters likelier.
  const limit = 256 - (256 % alphabet.length);
  let value = '';
  for (let round = 0; value.length < length; round++) {
    if (round === 100) throw new Error('the random source yields no usable bytes');
    for (const byte of randomBytes(length)) {
      if (byte < limit && value.length < length) value += alphabet.charAt(byte % alphabet.length);
    }
  }
  return value;
}

function token(length: number, randomBytes: RandomBytes): string {
  const bytes = randomBytes(Math.ceil((length * 6) / 8));
  return Buffer.from(bytes).toString('base64url').slice(0, length);
}
