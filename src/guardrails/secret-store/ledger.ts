import { setTimeout as delay } from 'node:timers/promises';
import { canonical, digestOf } from '../../api/digest.ts';
import { label } from '../../api/names.ts';
import type { ConfigMap, ObjectMeta } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { Logger } from '../../observability/logger.ts';
import { aborted } from '../../runtime/aborted.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../../runtime/errors.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import type { CopyKey } from './store.ts';

/** A copy that is in a store, or may be. */
export interface LedgerEntry {
  key: CopyKey;
  /** Where the copy is, as the store said it. */
  place: string;
}

export interface CopyLedgerOptions {
  /** Writes only while this process leads. */
  client: Pick<KubeClient, 'get' | 'list' | 'create' | 'mergePatch'>;
  /** The operator's. */
  namespace: string;
  logger: Pick<Logger, 'info' | 'warn'>;
}

/** ConfigMaps that share the entries: one takes 1 MiB, some 3,000 of them. */
const shards = 64;
const prefix = 'vault-copies-';
/** Tries of one write that somebody else's came before. */
const maxTries = 4;
/** ConfigMaps that are read at a time, for a kill. */
const parallelism = 8;
/** After a failure to read what is written down. */
const retryMs = 10_000;

/**
 * What was copied to a store, written down before a copy is made and until its end is certain: it
 * outlives the identity that a copy belongs to, and the process that made it. In ConfigMaps of the
 * operator's namespace; never a value. Of one writer, the leader: what it wrote or read in its term
 * is what stands.
 */
export class CopyLedger {
  readonly #options: CopyLedgerOptions;
  #shards: Promise<readonly Shard[]> | undefined;
  /** The same, once it is read. */
  #read: readonly Shard[] = [];

  constructor(options: CopyLedgerOptions) {
    this.#options = options;
  }

  /** What is written down, as far as it is read: nothing on a replica that doesn't lead. */
  *list(): Iterable<LedgerEntry> {
    for (const { entries } of this.#read) yield* entries.values();
  }

  /**
   * What is written down of the identities of one name, whatever their UID.
   *
   * @param identity `namespace/name`
   */
  entriesOf(identity: string): LedgerEntry[] {
    const shard = this.#read[shardOf(identity)];
    return [...(shard?.entries.values() ?? [])].filter(({ key }) => ownerOf(key) === identity);
  }

  /**
   * Reads what is written down, at the beginning of a term, and forgets it at its end. Never rejects.
   *
   * @param onRead called when it is read
   */
  async run(signal: AbortSignal, onRead: () => void): Promise<void> {
    this.#forget();
    while (!signal.aborted) {
      try {
        await this.#load();
        onRead();
        break;
      } catch (error) {
        this.#options.logger.warn('Records of copies could not be read', { error });
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
      }
    }
    await aborted(signal);
    this.#forget();
  }

  /**
   * Writes down that there may be a copy. Known already, it does nothing.
   *
   * @throws ApiError where it isn't written down for certain: then no copy may be made
   */
  async record(entry: LedgerEntry): Promise<void> {
    const shard = await this.#shardOf(entry.key);
    if (!shard.has(entry)) await shard.change(entry, 'record');
  }

  /**
   * Takes an entry away: there is no such copy any more. Gone already, it does nothing.
   *
   * @throws ApiError
   */
  async strike(entry: LedgerEntry): Promise<void> {
    const shard = await this.#shardOf(entry.key);
    if (shard.mayHave(entry)) await shard.change(entry, 'strike');
  }

  /**
   * Reads again what is written down of one identity: an administrator may have taken it out.
   *
   * @param identity `namespace/name`
   * @throws ApiError
   */
  async reread(identity: string): Promise<LedgerEntry[]> {
    const all = await this.#load();
    await all[shardOf(identity)]?.reread();
    return this.entriesOf(identity);
  }

  async #shardOf(key: CopyKey): Promise<Shard> {
    const all = await this.#load();
    const shard = all[shardOf(ownerOf(key))];
    if (shard === undefined) throw new RangeError('a digest has no shard');
    return shard;
  }

  async #load(): Promise<readonly Shard[]> {
    const { client, namespace } = this.#options;
    const loading = (this.#shards ??= client
      .list(resources.configMaps, { namespace, labelSelector: `${label.copies}=${value}` })
      .then((found) => {
        const byName = new Map(found.map((one) => [one.metadata.name, one]));
        return Array.from({ length: shards }, (_, index) => {
          const name = `${prefix}${index}`;
          return new Shard(this.#options, name, byName.get(name));
        });
      }));
    try {
      const loaded = await loading;
      if (this.#shards === loading) this.#read = loaded;
      return loaded;
    } catch (error) {
      if (this.#shards === loading) this.#shards = undefined;
      throw error;
    }
  }

  #forget(): void {
    this.#shards = undefined;
    this.#read = [];
  }
}

/**
 * One ConfigMap. Its writes come one after another, each on the version that was seen; what waits
 * meanwhile goes with the next.
 */
class Shard {
  entries: ReadonlyMap<string, LedgerEntry> = new Map();
  readonly #options: CopyLedgerOptions;
  readonly #name: string;
  /** `undefined` where there is no such ConfigMap. */
  #resourceVersion: string | undefined;
  /** An answer was lost: what stands isn't known. */
  #isUnsure = false;
  #waiting = new Map<string, LedgerEntry | undefined>();
  #current: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(options: CopyLedgerOptions, name: string, live: ConfigMap | undefined) {
    this.#options = options;
    this.#name = name;
    this.#take(live);
  }

