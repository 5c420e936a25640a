import { createPrivateKey, createPublicKey } from 'node:crypto';
import type { RandomBytes } from './generate.ts';

/** Both parts of a key, as `ssh-keygen -t ed25519` writes them to its two files. */
export interface SshKeyPair {
  privateKey: string;
  /** One line, as in `authorized_keys`. */
  publicKey: string;
}

const algorithm = 'ssh-ed25519';
const seedBytes = 32;
/** DER of a PKCS #8 key of Ed25519, up to its seed (RFC 8410, section 7). */
const pkcs8Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
/** DER of the public key up to its 32 bytes (RFC 8410, section 4). */
const spkiPrefixBytes = 12;
/** Of the private part, encrypted or not (PROTOCOL.key of OpenSSH). */
const blockBytes = 8;

/**
 * A new Ed25519 key pair without a passphrase, in the formats of OpenSSH (PROTOCOL.key, RFC 8709).
 *
 * @param comment one line
 */
export function sshKeyPair(randomBytes: RandomBytes, comment: string): SshKeyPair {
  const seed = Buffer.from(randomBytes(seedBytes));
  const key = createPrivateKey({
    key: Buffer.concat([pkcs8Prefix, seed]),
    format: 'der',
    type: 'pkcs8',
  });
  const publicBytes = createPublicKey(key)
    .export({ format: 'der', type: 'spki' })
    .subarray(spkiPrefixBytes);
  const publicBlob = Buffer.concat([field(algorithm), field(publicBytes)]);

  // The same number twice: who decrypts sees by it that the passphrase was right.
  const check = Buffer.from(randomBytes(4));
  const fields = [
    check,
    check,
    publicBlob,
    field(Buffer.concat([seed, publicBytes])),
    field(comment),
  ];
  const size = fields.reduce((total, { length }) => total + length, 0);
  const padding = Uint8Array.from(
    { length: (blockBytes - (size % blockBytes)) % blockBytes },
    (_, index) => index + 1,
  );
  const whole = Buffer.concat([
    Buffer.from('openssh-key-v1\0'),
    field('none'),
    field('none'),
    field(''),
    number(1),
    field(publicBlob),
    field(Buffer.concat([...fields, padding])),
  ]);
  const lines = whole.toString('base64').match(/.{1,70}/g) ?? [];
  return {
    privateKey: `${['-----BEGIN OPENSSH PRIVATE KEY-----', ...lines, '-----END OPENSSH PRIVATE KEY-----'].join('\n')}\n`,
    publicKey: `${algorithm} ${publicBlob.toString('base64')} ${comment}\n`,
  };
}

function field(content: string | Uint8Array): Buffer {
  const bytes = Buffer.from(content);
  return Buffer.concat([number(bytes.length), bytes]);
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
