import { annotation } from '../../api/names.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { keyOf, type KubeObject } from '../../api/objects.ts';
import type { Workload } from '../../api/workload.ts';
import type { JsonPatchOperation, KubeClient } from '../../runtime/client.ts';
import type { ReconcileContext } from '../../runtime/controller.ts';
import { ApiError, isNotFound, messageOf } from '../../runtime/errors.ts';
import { dropAnnotations, patchExactly, pointer } from '../../runtime/json-patch.ts';
import type { IndexedStore } from '../../runtime/merged-store.ts';
import { forEachBounded } from '../../runtime/parallel.ts';
import {
  isInScope,
  isOver,
  keptText,
  keptValue,
  pauseValueOf,
  storedValueOf,
  type ForeignKind,
  type Scope,
} from './foreign-kinds.ts';
import { disownOperations } from './pausing.ts';
import { covers, freezeNonce, nameOf as workloadName, runsUnder } from './plan.ts';

/** What became of the workloads of other projects' kinds at a stop. */
export interface ForeignStop {
  /** Those that are not over. */
  total: number;
  /** Kind and name of those that still run. */
  running: readonly string[];
  /** Why a kind could not be listed, one sentence each. */
  unlisted: readonly string[];
}

export interface ForeignRelease {
  /** Kind and name of those that still have to be put back. */
  waiting: readonly string[];
  notRestored: readonly { name: string; why: string }[];
  /** What the automation has of those kinds, as it stands. */
  objects: readonly KubeObject[];
}

/** What was found, and when. */
interface Look extends ForeignStop {
  uid: string | undefined;
  /** Milliseconds since the epoch. */
  at: number;
}

export interface ForeignWorkloadsOptions {
  client: KubeClient;
  kinds: readonly ForeignKind[];
  /** Indexed by `namespace` and `identity` (`namespace/serviceAccountName`). */
  workloads: IndexedStore<Workload>;
  /** Requests in flight at a time. */
  parallelism: number;
  /** Milliseconds since the epoch. */
  clock: () => number;
  /** Told kind and name of those that were stopped just now, and that no release puts back. */
  onEnded: (killSwitch: KillSwitch, names: readonly string[]) => void;
}

/** A little below the time between two looks at a settled kill, so that each looks at these too. */
const lookAgainMs = 50_000;

/**
 * What an automation has of other projects' kinds. They aren't watched, so they are looked at once
 * a minute, and at every turn where one still runs.
 */
export class ForeignWorkloads {
  readonly #options: ForeignWorkloadsOptions;
  /** By key, of engaged ones. */
  readonly #looks = new Map<string, Look>();

  constructor(options: ForeignWorkloadsOptions) {
    this.#options = options;
  }

