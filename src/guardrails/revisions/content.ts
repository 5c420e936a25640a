import { knownFormatOf } from '../../api/credential-formats.ts';
import { canonical } from '../../api/digest.ts';
import { maxContent } from '../../api/workflow-revision.ts';
import { isSensitiveKey, redacted as mark, redactText } from '../../observability/redact.ts';

/** What is recorded of a spec or a pod template. */
export interface Content {
  /** JSON; `undefined` where it is too long. */
  text: string | undefined;
  /** Fields that were left out of it. */
  redacted: readonly string[];
}

/** Of what stands in one place. A script may be longer; then it is kept by its digest alone. */
const maxText = 8_192;

/** No spec of Kubernetes is as deep; what is deeper isn't followed. */
const maxDepth = 64;

/** Fields that are named at most. */
const maxNamed = 16;

/**
 * What may be recorded of an object: JSON without values that have the form of a credential, by
 * their own form or by the name that they stand under (a field, a variable of the environment, a
 * flag of a command line). Total; linear in the size of the object.
 */
export function contentOf(value: unknown): Content {
  const left: string[] = [];
  const text = canonical(copy(value, { path: '', left, depth: 0 }));
  const redacted = left.length > maxNamed ? [...left.slice(0, maxNamed - 1), '…'] : left;
  return text.length > maxContent
    ? { text: undefined, redacted: [] }
    : { text, redacted: redacted.map((path) => path.slice(0, 256)) };
}

interface Place {
  path: string;
  /** Paths of what was left out so far. */
  left: string[];
  depth: number;
}

function copy(value: unknown, place: Place): unknown {
  if (typeof value === 'string') return textOf(value, place);
  if (typeof value !== 'object' || value === null) return value;
  if (place.depth >= maxDepth) return leaveOut(place);
  if (Array.isArray(value)) return listOf(value, place);
  const fields: Readonly<Record<string, unknown>> = { ...value };
  const variable = fields['name'];
  return Object.fromEntries(
    Object.entries(fields).map(([key, field]) => {
      const at = inside(place, place.path === '' ? key : `.${key}`);
      const isNamed = key === 'value' && typeof variable === 'string' && isSecret(variable);
      const isHidden = isValue(field) && (isNamed || isSecret(key));
      return [key, isHidden ? leaveOut(at) : copy(field, at)];
    }),
  );
}

/** Of a command line, the value of a flag may stand behind it. */
function listOf(items: readonly unknown[], place: Place): unknown[] {
  return items.map((item, index) => {
    const at = inside(place, `[${index}]`);
    if (typeof item !== 'string') return copy(item, at);
    const before = items[index - 1];
    const flag = /^--?([\w.-]+)$/.exec(typeof before === 'string' ? before : '')?.[1];
    if (flag !== undefined && isSecret(flag) && isValue(item)) return leaveOut(at);
    const [, name = '', assigned = ''] = /^-{0,2}([\w.-]+)=(.*)$/s.exec(item) ?? [];
    return isValue(assigned) && isSecret(name) ? leaveOut(at) : textOf(item, at);
  });
}

function textOf(text: string, place: Place): unknown {
  if (text.length > maxText) return leaveOut(place, `[${text.length} characters]`);
  const isClean = redactText(text) === text && knownFormatOf(text) === undefined;
  return isClean ? text : leaveOut(place);
}

function leaveOut({ path, left }: Place, instead = mark): string {
  // Enough to say that there are more.
  if (left.length <= maxNamed) left.push(path.replace(/^\./, ''));
  return instead;
}

function inside({ path, left, depth }: Place, step: string): Place {
  return { path: path + step, left, depth: depth + 1 };
}

/** Kubernetes puts the value of a variable in its place: `$(NAME)` is none. */
function isValue(field: unknown): boolean {
  return typeof field === 'string' && field !== '' && !/^\$\(\w+\)$/.test(field);
}

/** Whether what is called so may be a secret. */
function isSecret(name: string): boolean {
  return isSensitiveKey(name) || secretEndings.test(name.toLowerCase().replace(/[-_.]/g, ''));
}

const secretEndings =
  /(?:secret|secretkey|accesskey|signingkey|encryptionkey|sharedkey|connectionstring|pwd|dsn)$/;
