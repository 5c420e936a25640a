import { timestamp } from '../../api/conditions.ts';
import { maxHolds, type Hold } from '../../api/holds.ts';
import { annotation } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import type { Problem, Transition } from '../requirements.ts';
import { clip } from '../wording.ts';

/** What can be held. */
export interface Holdable extends KubeObject {
  status?: { holds?: readonly Hold[] | undefined };
}

const { acknowledgeHold, holdAcknowledgedBy } = annotation;

/**
 * What holds an object, from what is missing now and what held it before: one entry for each reason.
 * An entry keeps the time at which it began, and who acknowledged it, until it ends.
 *
 * @param now milliseconds since the epoch
 */
export function holdsOf(missing: readonly Problem[], object: Holdable, now: number): Hold[] {
  const before = standingOf(object);
  const acknowledgement = acknowledgementOf(object);
  const byReason = Map.groupBy(missing, ({ reason }) => reason);
  return [...byReason].slice(0, maxHolds).map(([reason, problems]): Hold => {
    const standing = before.find((hold) => hold.reason === reason);
    const isAcknowledgedNow = standing !== undefined && acknowledgement?.of === reason;
    const acknowledged = isAcknowledgedNow
      ? { by: acknowledgement.by, reason: acknowledgement.reason, time: timestamp(now) }
      : standing?.acknowledged;
    return {
      reason,
      message: clip(problems.map(({ message }) => message).join(' '), 2048),
      since: standing?.since ?? timestamp(now),
      ...(acknowledged !== undefined && { acknowledged }),
    };
  });
}

function standingOf({ status }: Holdable): readonly Hold[] {
  return status?.holds ?? [];
}

interface Acknowledgement {
  /** Reason of the hold. */
  of: string;
  by: string;
  reason: string;
}

/**
 * The acknowledgement that stands on the object, as admission stamped it. One without the stamp
 * (admission wasn't in force) is nobody's.
 */
function acknowledgementOf({ metadata }: Holdable): Acknowledgement | undefined {
  const { [acknowledgeHold]: text = '', [holdAcknowledgedBy]: by } = metadata.annotations ?? {};
  const [, of, reason] = /^([A-Za-z]+): ?(.*)$/s.exec(text) ?? [];
  if (by === undefined || of === undefined || reason === undefined) return undefined;
  return { of, by: by.slice(0, 1024), reason: reason.slice(0, 1024) };
}

/**
 * What takes an acknowledgement away that was taken note of, or that there is nothing to take note
 * of: it must be gone before the next hold of that reason begins. `undefined` where nothing is to
 * be written.
 */
export function notedPatch(object: Holdable): object | undefined {
  const { uid, resourceVersion, annotations = {} } = object.metadata;
  const stale = [acknowledgeHold, holdAcknowledgedBy].filter((key) => key in annotations);
  if (stale.length === 0) return undefined;
  const acknowledgement = acknowledgementOf(object);
  const standing = standingOf(object).find(({ reason }) => reason === acknowledgement?.of);
  const noted = standing?.acknowledged;
  const isOpen =
    acknowledgement !== undefined &&
    standing !== undefined &&
    (noted?.by !== acknowledgement.by || noted.reason !== acknowledgement.reason);
  if (isOpen) return undefined;
  return {
    metadata: {
      uid,
      resourceVersion,
      annotations: Object.fromEntries(stale.map((key) => [key, null])),
    },
  };
}

/** What was acknowledged just now, as events tell it. */
export function acknowledgedNow(before: Holdable, holds: readonly Hold[]): Transition[] {
  return holds.flatMap(({ reason, acknowledged }): Transition[] => {
    const known = standingOf(before).find((hold) => hold.reason === reason)?.acknowledged;
    if (acknowledged === undefined || acknowledged.time === known?.time) return [];
    const message = `${acknowledged.by} acknowledged ${reason}: ${acknowledged.reason}`;
    return [{ type: 'normal', reason: 'HoldAcknowledged', message }];
  });
}
