import { createHash } from 'node:crypto';

/**
 * Digest of a part of an object, as the API server gave it: hexadecimal SHA-256 of
 * {@link canonical}, so that two values have the same one when they say the same. Total.
 */
export function digestOf(value: unknown): string {
  return createHash('sha256').update(canonical(value)).digest('hex');
}

/** JSON without spaces, the fields of every object in the order of their names (by code unit). */
export function canonical(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  // By a loop: this is most of what it costs to cache a workload.
  const fields: Readonly<Record<string, unknown>> = { ...value };
  let text = '';
  for (const name of Object.keys(fields).toSorted()) {
    const field = fields[name];
    if (field === undefined) continue;
    text += `${text === '' ? '' : ','}${JSON.stringify(name)}:${canonical(field)}`;
  }
  return `{${text}}`;
}
