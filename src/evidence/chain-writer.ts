import {
  maxCarried,
  maxRecords,
  segmentName,
  type EvidenceSegment,
} from '../api/evidence-segment.ts';
import { annotation, label, MANAGED_BY } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import type { JsonPatchOperation, KubeClient } from '../runtime/client.ts';
import { digestOf } from '../api/digest.ts';
import type { Action } from './actions.ts';
import { signHead, type SignedHead, type SigningKey } from './head.ts';
import { applyRecord, carriedFrom, type ChainState, type PendingRecord } from './observation.ts';
import { link, noHash, readRecord, type ChainEnd, type Entry, type RecordDraft } from './record.ts';
import { expiredSubject } from './verify.ts';

/** A chain can't be written: its namespace is gone or going. */
export class ChainUnavailableError extends Error {
  readonly code = 'EVIDENCE_CHAIN_UNAVAILABLE';
  override readonly name = 'ChainUnavailableError';
}

/** How much is kept. */
export interface ChainLimits {
  /** Of the records in one segment; bytes. */
  segmentBytes: number;
  /** Segments of one chain. */
  segments: number;
  /** After which a sealed segment goes; milliseconds. */
  retentionMs: number;
  /** Whether a segment stays until it was marked as exported, whatever the other limits say. */
  requireExport: boolean;
}

export interface ChainWriterOptions {
  client: KubeClient;
  namespace: string;
  name: string;
  signingKey: () => Promise<SigningKey>;
  limits: ChainLimits;
  /** Milliseconds since the epoch. */
  clock: () => number;
  /** Told of what stands in the API by now. */
  onCommitted?: (committed: Committed) => void;
}

/** What was written with one request. */
export interface Committed {
  /** `namespace/name`. */
  chain: string;
  incarnation: string;
  entries: readonly Entry[];
  head: SignedHead;
}

/** The chain as it was last read or written. */
interface Known {
  incarnation: string;
  /** `undefined` where the next record begins a segment. */
  open: { index: number; resourceVersion: string; bytes: number; count: number } | undefined;
  nextIndex: number;
  end: ChainEnd;
  state: ChainState;
}

/** Of one entry in a segment, beside the text of its record. */
const entryOverhead = 160;

/**
 * The end of one chain. Each write names the version that it was made for, and each record has its
 * sequence in a list that admits each once, so a write is done once or not at all, whoever else
 * writes. On any doubt the end is read again, and a state that stands there already isn't written
 * twice; what came and went within the write in doubt may be.
 *
 * Not for concurrent use: one commit at a time.
 */
export class ChainWriter {
  readonly #options: ChainWriterOptions;
  readonly #chain: string;
  #known: Known | undefined;

  constructor(options: ChainWriterOptions) {
    this.#options = options;
    this.#chain = `${options.namespace}/${options.name}`;
  }

  /**
   * Asks what is to be recorded, given what is recorded, and writes it.
   *
   * @param plan may be asked again after a failure; changes the state that it is given
   * @returns how many records were written
   * @throws ApiError where the API server refuses or somebody else wrote: try again
   */
  async commit(
    plan: (state: ChainState) => Promise<readonly PendingRecord[]>,
    signal: AbortSignal,
  ): Promise<number> {
    try {
      const known = (this.#known ??= await this.#read(signal));
      const state = new Map(known.state);
      const records = await plan(state);
      if (records.length === 0) {
        // What doesn't stand any more is forgotten without a record.
        known.state = state;
        return 0;
      }
      // What the plan forgot without a record stays forgotten.
      const forgotten = [...known.state.keys()].filter((subject) => !state.has(subject));
      const hasRolled = await this.#write(known, records, signal);
      for (const subject of forgotten) known.state.delete(subject);
      if (hasRolled && known.nextIndex > 2) await this.#expire(known, signal);
      return records.length;
    } catch (error) {
      // It may have been written all the same.
      this.#known = undefined;
      throw error;
    }
  }

  /** Lets go what the limits say, if the chain has anything. */
  async expire(signal: AbortSignal): Promise<void> {
    try {
      const known = (this.#known ??= await this.#read(signal));
      // The end of a chain never goes.
      if (known.nextIndex > 2) await this.#expire(known, signal);
    } catch (error) {
      this.#known = undefined;
      throw error;
    }
  }

  async #read(signal: AbortSignal): Promise<Known> {
    const { client, namespace, name } = this.#options;
    const list = (selector: string): Promise<EvidenceSegment[]> =>
      client.list(resources.evidenceSegments, {
        namespace,
        labelSelector: `${label.chain}=${name}${selector}`,
        signal,
      });
    const open = newestOf(await list(`,!${label.sealed}`));
    const newest = open ?? newestOf(await list(''));
    if (newest === undefined) {
      const home = await client.get(resources.namespaces, { name: namespace }, { signal });
      const { uid, deletionTimestamp } = home?.metadata ?? {};
      if (uid === undefined || deletionTimestamp !== undefined) {
        throw new ChainUnavailableError(`namespace ${namespace} is gone, or going`);
      }
      const end = { sequence: 0, hash: noHash };
      return { incarnation: uid, open: undefined, nextIndex: 1, end, state: new Map() };
    }
    const { metadata, spec } = newest;
    const { incarnation, index, sealed } = spec;
    const records = spec.records.toSorted((a, b) => a.sequence - b.sequence);
    const { sequence, hash } = records.at(-1) ?? spec.head;
    const state: ChainState = new Map(
      spec.carried.map((carried) => [carried.subject, carried.state]),
    );
    for (const { record } of records) {
      // What somebody forged is for the verifier to find; what is true is recorded behind it.
      const read = readRecord(record);
      if (read !== undefined) applyRecord(state, read);
    }
    return {
      incarnation,
      open: sealed
        ? undefined
        : {
            index,
            resourceVersion: metadata.resourceVersion ?? '',
            bytes: records.reduce((sum, entry) => sum + sizeOf(entry), 0),
            count: records.length,
          },
      nextIndex: index + 1,
      end: { sequence, hash },
      state,
    };
  }

  /** @returns whether a segment began */
  async #write(
    known: Known,
    records: readonly PendingRecord[],
    signal: AbortSignal,
  ): Promise<boolean> {
    let hasRolled = false;
    let rest = records;
    while (rest.length > 0) {
      if (known.open === undefined) {
        rest = await this.#begin(known, rest, signal);
        hasRolled = true;
        continue;
      }
      const { entries, left } = this.#fitting(known, rest, known.open);
      if (entries.length === 0) await this.#seal(known, known.open, signal);
      else await this.#append(known, known.open, entries, signal);
      for (const record of rest.slice(0, rest.length - left.length))
        applyRecord(known.state, record);
      rest = left;
    }
    return hasRolled;
  }

