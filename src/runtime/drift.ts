import { hash } from 'node:crypto';
import { digestOf } from '../api/digest.ts';
import { FIELD_MANAGER } from '../api/names.ts';
import type { KubeObject, ObjectMeta, OwnerReference } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';

/** An object of ours that somebody changed, and that is again as it was planned. */
export interface Drift {
  resource: Resource;
  /** As it stands by now. */
  object: KubeObject;
  owner: OwnerReference;
  /**
   * What whoever changed it called itself: a field manager. `undefined` where something was taken
   * away: the API keeps who has a field, and nobody has one that is gone.
   */
  manager: string | undefined;
  /** When, RFC 3339. */
  changedAt: string | undefined;
  /** Digest of what the plan speaks of, as it was found. */
  before: string;
  /** The same, as planned. */
  after: string;
}

/** Who changed an object, and when; of what was only taken away neither is known. */
export type Change = Pick<Drift, 'manager' | 'changedAt'>;

/** The last one, other than us, who wrote a field in which an object differs from its plan. */
export function whoChanged(
  desired: KubeObject,
  live: KubeObject,
  managedFields: NonNullable<ObjectMeta['managedFields']>,
): Change | undefined {
  const wanted = plannedOf(desired);
  const found = plannedOf(live);
  const others = managedFields.filter(
    ({ manager, fieldsV1, subresource = '' }) =>
      manager !== FIELD_MANAGER &&
      subresource === '' &&
      fieldsV1 !== undefined &&
      ownsDifference(fieldsV1, wanted, found),
  );
  const [last] = others.toSorted((a, b) => ((a.time ?? '') < (b.time ?? '') ? 1 : -1));
  return last && { manager: last.manager ?? 'unknown', changedAt: last.time };
}

/** Tells a plan from another one; of the same code, and so of one process, alone. */
export function printOf(desired: KubeObject): string {
  return hash('sha256', JSON.stringify(plannedOf(desired)), 'base64url').slice(0, 22);
}

/** Digests of what a plan speaks of: as it was found, and as it is planned. */
export function digestsOf(desired: KubeObject, live: KubeObject): Pick<Drift, 'before' | 'after'> {
  const wanted = plannedOf(desired);
  return { before: digestOf(within(wanted, plannedOf(live))), after: digestOf(wanted) };
}

/** What is planned of an object; whose it is, and how it is called, never differs. */
function plannedOf(object: KubeObject): object {
  const { apiVersion: _, kind: __, metadata, ...rest } = object;
  const { labels, annotations } = metadata;
  return { ...rest, metadata: { labels, annotations } };
}

/** Of `found` the fields that `wanted` has, down to what isn't a map. */
function within(wanted: object, found: object): object {
  return Object.fromEntries(
    Object.keys(wanted).flatMap((field) => {
      if (valueOf(wanted, field) === undefined) return [];
      const [a, b] = [valueOf(wanted, field), valueOf(found, field)];
      return [[field, isMap(a) && isMap(b) ? within(a, b) : b]];
    }),
  );
}

/** @param fields a set as `managedFields` has it: `{"f:spec":{"f:egress":{}}}` */
function ownsDifference(fields: object, wanted: object, found: object): boolean {
  return Object.entries(fields).some(([key, below]: [string, unknown]) => {
    const field = key.startsWith('f:') ? key.slice(2) : undefined;
    if (field === undefined || valueOf(wanted, field) === undefined) return false;
    const [a, b] = [valueOf(wanted, field), valueOf(found, field)];
    if (digestOf(a) === digestOf(b)) return false;
    const isDeeper = isMap(below) && Object.keys(below).length > 0;
    return !isDeeper || !isMap(a) || !isMap(b) || ownsDifference(below, a, b);
  });
}

function valueOf(object: object, field: string): unknown {
  return Reflect.get(object, field);
}

function isMap(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
