import { timestamp } from '../../api/conditions.ts';
import { maxMarkedRuns, type Ledger } from '../../api/limits.ts';

/** Something that happened to a Job: it was created, or it ended. */
export interface Occurrence {
  uid: string;
  /** Milliseconds since the epoch, whole seconds. */
  at: number;
}

type Mark = NonNullable<Ledger['created']>;

/**
 * How late something may come to be seen after the time that it bears, in milliseconds: the API
 * server gives a request a minute, and sets the time when it begins. Several API servers, or a
 * clock that is set back, differ by less.
 */
export const latenessMs = 60_000;

/**
 * What hasn't been counted yet, and how far everything is counted then. The same Job is counted
 * once, whatever is seen again after a restart: what is older than the mark is counted, and of what
 * is younger the mark has the UIDs.
 *
 * @param now milliseconds since the epoch: a time in the future doesn't move the mark
 */
export function advance<T extends Occurrence>(
  mark: Mark | undefined,
  occurrences: readonly T[],
  now: number,
): { fresh: T[]; mark: Mark } {
  const { before, counted } = read(mark);
  const fresh = occurrences.filter(({ uid, at }) => at >= before && !counted.has(short(uid)));
  for (const { uid, at } of fresh) counted.set(short(uid), at);
  let newest = 0;
  for (const at of counted.values()) newest = Math.max(newest, Math.min(at, now));
  return { fresh, mark: write(Math.max(before, floor(newest - latenessMs), 0), counted) };
}

/** 48 bits are enough to tell the runs of a minute apart. */
function short(uid: string): string {
  return uid.slice(0, 13);
}

function floor(milliseconds: number): number {
  return Math.floor(milliseconds / 1000) * 1000;
}

function read(mark: Mark | undefined): { before: number; counted: Map<string, number> } {
  const before = Date.parse(mark?.before ?? '') || 0;
  const counted = (mark?.runs ?? []).map((run): [string, number] => {
    const [uid = '', seconds] = run.split('+');
    return [uid, before + (Number(seconds) || 0) * 1000];
  });
  return { before, counted: new Map(counted) };
}

/** More than fit are given up from the oldest on: then a late one of that time isn't counted. */
function write(before: number, counted: ReadonlyMap<string, number>): Mark {
  const younger = [...counted].filter(([, at]) => at >= before).toSorted(([, a], [, b]) => b - a);
  const lost = younger[maxMarkedRuns];
  const from = lost === undefined ? before : lost[1] + 1000;
  return {
    before: timestamp(from),
    runs: younger
      .filter(([, at]) => at >= from)
      .map(([uid, at]) => (at === from ? uid : `${uid}+${(at - from) / 1000}`))
      .toSorted(),
  };
}