  /** As many records as the segment has room for, in their chain. */
  #fitting(
    known: Known,
    records: readonly PendingRecord[],
    room: { bytes: number; count: number },
  ): { entries: Entry[]; left: readonly PendingRecord[] } {
    const { segmentBytes } = this.#options.limits;
    const entries: Entry[] = [];
    let { end } = known;
    let { bytes } = room;
    for (const record of records) {
      const entry = this.#link(end, record);
      bytes += sizeOf(entry);
      if (bytes > segmentBytes || room.count + entries.length >= maxRecords) break;
      entries.push(entry);
      end = entry;
    }
    return { entries, left: records.slice(entries.length) };
  }

  #link(end: ChainEnd, { draft, ...place }: PendingRecord): Entry {
    const time = new Date(this.#options.clock()).toISOString();
    return link(end, { ...draft, ...place, chain: this.#chain, time });
  }

  async #append(
    known: Known,
    open: NonNullable<Known['open']>,
    entries: readonly Entry[],
    signal: AbortSignal,
  ): Promise<void> {
    const head = await this.#sign(known, entries);
    const written = await this.#patch(
      open,
      [
        ...entries.map((value) => ({ op: 'add' as const, path: '/spec/records/-', value })),
        { op: 'replace', path: '/spec/head', value: head },
        // Whose field each record is, is a third of what the API server does for an append: it
        // starts anew. Only the operator writes here.
        { op: 'add', path: '/metadata/managedFields', value: [{}] },
      ],
      signal,
    );
    open.resourceVersion = written.metadata.resourceVersion ?? '';
    open.bytes += entries.reduce((sum, entry) => sum + sizeOf(entry), 0);
    open.count += entries.length;
    this.#committed(known, entries, head);
  }

  async #seal(known: Known, open: NonNullable<Known['open']>, signal: AbortSignal): Promise<void> {
    const path = `/metadata/labels/${label.sealed.replace('/', '~1')}`;
    await this.#patch(
      open,
      [
        { op: 'replace', path: '/spec/sealed', value: true },
        { op: 'add', path, value: 'true' },
      ],
      signal,
    );
    known.open = undefined;
  }

  /** @returns what didn't fit */
  async #begin(
    known: Known,
    records: readonly PendingRecord[],
    signal: AbortSignal,
  ): Promise<readonly PendingRecord[]> {
    const { client, namespace, name } = this.#options;
    const index = known.nextIndex;
    // What doesn't fit is told again rather than lost.
    const carried = carriedFrom(known.state).slice(-maxCarried);
    const { sequence, hash } = known.end;
    const begun = this.#link(known.end, { draft: beginning(index, digestOf(carried)) });
    const { entries, left } = this.#fitting({ ...known, end: begun }, records, {
      bytes: sizeOf(begun) + carried.length * 64,
      count: 1,
    });
    const all = [begun, ...entries];
    const head = await this.#sign(known, all);
    const segment: EvidenceSegment = {
      metadata: {
        name: segmentName(name, index),
        namespace,
        labels: { [label.chain]: name, 'app.kubernetes.io/part-of': MANAGED_BY },
      },
      spec: {
        chain: name,
        incarnation: known.incarnation,
        index,
        first: sequence + 1,
        previous: hash,
        carried,
        records: all,
        head,
        sealed: false,
      },
    };
    const created = await client.create(resources.evidenceSegments, segment, {
      metadataOnly: true,
      signal,
    });
    known.open = {
      index,
      resourceVersion: created.metadata.resourceVersion ?? '',
      bytes: all.reduce((sum, entry) => sum + sizeOf(entry), 0),
      count: all.length,
    };
    known.nextIndex = index + 1;
    for (const record of records.slice(0, entries.length)) applyRecord(known.state, record);
    this.#committed(known, all, head);
    return left;
  }

  async #sign(known: Known, entries: readonly Entry[]): Promise<SignedHead> {
    const end = entries.at(-1) ?? known.end;
    const time = new Date(this.#options.clock()).toISOString();
    const name = { chain: this.#chain, incarnation: known.incarnation };
    return signHead(name, end, time, await this.#options.signingKey());
  }

  #committed(known: Known, entries: readonly Entry[], head: SignedHead): void {
    known.end = { sequence: head.sequence, hash: head.hash };
    const { incarnation } = known;
    this.#options.onCommitted?.({ chain: this.#chain, incarnation, entries, head });
  }

  /** On exactly the version that is known. @returns its metadata @throws ApiError 409 where it changed */
  async #patch(
    { index, resourceVersion }: NonNullable<Known['open']>,
    operations: JsonPatchOperation[],
    signal: AbortSignal,
  ): Promise<Pick<EvidenceSegment, 'metadata'>> {
    const { client, namespace, name } = this.#options;
    return await client.jsonPatch(
      resources.evidenceSegments,
      { namespace, name: segmentName(name, index) },
      [{ op: 'replace', path: '/metadata/resourceVersion', value: resourceVersion }, ...operations],
      // What stands there we know.
      { metadataOnly: true, signal },
    );
  }

  /** What goes is recorded first: a gap that a record explains is none. */
  async #expire(known: Known, signal: AbortSignal): Promise<void> {
    const { client, namespace, name, clock } = this.#options;
    const all = await client.list(resources.evidenceSegments, {
      namespace,
      labelSelector: `${label.chain}=${name}`,
      signal,
    });
    const expired = expirable(all, this.#options.limits, clock());
    const last = expired.at(-1)?.spec.head.sequence;
    const before = known.state.get(expiredSubject);
    if (last !== undefined && last > Number(before ?? 0)) {
      const record: PendingRecord = {
        draft: expiry(expired.length, last),
        subject: expiredSubject,
        after: String(last),
        ...(before !== undefined && { before }),
      };
      await this.#write(known, [record], signal);
    }
    const through = Number(known.state.get(expiredSubject) ?? 0);
    for (const { metadata, spec } of all) {
      if (!spec.sealed || spec.head.sequence > through) continue;
      const { uid = '' } = metadata;
      await client.delete(
        resources.evidenceSegments,
        { namespace, name: metadata.name },
        { uid, signal },
      );
    }
  }
}