  has(entry: LedgerEntry): boolean {
    return !this.#isUnsure && this.entries.has(idOf(entry));
  }

  mayHave(entry: LedgerEntry): boolean {
    return this.#isUnsure || this.entries.has(idOf(entry));
  }

  /** @throws ApiError where it isn't certain that it is done */
  async change(entry: LedgerEntry, action: 'record' | 'strike'): Promise<void> {
    this.#waiting.set(idOf(entry), action === 'record' ? entry : undefined);
    await (this.#next ??= this.#writeNext());
  }

  /** @throws ApiError */
  async reread(): Promise<void> {
    this.#isUnsure = true;
    await (this.#next ??= this.#writeNext());
  }

  async #get(): Promise<void> {
    const { client, namespace } = this.#options;
    this.#take(await client.get(resources.configMaps, { namespace, name: this.#name }));
  }

  async #writeNext(): Promise<void> {
    await this.#current.catch(() => undefined);
    this.#current = this.#next ?? Promise.resolve();
    this.#next = undefined;
    const changes = this.#waiting;
    this.#waiting = new Map();
    for (let tries = 1; ; tries++) {
      try {
        if (this.#isUnsure) await this.#get();
        if (changes.size > 0) this.#take(await this.#write(changes));
        return;
      } catch (error) {
        this.#isUnsure = true;
        const isOvertaken = isConflict(error) || isAlreadyExists(error) || isNotFound(error);
        if (!isOvertaken || tries === maxTries) throw error;
      }
    }
  }

  async #write(changes: ReadonlyMap<string, LedgerEntry | undefined>): Promise<ConfigMap> {
    const { client, namespace } = this.#options;
    const { configMaps } = resources;
    const name = this.#name;
    const data = [...changes].map(([id, entry]): [string, string | null] => [
      id,
      entry === undefined ? null : textOf(entry),
    ]);
    const labels = { [label.copies]: value };
    if (this.#resourceVersion === undefined) {
      const recorded = data.filter((item): item is [string, string] => item[1] !== null);
      const metadata: ObjectMeta = { name, namespace, labels };
      return await client.create(configMaps, { metadata, data: Object.fromEntries(recorded) });
    }
    const metadata = { resourceVersion: this.#resourceVersion, labels };
    const patch = { metadata, data: Object.fromEntries(data) };
    return await client.mergePatch(configMaps, { namespace, name }, patch);
  }

  #take(live: ConfigMap | undefined): void {
    this.#resourceVersion = live?.metadata.resourceVersion;
    this.#isUnsure = false;
    this.entries = new Map(entriesIn(live).map((entry) => [idOf(entry), entry] as const));
  }
}

const value = 'recorded';

/**
 * Reads what is written down of some identities, as any replica may, and remembers nothing of it.
 *
 * @param identities `namespace/name` of each
 * @throws ApiError
 */
export async function readLedger(
  identities: ReadonlySet<string>,
  { client, namespace }: { client: Pick<KubeClient, 'get'>; namespace: string },
  signal: AbortSignal,
): Promise<LedgerEntry[]> {
  const numbers = [...new Set([...identities].map(shardOf))];
  const outcomes = await forEachBounded(numbers, parallelism, (number) =>
    client.get(resources.configMaps, { namespace, name: `${prefix}${number}` }, { signal }),
  );
  assertAllDone(outcomes, 'read records of copies');
  return outcomes
    .flatMap((outcome) => ('result' in outcome ? entriesIn(outcome.result) : []))
    .filter(({ key }) => identities.has(ownerOf(key)));
}

/** @returns `namespace/name` of the AutomationIdentity that a copy belongs to */
export function ownerOf({ namespace, identity }: CopyKey): string {
  return `${namespace}/${identity}`;
}

/** @param identity `namespace/name` */
function shardOf(identity: string): number {
  return Number.parseInt(digestOf(identity).slice(0, 4), 16) % shards;
}

/** Key in the ConfigMap: of one credential there is a copy in each place that it ever had. */
function idOf({ key, place }: LedgerEntry): string {
  return `${key.uid}.${key.name}.${digestOf(place).slice(0, 8)}`;
}

function textOf({ key, place }: LedgerEntry): string {
  return canonical({ ...key, place });
}

function entriesIn(live: ConfigMap | undefined): LedgerEntry[] {
  return Object.values(live?.data ?? {}).flatMap((text) => entryIn(text) ?? []);
}

/** @returns `undefined` for what is no entry: it is left as it is */
function entryIn(text: string): LedgerEntry | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof parsed !== 'object' || parsed === null) return undefined;
  const { namespace, identity, uid, name, place }: Partial<Record<string, unknown>> = {
    ...parsed,
  };
  if (
    typeof namespace !== 'string' ||
    typeof identity !== 'string' ||
    typeof uid !== 'string' ||
    typeof name !== 'string' ||
    typeof place !== 'string'
  ) {
    return undefined;
  }
  return { key: { namespace, identity, uid, name }, place };
}
