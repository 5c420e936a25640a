import type { CopyKey } from './store.ts';
import type { KeyMetadata, VersionMetadata } from './vault-client.ts';

/** What says, at a key of the engine, whose it is. */
export function markOf({ namespace, identity, uid, name }: CopyKey): Record<string, string> {
  return { 'managed-by': 'automation-guardrails', namespace, identity, uid, name };
}

/** Whether a key is that copy: what carries another mark, or none, is somebody else's. */
export function isOurs({ customMetadata }: KeyMetadata, key: CopyKey): boolean {
  return Object.entries(markOf(key)).every(([name, text]) => customMetadata[name] === text);
}

/** The one request that is due. */
export type CopyStep =
  | { action: 'None' }
  /** Somebody else's: nothing is done. */
  | { action: 'Leave' }
  /** Says whose the key is, before there is a value. */
  | { action: 'Mark' }
  /** Looks what the current version holds. */
  | { action: 'Compare' }
  /** On the version that was seen, or not at all. */
  | { action: 'Write'; cas: number }
  | { action: 'Destroy'; versions: number[] };

/** A copy, as far as it is known. */
export interface CopyObservation {
  key: CopyKey;
  /** `undefined` where there is no such key. */
  metadata: KeyMetadata | undefined;
  /**
   * Whether that version holds what the Secret holds; `undefined` where nobody has looked at it. A
   * version that is deleted or destroyed holds nothing.
   */
  compared: { version: number; isSame: boolean } | undefined;
  /** Versions before stay readable. */
  keepsPrevious: boolean;
  /** Milliseconds since the epoch. */
  now: number;
}

/**
 * Decides on one copy by what the vault has, and by nothing that is remembered: cut off between any
 * two requests, or answered with an error after all was done, the next plan goes on from there. A
 * version is written only where the current one holds something else, and only on that one; the
 * versions before are destroyed only once the current one holds the value.
 */
export function planCopy(observation: CopyObservation): CopyStep {
  const { key, metadata, compared, keepsPrevious, now } = observation;
  if (metadata === undefined) return { action: 'Mark' };
  if (!isOurs(metadata, key)) return { action: 'Leave' };
  const { currentVersion, versions } = metadata;
  const current = versions.find(({ version }) => version === currentVersion);
  if (current === undefined || !isReadable(current, now)) {
    return { action: 'Write', cas: currentVersion };
  }
  if (compared?.version !== currentVersion) return { action: 'Compare' };
  if (!compared.isSame) return { action: 'Write', cas: currentVersion };
  const retired = keepsPrevious
    ? []
    : versions
        .filter(({ version, destroyed }) => version < currentVersion && !destroyed)
        .map(({ version }) => version);
  return retired.length === 0 ? { action: 'None' } : { action: 'Destroy', versions: retired };
}

/** A time of deletion may lie ahead (`delete_version_after`). */
function isReadable({ destroyed, deletionTime }: VersionMetadata, now: number): boolean {
  if (destroyed) return false;
  return deletionTime === '' || !(Date.parse(deletionTime) <= now);
}

/** Whether a version holds exactly these keys and values. */
export function holds(
  found: Readonly<Record<string, unknown>>,
  value: Readonly<Record<string, string>>,
): boolean {
  const names = Object.keys(value);
  return (
    Object.keys(found).length === names.length && names.every((name) => found[name] === value[name])
  );
}
