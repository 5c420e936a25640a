import { annotation } from '../../api/names.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { keyOf, type KubeObject } from '../../api/objects.ts';
import type { Workload } from '../../api/workload.ts';
import type { KubeClient } from '../../runtime/client.ts';
import type { ReconcileContext } from '../../runtime/controller.ts';
import { ApiError, isNotFound, messageOf } from '../../runtime/errors.ts';
import type { IndexedStore } from '../../runtime/merged-store.ts';
import { forEachBounded } from '../../runtime/parallel.ts';
import { isInScope, isOver, pauseValueOf, type ForeignKind, type Scope } from './foreign-kinds.ts';
import { keptFor, pause, restore, type Member } from './foreign-pausing.ts';
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
   * controllers the attempt.
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
   * Puts back what this kill paused and no other one holds.
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

interface List {
  kind: ForeignKind;
  items: readonly KubeObject[];
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
      const member = { kind, object };
      found.add(nameOf(member));
      return [member];
    }),
  );
}

function nameOf({ kind, object }: Member): string {
  return `${kind.resource.kind} ${object.metadata.name}`;
}
