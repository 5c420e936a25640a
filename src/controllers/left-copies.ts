import type { AutomationIdentity } from '../api/automation-identity.ts';
import { resources, subjectOf } from '../api/resources.ts';
import {
  outOfReach,
  type CredentialCopies,
  type RemainingCopy,
} from '../guardrails/credentials/copies.ts';
import { ownerOf, type CopyLedger, type LedgerEntry } from '../guardrails/secret-store/ledger.ts';
import { copiesOf, type CopyKey } from '../guardrails/secret-store/store.ts';
import { clip } from '../guardrails/wording.ts';
import type { EventRecorder } from '../observability/events.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext } from '../runtime/controller.ts';
import { splitKey, type ObjectMeta } from '../api/objects.ts';
import type { ReadStore } from '../runtime/store.ts';

export interface LeftCopiesOptions {
  client: Pick<KubeClient, 'get'>;
  events: Pick<EventRecorder, 'normal' | 'warning'>;
  identities: Pick<ReadStore<AutomationIdentity>, 'get'>;
  copies: Pick<CredentialCopies, 'end' | 'placeOf'>;
  ledger: Pick<CopyLedger, 'list' | 'entriesOf' | 'reread' | 'strike'>;
}

type Context = Pick<ReconcileContext, 'signal' | 'log'>;

/** A store that doesn't answer, or not as it should, is asked again after this time. */
export const leftAgainMs = 60_000;
/** What only a person can cure is looked at again after this time. */
const hopelessMs = 600_000;
/** Why copies are left of which nothing comes by trying again soon. */
const hopeless = new Set(['SecretStoreNotConfigured', 'ForeignObject']);

/**
 * Ends the copies of identities that are gone. What there is of them is read from the ledger, so
 * that neither a restart nor a store that is away for weeks leaves one behind unsaid.
 */
export class LeftCopies {
  readonly #options: LeftCopiesOptions;

  constructor(options: LeftCopiesOptions) {
    this.#options = options;
  }

  /**
   * Copies of identities that are gone, as far as the caches tell, and those that are where the
   * settings no longer lead.
   */
  list(): LedgerEntry[] {
    const { copies, identities, ledger } = this.#options;
    return [...ledger.list()].filter(({ key, place }) => {
      const standing = identities.get(ownerOf(key));
      return standing === undefined || uidOf(standing) !== key.uid || copies.placeOf(key) !== place;
    });
  }

  /**
   * Ends the copies of those of one name that are gone.
   *
   * @param key `namespace/name`
   * @param leaving of that name, as it was last seen: what its status tells counts, too
   * @returns milliseconds from now at which to look again; `undefined` where nothing is left
   * @throws ApiError for what a retry may cure
   */
  async end(
    key: string,
    leaving: AutomationIdentity | undefined,
    context: Context,
  ): Promise<number | undefined> {
    const entries = await this.#left(key, context.signal);
    const { copies } = this.#options;
    const here = entries.filter((entry) => copies.placeOf(entry.key) === entry.place);
    const told = (leaving === undefined ? [] : copiesOf(leaving)).filter(
      (copy) => !here.some((entry) => isSame(entry.key, copy)),
    );
    const byUid = Map.groupBy([...here.map((entry) => entry.key), ...told], ({ uid }) => uid);
    const elsewhere = entries.filter((entry) => !here.includes(entry));
    const waits: number[] = [];
    for (const uid of new Set([...byUid.keys(), ...elsewhere.map((entry) => entry.key.uid)])) {
      const gone = { ...splitKey(key), uid };
      const ended = await this.#endOf(gone, byUid.get(uid) ?? [], context);
      const left = [
        ...(await this.#withoutSuccessors(key, here, ended)),
        ...elsewhere.filter((entry) => entry.key.uid === uid).map(outOfReach),
      ];
      if (left.length === 0) continue;
      this.#tell(gone, left);
      waits.push(
        left.every(({ problem }) => hopeless.has(problem.reason)) ? hopelessMs : leftAgainMs,
      );
    }
    return waits.length === 0 ? undefined : Math.min(...waits);
  }

  /** Those whose identity the API server doesn't have any more, or is about to lose. */
  async #left(key: string, signal: AbortSignal): Promise<LedgerEntry[]> {
    const { client, identities, ledger } = this.#options;
    const ofOthers = (live: AutomationIdentity | undefined) => (entry: LedgerEntry) =>
      live === undefined || entry.key.uid !== uidOf(live);
    if (!ledger.entriesOf(key).some(ofOthers(identities.get(key)))) return [];
    // A cache may not know yet who made a copy just now.
    const { namespace = '', name } = splitKey(key);
    const live = await client.get(
      resources.automationIdentities,
      { namespace, name },
      { metadataOnly: true, signal },
    );
    return (await ledger.reread(key)).filter(ofOthers(live));
  }

  #endOf(gone: ObjectMeta, keys: readonly CopyKey[], context: Context): Promise<RemainingCopy[]> {
    const { copies, events } = this.#options;
    if (keys.length === 0) return Promise.resolve([]);
    const subject = subjectOf(resources.automationIdentities, { metadata: gone });
    return copies.end(keys, {
      ...context,
      notify: ({ type, reason, message }) => events[type](subject, reason, message),
    });
  }

  /**
   * Whose place a standing identity has taken is gone: it takes none but an empty one, or its own.
   */
  async #withoutSuccessors(
    key: string,
    entries: readonly LedgerEntry[],
    left: readonly RemainingCopy[],
  ): Promise<RemainingCopy[]> {
    const { identities, ledger } = this.#options;
    const standing = identities.get(key);
    const taken = ledger
      .entriesOf(key)
      .filter((entry) => standing !== undefined && entry.key.uid === uidOf(standing))
      .map(({ place }) => place);
    const isTaken = ({ name, problem }: RemainingCopy): LedgerEntry | undefined =>
      problem.reason === 'ForeignObject'
        ? entries.find((entry) => entry.key.name === name && taken.includes(entry.place))
        : undefined;
    for (const one of left) {
      const entry = isTaken(one);
      if (entry !== undefined) await ledger.strike(entry);
    }
    return left.filter((one) => isTaken(one) === undefined);
  }

  #tell(gone: ObjectMeta, left: readonly RemainingCopy[]): void {
    const said = left.map(({ problem }) => problem.message).join(' ');
    this.#options.events.warning(
      subjectOf(resources.automationIdentities, { metadata: gone }),
      'CopiesRemain',
      clip(`${left.length} copies of its credentials can still be read. ${said}`),
    );
  }
}

/** What is about to go is as good as gone. */
function uidOf({ metadata }: AutomationIdentity): string | undefined {
  return metadata.deletionTimestamp === undefined ? metadata.uid : undefined;
}

function isSame(one: CopyKey, other: CopyKey): boolean {
  return one.uid === other.uid && one.name === other.name;
}
