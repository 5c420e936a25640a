import type { RecordDraft } from './record.ts';

/** What is known of one subject: its state now, and what to record where that is new. */
export interface Fact {
  /** Stable within the chain. One that is somebody's scope is the beginning of no other. */
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
   * Beginnings of the subjects that this speaks of completely: those of which it says nothing don't
   * stand any more. Absent: it speaks of its facts alone.
   */
  scope?: string | readonly string[];
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

/** Facts of one scope and hour that wait for their record. */
export interface Fold {
  /** RFC 3339. */
  hour: string;
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
 * @param folds of the chain; what is counted is added
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
        if (before === undefined && !isSettled(state, fact)) addTo(folds, fact.foldInto, fact, now);
        continue;
      }
      if (before === undefined && isSettled(state, fact)) continue;
      const draft = await fact.draft(before);
      if (draft === undefined) continue;
      add({ draft, subject, after, ...(before !== undefined && { before }) });
    }
    if (scope === undefined) continue;
    const standing = new Set(facts.map(({ subject }) => subject));
    for (const subject of subjectsIn(state, [scope].flat())) {
      const before = state.get(subject);
      if (before === undefined || standing.has(subject)) continue;
      const draft = gone?.(subject, state);
      if (draft === undefined) state.delete(subject);
      else add({ draft, subject, before });
    }
  }
  return records;
}

/** Those that the chain says something of. */
function subjectsIn(state: ChainState, scopes: readonly string[]): string[] {
  return scopes.flatMap((scope) =>
    // There may be thousands, and of as many it is told one by one that they are gone.
    state.has(scope) ? [scope] : [...state.keys()].filter((subject) => subject.startsWith(scope)),
  );
}

/** Subjects that are runs that ended: once, so their state is the time of that. */
export const runScope = 'run/';
/** Subjects that are runs that started: their state is the time of that. */
export const startScope = 'start/';
/**
 * By scope of subjects whose state is a time: a subject whose state is the time up to which all of
 * them are in the log.
 */
const settledBy: readonly (readonly [scope: string, settled: string])[] = [
  [startScope, 'starts-settled'],
  [runScope, 'runs-settled'],
];

function isSettled(state: ChainState, { subject, state: at }: Fact): boolean {
  const settled = settledBy.find(([scope]) => subject.startsWith(scope));
  const through = settled && state.get(settled[1]);
  return through !== undefined && at <= through;
}

function addTo(folds: Map<string, Fold>, hour: string, fact: Fact, now: number): void {
  const key = `${scopeOf(fact)}${hour}`;
  const fold = folds.get(key) ?? { hour, facts: new Map<string, Fact>(), since: now };
  fold.facts.set(fact.subject, fact);
  folds.set(key, fold);
}

function scopeOf({ subject }: Fact): string {
  return subject.slice(0, subject.indexOf('/') + 1);
}

/**
 * The folded records that are due: all, where those of an hour are that is over, or that have waited
 * long enough for a crash not to take them; one write is enough for what started and what ended.
 * Else those of so many facts that a record is full.
 *
 * @param isClosing all of them
 */
export async function foldedRecords(
  state: ChainState,
  folds: Map<string, Fold>,
  { now, waitMs, isClosing }: { now: number; waitMs: number; isClosing: boolean },
): Promise<PendingRecord[]> {
  const records: PendingRecord[] = [];
  const hasWaited = ({ hour, since }: Fold): boolean =>
    now - since >= waitMs || now >= Date.parse(hour) + hourMs;
  const isDue = isClosing || [...folds.values()].some(hasWaited);
  for (const [key, { hour, facts }] of folds) {
    const open = [...facts.values()].filter(({ subject }) => !state.has(subject));
    if (!isDue && open.length < maxFolded) continue;
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
        subject: `hour/${key}`,
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
  for (const [key, { facts }] of folds) {
    for (const subject of facts.keys()) if (state.has(subject)) facts.delete(subject);
    if (facts.size === 0) folds.delete(key);
  }
}

const hourMs = 3_600_000;

/** The hour of a time, RFC 3339. */
export function hourOf(time: string): string {
  return `${time.slice(0, 13)}:00:00Z`;
}

/** Runs of one scope, and told events, whose state is taken over to the next segment. */
const maxCarriedRuns = 192;
const maxCarriedTold = 32;
/** Events that were told: they have no level, so their subject is unique. */
export const toldScope = 'told/';

/**
 * What the next segment takes over. Of runs the newest; those before are covered by one time.
 *
 * @param state changed in the same way
 */
export function carriedFrom(state: ChainState): { subject: string; state: string }[] {
  for (const [scope, settled] of settledBy) {
    const runs = [...state].filter(([subject]) => subject.startsWith(scope));
    const newest = runs.toSorted(([, a], [, b]) => (a < b ? 1 : -1));
    const old = newest.slice(maxCarriedRuns);
    const [lastOld] = old;
    if (lastOld !== undefined) state.set(settled, lastOld[1]);
    for (const [subject] of old) state.delete(subject);
  }
  const told = [...state.keys()].filter((subject) => subject.startsWith(toldScope));
  for (const subject of told.slice(0, -maxCarriedTold)) state.delete(subject);
  return [...state].map(([subject, value]) => ({ subject, state: value }));
}
