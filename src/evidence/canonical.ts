import { createHash } from 'node:crypto';

/** What JSON can say, and a canonical form exists of. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json | undefined };

/** A value has no canonical form: a number that isn't finite, or half of a surrogate pair. */
export class CanonicalError extends Error {
  readonly code = 'NOT_CANONICAL';
  override readonly name = 'CanonicalError';
}

/**
 * JSON in the one form that RFC 8785 gives it: keys sorted by UTF-16 code units, no white space,
 * numbers and strings as ECMAScript writes them. Fields that are `undefined` are left out.
 *
 * @throws CanonicalError for what has no such form
 */
export function canonicalJson(value: Json): string {
  if (typeof value === 'number' && !Number.isFinite(value)) {
    throw new CanonicalError('a number is not finite');
  }
  if (typeof value === 'string') return textOf(value);
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (isList(value)) return `[${value.map(canonicalJson).join(',')}]`;
  const fields = Object.entries(value).flatMap(([key, item]) =>
    item === undefined ? [] : [[key, item] as const],
  );
  // The default order of strings is that of their code units, as the RFC has it.
  const sorted = fields.toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${sorted.map(([key, item]) => `${textOf(key)}:${canonicalJson(item)}`).join(',')}}`;
}

function textOf(value: string): string {
  if (!value.isWellFormed()) throw new CanonicalError('a text has half of a surrogate pair');
  return JSON.stringify(value);
}

function isList(value: object): value is readonly Json[] {
  return Array.isArray(value);
}

/** SHA-256 in lower-case hexadecimal. */
export function sha256(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}