  /**
   * Pauses them. No policy freezes them: pods are refused whatever they say, and this spares their
   * controllers the attempt. The value that stood there is kept by the same request that replaces
   * it.
   */
  async stop(
    killSwitch: KillSwitch,
    { signal, log }: Pick<ReconcileContext, 'signal' | 'log'>,
  ): Promise<ForeignStop> {
    const { client, clock, kinds, onEnded, parallelism } = this.#options;
    const key = keyOf(killSwitch);
    const { uid } = killSwitch.metadata;
    const last = this.#looks.get(key);
    const isFresh = last?.uid === uid && clock() - (last?.at ?? 0) < lookAgainMs;
    if (last !== undefined && isFresh && last.running.length === 0) return last;

    const { lists, failed } = await this.#listAll(killSwitch, kinds, signal, (kind) =>
      kind.labelSelector === undefined ? {} : { labelSelector: kind.labelSelector },
    );
    const members = membersOf(lists, this.#scopeOf(killSwitch)).filter(
      ({ kind, object }) => !isOver(kind, object),
    );
    const due = members.filter(({ kind, object }) => pauseValueOf(kind, object) !== kind.paused);
    const outcomes = await forEachBounded(due, parallelism, (member) =>
      pause(killSwitch, member, { client, signal }),
    );
    const paused = outcomes.filter((outcome) => 'result' in outcome && outcome.result);
    const found: ForeignStop = {
      total: members.length,
      running: outcomes
        .filter((outcome) => !paused.includes(outcome))
        .map(({ item }) => nameOf(item)),
      unlisted: failed.map(unlistedText),
    };
    this.#looks.set(key, { ...found, uid, at: clock() });
    if (failed.length > 0) {
      log.warn('Kinds of other projects could not be listed', { kinds: found.unlisted });
    }
    const ended = paused.filter(
      ({ item: { kind, object } }) => keptFor(kind, object) === undefined,
    );
    if (ended.length > 0) {
      onEnded(
        killSwitch,
        ended.map(({ item }) => nameOf(item)),
      );
    }
    return found;
  }

  /**
   * Puts back what this kill paused, one object in two writes: the value, by tests on everything
   * that it was planned for, and then, once the answer shows it, our annotations and our ownership
   * go. Nothing that stands at another value than the paused one is touched, except to clean it.
   *
   * @param engaged the other KillSwitches of the namespace that aren't being released
   * @throws ApiError for what a retry may cure
   */
  async release(
    killSwitch: KillSwitch,
    engaged: readonly KillSwitch[],
    signal: AbortSignal,
  ): Promise<ForeignRelease> {
    const { client, parallelism } = this.#options;
    const kinds = this.#options.kinds.filter(({ restorable }) => restorable);
    const { lists, failed } = await this.#listAll(killSwitch, kinds, signal, () => ({}));
    // The API server says no for good; whatever else happened may be over the next time.
    const passing = failed.find(
      ({ error }) => !(error instanceof ApiError && error.status === 403),
    );
    if (passing !== undefined) throw passing.error;
    const objects = membersOf(lists, this.#scopeOf(killSwitch));
    const isMember = new Set(objects.map(({ object }) => object));
    const others = engaged.map((other) => this.#scopeOf(other));
    const held = lists
      .flatMap(({ kind, items }) => items.map((object): Member => ({ kind, object })))
      .filter(({ kind, object }) => {
        const { annotations = {} } = object.metadata;
        const isOurs = annotations[annotation.touch] === freezeNonce(killSwitch);
        const isKept = annotations[annotation.restoreValue] !== undefined;
        return (
          (isOurs || (isKept && isMember.has(object))) &&
          !others.some((scope) => isInScope(kind, object, scope))
        );
      });
    const outcomes = await forEachBounded(held, parallelism, (member) =>
      restore(member, { client, signal }),
    );
    return {
      waiting: outcomes.flatMap((outcome) =>
        'error' in outcome || outcome.result === 'Waiting' ? [nameOf(outcome.item)] : [],
      ),
      notRestored: [
        ...failed.map((failure) => ({
          name: failure.kind.resource.kind,
          why: unlistedText(failure),
        })),
        ...outcomes.flatMap((outcome) =>
          'result' in outcome && typeof outcome.result === 'object'
            ? [{ name: nameOf(outcome.item), why: outcome.result.why }]
            : [],
        ),
      ],
      objects: objects.map(({ object }) => object),
    };
  }

  /** What was found of a KillSwitch (`namespace/name`) holds no more: it is released, or gone. */
  forget(key: string): void {
    this.#looks.delete(key);
  }

  #scopeOf(killSwitch: KillSwitch): Scope {
    const stopped = new Set(runsUnder(killSwitch, this.#options.workloads).map(workloadName));
    return {
      covers: (serviceAccountName) => covers(killSwitch, serviceAccountName),
      isStopped: (kind, name) => stopped.has(`${kind} ${name}`),
    };
  }

  /** A kind that isn't installed has nothing; another error of one kind doesn't keep the others. */
  async #listAll(
    { metadata: { namespace = '' } }: KillSwitch,
    kinds: readonly ForeignKind[],
    signal: AbortSignal,
    selector: (kind: ForeignKind) => { labelSelector?: string },
  ): Promise<{ lists: List[]; failed: Failure[] }> {
    const { client, parallelism } = this.#options;
    const outcomes = await forEachBounded(kinds, parallelism, async (kind) => {
      try {
        return await client.list(kind.resource, { namespace, signal, ...selector(kind) });
      } catch (error) {
        if (isNotFound(error)) return [];
        throw error;
      }
    });
    return {
      lists: outcomes.flatMap((outcome) =>
        'result' in outcome ? [{ kind: outcome.item, items: outcome.result }] : [],
      ),
      failed: outcomes.flatMap((outcome) =>
        'error' in outcome ? [{ kind: outcome.item, error: outcome.error }] : [],
      ),
    };
  }
}

/** Whether nothing runs any more, as far as every kind could be asked. */
export function isQuiet({ running, unlisted }: ForeignStop): boolean {
  return running.length === 0 && unlisted.length === 0;
}

interface Member {
  kind: ForeignKind;
  object: KubeObject;
}

interface List {
  kind: ForeignKind;
  items: readonly KubeObject[];
}

interface Requests {
  client: KubeClient;
  signal: AbortSignal;
}

interface Failure {
  kind: ForeignKind;
  error: unknown;
}

function unlistedText({ kind: { resource }, error }: Failure): string {
  return `${resource.plural}.${resource.group} could not be listed: ${messageOf(error).slice(0, 256)}`;
}

/** In the order of the table: what names another workload comes after what can be named. */
function membersOf(lists: readonly List[], scope: Scope): Member[] {
  const found = new Set<string>();
  const wider: Scope = {
    covers: (name) => scope.covers(name),
    isStopped: (kind, name) => found.has(`${kind} ${name}`) || scope.isStopped(kind, name),
  };
  return lists.flatMap(({ kind, items }) =>
    items.flatMap((object): Member[] => {
      if (!isInScope(kind, object, wider)) return [];
      found.add(`${kind.resource.kind} ${object.metadata.name}`);
      return [{ kind, object }];
    }),
  );
}

/** The text by which a release puts it back; `undefined` where none can. */
function keptFor(kind: ForeignKind, object: KubeObject): string | undefined {
  return kind.restorable ? keptText(storedValueOf(kind, object)) : undefined;
}

/** @returns whether the answer shows it paused */
async function pause(
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

type Restored = 'Restored' | 'Waiting' | { why: string };

async function restore({ kind, object }: Member, requests: Requests): Promise<Restored> {
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

function nameOf({ kind, object }: Member): string {
  return `${kind.resource.kind} ${object.metadata.name}`;
}
