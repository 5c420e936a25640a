import type { Finding } from '../../api/conditions.ts';
import type { KubeObject } from '../../api/objects.ts';
import { pauses, type Workload, type WorkloadKind } from '../../api/workload.ts';
import { dropOldest } from '../../runtime/bounded-map.ts';
import type { Paused } from './pausing.ts';
import { restoreOf } from './plan.ts';

/** Who set the field that keeps a workload from starting pods, as `managedFields` tell. */
export interface FieldOwner {
  manager: string;
  /** `scale`, where it was written through that. */
  subresource?: string;
}

/** What is remembered of a workload that was woken after it had been paused. */
interface Contest {
  owner: FieldOwner | undefined;
  /** How often it had to be paused again. */
  count: number;
  /** Milliseconds since the epoch: when it was paused again last. */
  pausedAt: number;
  /** Of what the API server stored then. */
  resourceVersion: string | undefined;
}

export interface ContestsOptions {
  /** Milliseconds since the epoch. */
  clock: () => number;
  /** Told of each write that pauses a workload again. */
  onPausedAgain?: (kind: WorkloadKind) => void;
  /** Workloads that are remembered, those of the latest contests; default 10,000. */
  maxWorkloads?: number;
}

/** Waking once is a person with `kubectl scale`; from here on it is a controller that insists. */
const contestedFrom = 3;
const firstDelayMs = 1_000;
const maxDelayMs = 60_000;
/** A workload that stayed paused for so long isn't contested any more. */
const quietMs = 600_000;

/**
 * Memory of the workloads that something keeps waking while they are stopped. The fence lets none
 * of their pods start, so pausing them again is for order's sake and may wait: at once the first
 * time, then after a time that doubles up to a minute. So two controllers that disagree never
 * write as fast as they can.
 */
export class Contests {
  readonly #clock: () => number;
  readonly #onPausedAgain: (kind: WorkloadKind) => void;
  readonly #maxWorkloads: number;
  /** By the workload's UID; the latest contest last. */
  readonly #contests = new Map<string, Contest>();

  constructor({ clock, onPausedAgain, maxWorkloads = 10_000 }: ContestsOptions) {
    this.#clock = clock;
    this.#onPausedAgain = onPausedAgain ?? ((): void => undefined);
    this.#maxWorkloads = maxWorkloads;
  }

  /** Whether a workload that runs may be paused now, or was it paused too often for that. */
  isDue(workload: Workload): boolean {
    const contest = this.#contestOf(workload);
    if (contest === undefined) return true;
    // A cache that doesn't show yet what was written is no reason to write it again.
    if (isSameOrOlder(workload.metadata.resourceVersion, contest.resourceVersion)) return false;
    return this.#clock() >= contest.pausedAt + delayAfter(contest.count);
  }

  /**
   * A workload was told to stop.
   *
   * @param before as it was found, running
   * @param answer what became of it
   */
  told(before: Workload, { stored, found }: Paused): void {
    // What its owner asked for is kept only once it was paused: so somebody woke it since.
    if (restoreOf(before) === undefined) return;
    const { uid } = before.metadata;
    const previous = this.#contestOf(before);
    this.#contests.delete(uid);
    this.#contests.set(uid, {
      owner: ownerOfPause(before.kind, found) ?? previous?.owner,
      count: (previous?.count ?? 0) + 1,
      pausedAt: this.#clock(),
      resourceVersion: stored.metadata.resourceVersion,
    });
    this.#onPausedAgain(before.kind);
    dropOldest(this.#contests, this.#maxWorkloads);
  }

  /** The condition `Contested` of a kill, from all of its workloads. */
  finding(workloads: readonly Workload[]): Finding {
    const contested = workloads.flatMap((workload) => {
      const contest = this.#contestOf(workload);
      return contest !== undefined && contest.count >= contestedFrom ? [{ workload, contest }] : [];
    });
    if (contested.length === 0) {
      return {
        type: 'Contested',
        status: 'False',
        reason: 'NotContested',
        message: 'Nothing keeps waking what is paused.',
      };
    }
    const named = contested.slice(0, maxNamed).map(({ workload, contest: { owner, count } }) => {
      return `${workload.kind} ${workload.metadata.name}, ${count} times, by ${describe(owner)}`;
    });
    const others = contested.length > maxNamed ? `; and ${contested.length - maxNamed} more` : '';
    return {
      type: 'Contested',
      status: 'True',
      reason: 'PausedAgain',
      message: `Something keeps waking what is paused: ${named.join('; ')}${others}. No pod of it starts; it is paused again, ever less often.`,
    };
  }

  /** What is remembered, unless that was long ago. */
  #contestOf({ metadata: { uid } }: Workload): Contest | undefined {
    const contest = this.#contests.get(uid);
    if (contest === undefined || this.#clock() < contest.pausedAt + quietMs) return contest;
    this.#contests.delete(uid);
    return undefined;
  }
}

const maxNamed = 5;

function delayAfter(count: number): number {
  if (count < 2) return 0;
  return Math.min(maxDelayMs, firstDelayMs * 2 ** (count - 2));
}

function describe(owner: FieldOwner | undefined): string {
  if (owner === undefined) return 'a field manager that is not recorded';
  const { manager, subresource } = owner;
  return subresource === undefined ? `'${manager}'` : `'${manager}' (through ${subresource})`;
}

/** Versions are decimal numbers of any length; of others nothing is known. */
function isSameOrOlder(version = '', than = ''): boolean {
  if (!/^\d+$/.test(version) || !/^\d+$/.test(than)) return false;
  return BigInt(version) <= BigInt(than);
}

const fieldsOfPause: Record<string, readonly string[]> = {
  [pauses.Deployment.restore]: ['f:spec', 'f:replicas'],
  [pauses.Job.restore]: ['f:spec', 'f:suspend'],
  [pauses.DaemonSet.restore]: ['f:spec', 'f:template', 'f:spec', 'f:nodeSelector'],
};

/** Whether the fields of an entry of `managedFields` hold the one by which a kind is paused. */
export function ownsPause(kind: WorkloadKind, fields: unknown): boolean {
  return hasPath(fields, fieldsOfPause[pauses[kind].restore] ?? []);
}

/**
 * The field manager of the field that pauses a kind, the latest where there are several. A write
 * of our own that admission answers with another value doesn't make the field ours, so the answer
 * still names who woke the workload. Total, whatever the object looks like.
 */
export function ownerOfPause(kind: WorkloadKind, object: KubeObject): FieldOwner | undefined {
  const { managedFields } = object.metadata as { managedFields?: unknown };
  if (!Array.isArray(managedFields)) return undefined;
  let latest: { owner: FieldOwner; time: string } | undefined;
  for (const entry of managedFields as unknown[]) {
    const { manager, subresource, time, fieldsV1 } = fieldsOf(entry);
    if (typeof manager !== 'string' || !ownsPause(kind, fieldsV1)) continue;
    const at = typeof time === 'string' ? time : '';
    // The API server writes times of one form, in UTC and with whole seconds, so text compares.
    if (latest !== undefined && at < latest.time) continue;
    const through = typeof subresource === 'string' && subresource !== '';
    latest = {
      owner: {
        manager: manager.slice(0, maxManager),
        ...(through && { subresource: subresource.slice(0, maxManager) }),
      },
      time: at,
    };
  }
  return latest?.owner;
}

/** The API server allows as many characters. */
const maxManager = 128;

function hasPath(fields: unknown, path: readonly string[]): boolean {
  let value = fields;
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return false;
    value = Reflect.get(value, key);
  }
  return true;
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}
