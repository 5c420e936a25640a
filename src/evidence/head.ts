import { createPublicKey, sign, verify, type KeyObject } from 'node:crypto';
import type { EvidenceSegmentSpec } from '../api/evidence-segment.ts';
import { canonicalJson, sha256 } from './canonical.ts';
import type { ChainEnd } from './record.ts';

/** The end of a chain, signed. */
export type SignedHead = EvidenceSegmentSpec['head'];

/** Which chain a head is of. */
export interface ChainName {
  /** `namespace/name`. */
  chain: string;
  /** UID of the namespace in which it began. */
  incarnation: string;
}

/** A private key, with its public half in 32 bytes, Base64. */
export interface SigningKey {
  privateKey: KeyObject;
  publicKey: string;
}

/** DER of an Ed25519 public key, before its 32 bytes (RFC 8410). */
const publicPrefix = Buffer.from('302a300506032b6570032100', 'hex');

/** The 32 bytes of an Ed25519 key's public half, Base64. */
export function publicKeyOf(key: KeyObject): string {
  const half = key.type === 'private' ? createPublicKey(key) : key;
  return half
    .export({ format: 'der', type: 'spki' })
    .subarray(publicPrefix.length)
    .toString('base64');
}

/** What people compare: the first 16 hexadecimal digits of the public key's SHA-256. */
export function fingerprintOf(publicKey: string): string {
  return sha256(Buffer.from(publicKey, 'base64')).slice(0, 16);
}

/** @param time RFC 3339 */
export function signHead(
  name: ChainName,
  { sequence, hash }: ChainEnd,
  time: string,
  { privateKey, publicKey }: SigningKey,
): SignedHead {
  const signature = sign(undefined, signedBytes(name, { sequence, hash, time }), privateKey);
  return { sequence, hash, time, key: publicKey, signature: signature.toString('base64') };
}

/** Whether the signature is the key's own. Whose the key is, is another question. */
export function isSigned(name: ChainName, head: SignedHead): boolean {
  const raw = bytesOf(head.key, 32);
  const signature = bytesOf(head.signature, 64);
  if (raw === undefined || signature === undefined) return false;
  const key = createPublicKey({
    key: Buffer.concat([publicPrefix, raw]),
    format: 'der',
    type: 'spki',
  });
  return verify(undefined, signedBytes(name, head), key, signature);
}

/** @returns `undefined` for other than these bytes in their one Base64 form */
function bytesOf(text: string, length: number): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === length && bytes.toString('base64') === text ? bytes : undefined;
}

function signedBytes(
  { chain, incarnation }: ChainName,
  { sequence, hash, time }: Pick<SignedHead, 'sequence' | 'hash' | 'time'>,
): Buffer {
  const purpose = 'automationguardrails.dev/evidence-head/v1';
  return Buffer.from(canonicalJson({ purpose, chain, incarnation, sequence, hash, time }));
}
