import { tokenMarks } from '../api/token-marks.ts';

/** What stands in place of a value that must not be seen. */
export const redacted = '[redacted]';

/** Compared in lower case, without `-`, `_` and `.`. */
const sensitiveKeys = new Set([
  'authorization',
  'proxyauthorization',
  'cookie',
  'setcookie',
  'data',
  'stringdata',
  'binarydata',
  'clientkey',
  'clientkeydata',
  'clientcertificatedata',
]);
const sensitiveEndings = /(?:token|password|passwd|passphrase|privatekey|apikey|credentials?)$/;

const bearer = /\b(bearer|basic)\s+[\w.~+/=-]{8,}/gi;
const jsonWebToken = /\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?/g;
const generatedToken = new RegExp(`(?:${Object.values(tokenMarks).join('|')})[\\w-]{8,}`, 'g');
const privateKey = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*-----|$)/g;
const userInfo = /\b([a-z][a-z0-9+.-]{0,20}:\/\/)[^\s/@]{1,512}@/gi;

const maxDepth = 8;
const maxEntries = 100;
const maxLength = 8_192;

/** Whether a field of that name may hold a secret. */
export function isSensitiveKey(key: string): boolean {
  const plain = key.toLowerCase().replace(/[-_.]/g, '');
  return sensitiveKeys.has(plain) || sensitiveEndings.test(plain);
}

/** The text without what has the shape of a credential, and of bounded length. Total. */
export function redactText(text: string): string {
  const clean = text
    .slice(0, 2 * maxLength)
    .replace(privateKey, redacted)
    .replace(bearer, `$1 ${redacted}`)
    .replace(jsonWebToken, redacted)
    .replace(generatedToken, redacted)
    .replace(userInfo, `$1${redacted}@`);
  if (text.length <= maxLength) return clean;
  return `${clean.slice(0, maxLength)}… (${text.length} characters)`;
}

/**
 * A copy that may be logged: plain JSON, bounded in depth and length, without the values of
 * sensitive keys. Errors become name, code, message and stack. Total: what can't be read is
 * replaced by a word that says so.
 *
 * A second line of defence. The first is that nobody hands a secret to the log.
 */
export function redact(value: unknown): unknown {
  return copy(value, 0, []);
}

function copy(value: unknown, depth: number, ancestors: readonly object[]): unknown {
  switch (typeof value) {
    case 'string':
      return redactText(value);
    case 'number':
      return Number.isFinite(value) ? value : String(value);
    case 'bigint':
    case 'symbol':
      return String(value);
    case 'function':
      return '[function]';
    case 'boolean':
    case 'undefined':
      return value;
    case 'object':
      break;
  }
  if (value === null) return null;
  if (ancestors.includes(value)) return '[circular]';
  if (depth >= maxDepth) return '[too deep]';
  try {
    return copyObject(value, depth + 1, [...ancestors, value]);
  } catch {
    return '[unreadable]';
  }
}

function copyObject(value: object, depth: number, ancestors: readonly object[]): unknown {
  if (value instanceof Error) return copyError(value, depth, ancestors);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof URL) return redactText(value.href);
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return '[binary]';
  if (value instanceof Map) return copy(Object.fromEntries(value), depth, ancestors);
  if (value instanceof Set) return copy([...value], depth, ancestors);
  if (Array.isArray(value)) {
    const items = value.slice(0, maxEntries).map((item) => copy(item, depth, ancestors));
    return value.length > maxEntries ? [...items, `… (${value.length} items)`] : items;
  }
  const entries = Object.entries(value);
  const copied = entries
    .slice(0, maxEntries)
    .map(([key, item]) => [key, isSensitiveKey(key) ? redacted : copy(item, depth, ancestors)]);
  if (entries.length > maxEntries) copied.push(['…', `${entries.length} fields`]);
  return Object.fromEntries(copied);
}

/**
 * Nothing of an error but the fields that are known: libraries hang requests and responses on
 * theirs, with headers and bodies.
 */
function copyError(error: Error, depth: number, ancestors: readonly object[]): unknown {
  const { name, message, stack, cause } = error;
  const errors: unknown = Reflect.get(error, 'errors');
  return {
    name,
    ...scalar(error, 'code'),
    ...scalar(error, 'status'),
    ...scalar(error, 'reason'),
    message: redactText(message),
    // What the API server answered is no defect of this program: its place in the code says nothing.
    ...(typeof stack === 'string' && !isAnswer(error) && { stack: redactText(stack) }),
    ...(cause !== undefined && { cause: copyCause(cause, depth, ancestors) }),
    ...(Array.isArray(errors) && {
      errors: errors.slice(0, 10).map((item) => copyCause(item, depth, ancestors)),
    }),
  };
}

/** A cause that isn't an error may be anything, a response too: then only its type is told. */
function copyCause(cause: unknown, depth: number, ancestors: readonly object[]): unknown {
  if (cause instanceof Error || typeof cause === 'string') return copy(cause, depth, ancestors);
  return `[${typeof cause}]`;
}

function scalar(error: Error, key: string): object {
  const value: unknown = Reflect.get(error, key);
  if (typeof value === 'number') return { [key]: value };
  return typeof value === 'string' && value !== '' ? { [key]: redactText(value) } : {};
}

function isAnswer(error: Error): boolean {
  return 'code' in error && typeof error.code === 'string' && error.code.startsWith('KUBE_API_');
}
