import type { AutomationIdentity } from '../../api/automation-identity.ts';
import type { Remaining } from '../../api/kill-switch.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import {
  copiesOf,
  copyLeftIn,
  leftPrefix,
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
 *
 * @throws the reason of the signal
 */
export async function withdrawCopies(
  { namespace, identities, told }: CopiesView,
  secretStore: Pick<SecretStore, 'withdraw'>,
  signal: AbortSignal,
): Promise<WithdrawnCopies> {
  const known = identities.map(copiesOf);
  const all = known.flat();
  const others = told
    .flatMap(({ what }) => copyLeftIn(namespace, what) ?? [])
    .filter((key) => !all.some((one) => isSamePlace(one, key)));
  const batches = [...known, others].filter((keys) => keys.length > 0);
  const outcomes = await forEachBounded(batches, parallelism, (keys) =>
    secretStore.withdraw(keys, signal),
  );
  assertAllDone(outcomes, 'withdraw copies of credentials');
  const results = outcomes.flatMap((outcome) =>
    'result' in outcome ? [{ keys: outcome.item, ...outcome.result }] : [],
  );
  const remaining = results.flatMap((result) => result.remaining);
  const { least, most } = againMs;
  const waits = remaining.map(({ error }) => Math.max(least, error.retryMs ?? least));
  return {
    done: results.flatMap(({ keys, withdrawn }) =>
      withdrawn.map((name) => `copy of ${name} of ${keys[0]?.identity}`),
    ),
    left: remaining.map(({ what, error }) => ({ what, why: error.message })),
    wasAsked: results.some((result) => result.wasAsked),
    dueMs: waits.length === 0 ? undefined : Math.min(most, ...waits),
  };
}

function isSamePlace(one: CopyKey, other: CopyKey): boolean {
  return one.identity === other.identity && one.name === other.name;
}
