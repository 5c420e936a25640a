import type { SecretEntry, SecretStatus } from '../../api/automation-identity.ts';
import { timestamp } from '../../api/conditions.ts';
import { parseDuration } from '../../api/duration.ts';
import type { ObjectMeta } from '../../api/objects.ts';
import { controllerOf } from '../../runtime/applier.ts';
import type { Problem } from '../requirements.ts';
import { parseTime } from './secret.ts';

/** What is known of a Secret that somebody else keeps, by its metadata alone. */
export interface ExistingSecret {
  status: SecretStatus;
  /** What keeps the identity from being ready. */
  problem: Problem | undefined;
  /** It should have been changed by now. */
  overdue: Problem | undefined;
  /** Milliseconds since the epoch at which that changes by itself. */
  dueAt: number | undefined;
}

/**
 * @param metadata of the Secret; `undefined` where there is none
 * @param now milliseconds since the epoch
 */
export function existingSecret(
  { name, secretName = '', rotation }: SecretEntry,
  metadata: ObjectMeta | undefined,
  now: number,
): ExistingSecret {
  if (metadata === undefined) {
    return {
      status: { name, secretName },
      problem: {
        reason: 'SecretMissing',
        message: `Secret ${secretName}, which somebody else should keep, doesn't exist.`,
      },
      overdue: undefined,
      dueAt: undefined,
    };
  }
  const changedAt = changedAtOf(metadata);
  const owner = ownerOf(metadata);
  const every = rotation?.every === undefined ? undefined : parseDuration(rotation.every);
  const nextAt = every === undefined ? undefined : changedAt + every;
  const isOverdue = nextAt !== undefined && nextAt <= now;
  return {
    status: {
      name,
      secretName,
      ...(owner !== undefined && { owner }),
      lastRotationTime: timestamp(changedAt),
      ...(nextAt !== undefined && { nextRotationTime: timestamp(nextAt) }),
    },
    problem: undefined,
    overdue: isOverdue
      ? {
          reason: 'SecretOverdue',
          message: `Secret ${secretName}${owner === undefined ? '' : `, which ${owner} keeps,`} was last changed at ${timestamp(changedAt)}, and should be every ${rotation?.every}.`,
        }
      : undefined,
    dueAt: isOverdue ? undefined : nextAt,
  };
}

/**
 * The last change that its metadata knows of: its creation, or the time of a field manager that
 * owns data. Whoever changes a label along with it looks the same: the value may be older.
 *
 * @returns milliseconds since the epoch
 */
function changedAtOf({ creationTimestamp, managedFields = [] }: ObjectMeta): number {
  const times = managedFields.filter(ownsData).map(({ time }) => parseTime(time) ?? 0);
  return Math.max(parseTime(creationTimestamp) ?? 0, ...times);
}

/** Its controller, or else whoever wrote its data last. */
function ownerOf(metadata: ObjectMeta): string | undefined {
  const controller = controllerOf({ metadata });
  if (controller !== undefined) return `${controller.kind} ${controller.name}`;
  return (metadata.managedFields ?? [])
    .filter(ownsData)
    .toSorted((a, b) => (parseTime(b.time) ?? 0) - (parseTime(a.time) ?? 0))
    .at(0)?.manager;
}

function ownsData({ fieldsV1 }: NonNullable<ObjectMeta['managedFields']>[number]): boolean {
  return fieldsV1 !== undefined && 'f:data' in fieldsV1;
}
