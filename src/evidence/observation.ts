import type { RecordDraft } from './record.ts';

/** What is known of one subject: its state now, and what to record where that is new. */
export interface Fact {
  /** Stable within the chain. */
  subject: string;
  /** A digest, a time, or a word. */
  state: string;
  /**
   * Asked only where the state is new: it may look something up.
   *
   * @param before what the chain says of the subject
   * @returns `undefined`: nothing is recorded, and the chain goes on saying what it said
   */
  draft: (before: string | undefined) => RecordDraft | undefined | Promise<RecordDraft | undefined>;
  /**
   * Counted with others of the same key in one record instead of getting one of its own.
   * RFC 3339: the hour in which it happened.
   */
  foldInto?: string;
}

/** What was seen of the world at one moment: levels, so that the last one is enough. */
export interface Observation {
  facts: readonly Fact[];
  /**
   * Beginning of the subjects that this speaks of completely: those of which it says nothing don't
   * stand any more. Absent: it speaks of its facts alone.
   */
  scope?: string;
  /**
   * Only subjects of which the chain says nothing are told: who looks at an older version than
   * another writer must not take back what that one told.
   */
  onlyNew?: boolean;
  /** What to record of a subject that doesn't stand any more; `undefined`: nothing. */
  gone?: (subject: string, state: ReadonlyMap<string, string>) => RecordDraft | undefined;
}

/** A record that isn't in the chain yet. */
export interface PendingRecord {
  draft: RecordDraft;
  subject?: string;
  before?: string;
  after?: string;
  subjects?: readonly string[];
}

/** What the chain says of each subject, by its last record. */
export type ChainState = Map<string, string>;

/** Makes the state what it is after a record. */
export function applyRecord(
  state: ChainState,
  { subject, after, subjects }: Pick<PendingRecord, 'subject' | 'after' | 'subjects'>,
): void {
  for (const counted of subjects ?? []) state.set(counted, after ?? '');
  if (subject === undefined || subjects !== undefined) return;
  if (after === undefined) state.delete(subject);
  else state.set(subject, after);
}

/** Successes of one hour that wait for their record. */
export interface Fold {
  /** By subject: its state, and what would be recorded of it alone. */
  facts: Map<string, Fact>;
  /** When the first came; milliseconds since the epoch. */
  since: number;
}

/** Facts that one folded record counts at most. */
export const maxFolded = 64;

/**
 * The records by which the chain catches up with what was seen, in order. What the chain says
 * already gives none, so a repeat after a crash changes nothing.
 *
 * @param state of the chain; changed as the records will
 * @param folds of the chain, by hour; what is counted is added
 * @param now milliseconds since the epoch
 */
export async function pendingRecords(
  state: ChainState,
  observations: readonly Observation[],
  folds: Map<string, Fold>,
  now: number,
): Promise<PendingRecord[]> {
  const records: PendingRecord[] = [];
  const add = (record: PendingRecord): void => {
    applyRecord(state, record);
    records.push(record);
  };
  for (const { facts, scope, gone, onlyNew = false } of observations) {
    for (const fact of facts) {
      const { subject, state: after } = fact;
      const before = state.get(subject);
      if (before === after || (onlyNew && before !== undefined)) continue;
      if (fact.foldInto !== undefined) {
        // A subject that is counted once stays counted, whatever else is learned of it.
        if (before === undefined && !isSettled(state, after))
          addTo(folds, fact.foldInto, fact, now);
        continue;
      }
      if (before === undefined && subject.startsWith(runScope) && isSettled(state, after)) continue;
      const draft = await fact.draft(before);
      if (draft === undefined) continue;
      add({ draft, subject, after, ...(before !== undefined && { before }) });
    }
    if (scope === undefined) continue;
    const standing = new Set(facts.map(({ subject }) => subject));
    for (const [subject, before] of state) {
      if (!subject.startsWith(scope) || standing.has(subject)) continue;
      const draft = gone?.(subject, state);
      if (draft === undefined) state.delete(subject);
      else add({ draft, subject, before });
    }
  }
  return records;
}

/** Subjects that are runs: they end once, so their state is the time of that. */
export const runScope = 'run/';
/** Subject whose state is a time: runs that ended by then are in the log. */
export const settledRuns = 'runs-settled';

function isSettled(state: ChainState, ended: string): boolean {
  const settled = state.get(settledRuns);
  return settled !== undefined && ended <= settled;
}

function addTo(folds: Map<string, Fold>, hour: string, fact: Fact, now: number): void {
  const fold = folds.get(hour) ?? { facts: new Map<string, Fact>(), since: now };
  fold.facts.set(fact.subject, fact);
  folds.set(hour, fold);
}

/**
 * The folded records that are due: those of an hour that is over, of so many facts that a record
 * is full, or that have waited long enough for a crash not to take them.
 *
 * @param isClosing all of them
 */
export async function foldedRecords(
  state: ChainState,
  folds: Map<string, Fold>,
  { now, waitMs, isClosing }: { now: number; waitMs: number; isClosing: boolean },
): Promise<PendingRecord[]> {
  const records: PendingRecord[] = [];
  for (const [hour, { facts, since }] of folds) {
    const open = [...facts.values()].filter(({ subject }) => !state.has(subject));
    const isDue =
      isClosing ||
      open.length >= maxFolded ||
      now - since >= waitMs ||
      now >= Date.parse(hour) + hourMs;
    if (!isDue) continue;
    for (let at = 0; at < open.length; at += maxFolded) {
      const counted = open.slice(at, at + maxFolded);
      const [first] = counted;
      if (first === undefined) continue;
      const draft = await first.draft(undefined);
      if (draft === undefined) continue;
      const ends = counted.map(({ state: ended }) => ended).toSorted();
      const last = ends.at(-1) ?? '';
      const record: PendingRecord = {
        draft: {
          ...draft,
          happened: last,
          details: { hour, count: String(counted.length), first: ends[0] ?? '', last },
        },
        subject: `hour/${hour}`,
        subjects: counted.map(({ subject }) => subject),
        after: last,
      };
      applyRecord(state, record);
      records.push(record);
    }
  }
  return records;
}

/** Drops what stands in the chain by now. */
export function settleFolds(state: ChainState, folds: Map<string, Fold>): void {
  for (const [hour, { facts }] of folds) {
    for (const subject of facts.keys()) if (state.has(subject)) facts.delete(subject);
    if (facts.size === 0) folds.delete(hour);
  }
}

const hourMs = 3_600_000;

/** The hour of a time, RFC 3339. */
export function hourOf(time: string): string {
  return `${time.slice(0, 13)}:00:00Z`;
}

/** Runs and told events whose state is taken over to the next segment. */
const maxCarriedRuns = 256;
const maxCarriedTold = 32;
/** Events that were told: they have no level, so their subject is unique. */
export const toldScope = 'told/';

/**
 * What the next segment takes over. Of runs the newest; those before are covered by one time.
 *
 * @param state changed in the same way
 */
export function carriedFrom(state: ChainState): { subject: string; state: string }[] {
  const runs = [...state].filter(([subject]) => subject.startsWith(runScope));
  const newest = runs.toSorted(([, a], [, b]) => (a < b ? 1 : -1));
  const old = newest.slice(maxCarriedRuns);
  const [lastOld] = old;
  if (lastOld !== undefined) state.set(settledRuns, lastOld[1]);
  for (const [subject] of old) state.delete(subject);
  const told = [...state.keys()].filter((subject) => subject.startsWith(toldScope));
  for (const subject of told.slice(0, -maxCarriedTold)) state.delete(subject);
  return [...state].map(([subject, value]) => ({ subject, state: value }));
}
