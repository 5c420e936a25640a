import { annotation } from '../../api/names.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { KubeObject } from '../../api/objects.ts';
import type { JsonPatchOperation, KubeClient } from '../../runtime/client.ts';
import { dropAnnotations, patchExactly, pointer } from '../../runtime/json-patch.ts';
import {
  keptText,
  keptValue,
  pauseValueOf,
  storedValueOf,
  type ForeignKind,
} from './foreign-kinds.ts';
import { disownOperations } from './pausing.ts';
import { freezeNonce } from './plan.ts';

/** An object, and how its kind is paused. */
export interface Member {
  kind: ForeignKind;
  object: KubeObject;
}

interface Requests {
  client: KubeClient;
  signal: AbortSignal;
}

/** The text by which a release puts it back; `undefined` where none can. */
export function keptFor(kind: ForeignKind, object: KubeObject): string | undefined {
  return kind.restorable ? keptText(storedValueOf(kind, object)) : undefined;
}

/**
 * Pauses one object; the value that stood there is kept by the same request that replaces it.
 *
 * @returns whether the answer shows it paused
 */
export async function pause(
  killSwitch: KillSwitch,
  { kind, object }: Member,
  { client, signal }: Requests,
): Promise<boolean> {
  const kept = keptFor(kind, object);
  const annotations =
    kept === undefined
      ? {}
      : { [annotation.touch]: freezeNonce(killSwitch), [annotation.restoreValue]: kept };
  const { namespace = '', name, uid } = object.metadata;
  const patch = merged(
    { metadata: { uid, annotations } },
    kind.path.reduceRight<unknown>((inner, field) => ({ [field]: inner }), kind.paused),
  );
  const stored = await client.mergePatch(kind.resource, { namespace, name }, patch, { signal });
  const isPaused = pauseValueOf(kind, stored) === kind.paused;
  // Who owns the field would conflict with the next apply of its owner.
  if (isPaused) await finish({ kind, object: stored }, [], { client, signal });
  return isPaused;
}

/** Two trees of objects in one. */
function merged(a: object, b: unknown): object {
  if (typeof b !== 'object' || b === null) return a;
  const result: Record<string, unknown> = { ...a };
  for (const [key, value] of Object.entries(b)) {
    const before = result[key];
    const isTree = typeof before === 'object' && before !== null;
    result[key] = isTree ? merged(before, value) : value;
  }
  return result;
}

/** What became of one object; `why` it can't be put back. */
export type Restored = 'Restored' | 'Waiting' | { why: string };

/**
 * Puts one object back, in two writes: the value, by tests on everything that it was planned for,
 * and then, once the answer shows it, our annotations and our ownership go. What stands at another
 * value than the paused one is only cleaned.
 */
export async function restore({ kind, object }: Member, requests: Requests): Promise<Restored> {
  const { client, signal } = requests;
  const text = object.metadata.annotations?.[annotation.restoreValue];
  let stored = object;
  if (text !== undefined && pauseValueOf(kind, object) === kind.paused) {
    const value = keptValue(text);
    if (value === undefined) {
      return { why: `${annotation.restoreValue} isn't a value that was kept` };
    }
    const path = pointer(...kind.path);
    const kept = pointer('metadata', 'annotations', annotation.restoreValue);
    const operations: JsonPatchOperation[] = [
      { op: 'test', path: kept, value: text },
      { op: 'test', path, value: kind.paused },
      value === null ? { op: 'remove', path } : { op: 'replace', path, value },
    ];
    const written = await patchExactly(client, kind.resource, object, operations, signal);
    if (written === undefined || storedValueOf(kind, written) !== value) return 'Waiting';
    stored = written;
  }
  const isDone = await finish({ kind, object: stored }, keptMarks, requests);
  return isDone ? 'Restored' : 'Waiting';
}

const keptMarks = [annotation.restoreValue, annotation.touch] as const;

const maxTries = 5;

/**
 * The last write of a step: gives up what our requests own of an object, together with annotations
 * that are done with. It is decided on exactly what is stored, so it is tried again when that changes.
 *
 * @returns whether it is done, or needless
 */
async function finish(
  { kind, object }: Member,
  annotations: readonly string[],
  { client, signal }: Requests,
): Promise<boolean> {
  const { namespace = '', name, uid } = object.metadata;
  let live: KubeObject | undefined = object;
  for (let tries = 0; tries < maxTries; tries++) {
    if (live === undefined || live.metadata.uid !== uid) return true;
    const further = [...dropAnnotations(live, annotations), ...disownOperations(live)];
    if (further.length === 0) return true;
    const { resourceVersion } = live.metadata;
    const test: JsonPatchOperation = {
      op: 'test',
      path: '/metadata/resourceVersion',
      value: resourceVersion,
    };
    const operations = [test, ...further];
    const written = await patchExactly(client, kind.resource, live, operations, signal);
    if (written !== undefined) return true;
    live = await client.get(kind.resource, { namespace, name }, { signal });
  }
  return false;
}
