import type { AutomationIdentity } from '../../api/automation-identity.ts';
import type { Remaining } from '../../api/kill-switch.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import { ownerOf, type LedgerEntry } from '../secret-store/ledger.ts';
import {
  copiesOf,
  copyLeftIn,
  leftOf,
  leftPrefix,
  notTold,
  type CopyKey,
  type SecretStore,
} from '../secret-store/store.ts';

/** Whose copies a kill withdraws. */
export interface CopiesView {
  namespace: string;
  /** Those that are still there. */
  identities: readonly AutomationIdentity[];
  /** `status.remaining` of the last look. */
  told: readonly Remaining[];
}

/** Where copies are, and are known from. */
export interface CopySources {
  store: Pick<SecretStore, 'withdraw' | 'placeOf'>;
  /**
   * What is written down of some identities.
   *
   * @param identities `namespace/name` of each
   * @throws ApiError
   */
  readLedger: (identities: ReadonlySet<string>) => Promise<readonly LedgerEntry[]>;
}

/** What became of the copies. */
export interface WithdrawnCopies {
  /** What was destroyed, for the log. */
  done: string[];
  /** What is left of them, and why. */
  left: { what: string; why: string }[];
  /** Their store was asked now. */
  wasAsked: boolean;
  /** Milliseconds from now at which to ask again; `undefined` where nothing is left. */
  dueMs: number | undefined;
}

/** Identities worked on at a time. */
const parallelism = 8;
/** What couldn't be withdrawn is tried again after this time, as the store says. */
const againMs = { least: 5_000, most: 60_000 };

/** Whether something that remains is a copy. */
export function isCopy({ what }: Remaining): boolean {
  return what.startsWith(leftPrefix);
}

/**
 * Withdraws the copies of a killed automation. Those that were left at the last look stay looked
 * for, though their identity is deleted meanwhile: its controller ends them, and nobody else can.
 * Those that are where the settings no longer lead are left, until they aren't written down any more.
 *
 * @throws ApiError, or the reason of the signal
 */
export async function withdrawCopies(
  { namespace, identities, told }: CopiesView,
  { store, readLedger }: CopySources,
  signal: AbortSignal,
): Promise<WithdrawnCopies> {
  const known = identities.map(copiesOf);
  const all = known.flat();
  const others = told
    .flatMap(({ what }) => copyLeftIn(namespace, what) ?? [])
    .filter((key) => !all.some((one) => isSamePlace(one, key)));
  const batches = [...known, others].filter((keys) => keys.length > 0);
  const outcomes = await forEachBounded(batches, parallelism, (keys) =>
    store.withdraw(keys, signal),
  );
  assertAllDone(outcomes, 'withdraw copies of credentials');
  const results = outcomes.flatMap((outcome) =>
    'result' in outcome ? [{ keys: outcome.item, ...outcome.result }] : [],
  );
  const asked = batches.flat();
  const written = asked.length === 0 ? [] : await readLedger(new Set(asked.map(ownerOf)));
  const former = written.filter(
    (entry) => entry.place !== store.placeOf(entry.key) && asked.some((key) => isOf(entry, key)),
  );
  const remaining = results.flatMap(({ keys, remaining: found }) =>
    // Without any vault, the place of before is all that there is to say.
    found.filter(
      ({ name, error }) =>
        error.failure !== 'NotConfigured' ||
        !former.some(({ key }) => key.name === name && keys.some((one) => isSamePlace(one, key))),
    ),
  );
  const { least, most } = againMs;
  const waits = remaining.map(({ error }) => Math.max(least, error.retryMs ?? least));
  return {
    done: results.flatMap(({ keys, withdrawn }) =>
      withdrawn.map((name) => `copy of ${name} of ${keys[0]?.identity}`),
    ),
    left: [
      ...remaining.map(({ what, error }) => ({ what, why: error.message })),
      ...former.map(({ place }) => ({ what: leftOf(place), why: notTold })),
    ],
    wasAsked: results.some((result) => result.wasAsked),
    dueMs: waits.length + former.length === 0 ? undefined : Math.min(most, ...waits),
  };
}

/** Where nothing tells its UID any more, every copy of that name counts. */
function isOf({ key }: LedgerEntry, asked: CopyKey): boolean {
  return isSamePlace(key, asked) && (asked.uid === '' || asked.uid === key.uid);
}

function isSamePlace(one: CopyKey, other: CopyKey): boolean {
  return one.identity === other.identity && one.name === other.name;
}