/** Segments that go now: sealed ones, from the oldest on. */
export function expirable(
  segments: readonly EvidenceSegment[],
  { segments: most, retentionMs, requireExport }: ChainLimits,
  now: number,
): EvidenceSegment[] {
  const ordered = segments.toSorted((a, b) => a.spec.index - b.spec.index);
  const keep = ordered.findIndex(({ metadata, spec }, position) => {
    const isSurplus = ordered.length - position > most;
    const isOld = Date.parse(spec.head.time) + retentionMs < now;
    const isExported = metadata.annotations?.[annotation.exported] === spec.head.hash;
    return !spec.sealed || !(isSurplus || isOld) || (requireExport && !isExported);
  });
  return ordered.slice(0, keep < 0 ? ordered.length : keep);
}

function newestOf(segments: readonly EvidenceSegment[]): EvidenceSegment | undefined {
  return segments.toSorted((a, b) => b.spec.index - a.spec.index)[0];
}

function sizeOf({ record }: Entry): number {
  return Buffer.byteLength(record) + entryOverhead;
}

const operator = { name: MANAGED_BY, basis: 'operator' } as const;

function beginning(index: number, carried: string): RecordDraft {
  return {
    action: (index === 1 ? 'ChainBegun' : 'SegmentBegun') satisfies Action,
    outcome: 'Succeeded',
    actor: operator,
    details: { segment: String(index), carried },
  };
}

function expiry(count: number, through: number): RecordDraft {
  return {
    action: 'SegmentsExpired' satisfies Action,
    outcome: 'Intended',
    actor: operator,
    message: `${count} segments, with the records up to ${through}, are let go.`,
  };
}
