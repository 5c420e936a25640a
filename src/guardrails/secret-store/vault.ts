import { forEachBounded } from '../../runtime/parallel.ts';
import { Breaker } from './breaker.ts';
import type { IdentityTokens } from './identity-token.ts';
import { holds, isOurs, markOf, planCopy, type CopyObservation } from './plan.ts';
import {
  leftOf,
  SecretStoreError,
  type Copy,
  type CopyChange,
  type CopyKey,
  type CopyWithdrawal,
  type KeepOptions,
  type SecretStore,
} from './store.ts';
import type { VaultClient, VaultSession } from './vault-client.ts';

export interface VaultStoreOptions {
  client: VaultClient;
  /** By which it writes, as the identity that a value belongs to. */
  tokens: Pick<IdentityTokens, 'issue'>;
  /** The operator's own token for the vault, by which it withdraws; read anew each time. */
  readOwnToken: () => Promise<string>;
  /** Roles of the auth method. */
  roles: { identity: string; operator: string };
  /** Where the engine is mounted, and what precedes namespace, identity and name. */
  mount: string;
  pathPrefix: string;
  /** Milliseconds since the epoch. */
  clock: () => number;
  /** From 0 to below 1. */
  random: () => number;
}

/** A copy is looked at again after this time though nothing has changed: somebody may have. */
const recheckMs = 600_000;
/** Copies that are remembered as lately seen. */
const maxSeen = 20_000;
/** Requests by which one copy is brought to what it has to be. */
const maxSteps = 12;
/** How long a vault is left alone that doesn't answer: at first, and at most. */
const firstPauseMs = 1_000;
const maxPauseMs = 60_000;
/** The same for withdrawals: a kill doesn't ask every time that it looks. */
const firstWithdrawPauseMs = 10_000;
/** Longest time in which a kill waits for a vault; it asks again. */
const withdrawMs = 3_000;
/** Withdrawals at a time, for one identity. */
const parallelism = 4;

const segment = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

/**
 * Copies in KV version 2 of Vault or OpenBao. It writes as the identity whose value it is, so that
 * the vault's own policy keeps each identity to its own path, and withdraws as the operator, since
 * what is killed has no token any more.
 */
export class VaultStore implements SecretStore {
  readonly #options: VaultStoreOptions;
  /** Until when a copy is known to be as it has to be, and of which version of its Secret. */
  readonly #seen = new Map<string, { state: string; until: number }>();
  readonly #keeping: Breaker;
  /** Its own: a kill asks, though a copy just couldn't be written. */
  readonly #withdrawing: Breaker;

  constructor(options: VaultStoreOptions) {
    const { clock, random } = options;
    this.#options = options;
    const shared = { maxMs: maxPauseMs, clock, random };
    this.#keeping = new Breaker({ ...shared, firstMs: firstPauseMs });
    this.#withdrawing = new Breaker({ ...shared, firstMs: firstWithdrawPauseMs });
  }

  async keep(copy: Copy, { isFresh, record, signal }: KeepOptions): Promise<CopyChange> {
    const { clock } = this.#options;
    const path = this.#pathOf(copy.key);
    const state = `${copy.secret.uid} ${copy.secret.resourceVersion} ${copy.keepsPrevious}`;
    const seen = this.#seen.get(path);
    if (!isFresh && seen?.state === state && clock() < seen.until) return unchanged;
    this.#seen.delete(path);
    const change = await this.#watched(() => this.#bring(copy, path, { record, signal }));
    // Not all at once, after a start.
    this.#remember(path, state, clock() + recheckMs * (0.8 + 0.2 * this.#options.random()));
    return change;
  }

  async withdraw(keys: readonly CopyKey[], signal: AbortSignal): Promise<CopyWithdrawal> {
    const [first] = keys;
    if (first === undefined) return { withdrawn: [], remaining: [], wasAsked: false };
    const attempt = this.#withdrawing.attempt(withdrawMs);
    if (attempt === undefined) {
      const error = this.#withdrawing.error();
      const remaining = keys.map((key) => this.#left(key, error));
      return { withdrawn: [], remaining, wasAsked: false };
    }
    const until = AbortSignal.any([signal, AbortSignal.timeout(withdrawMs)]);
    const outcomes = await this.#login(until).then(
      (session) => forEachBounded(keys, parallelism, (key) => this.#end(session, key, until)),
      (error: unknown) => keys.map((item) => ({ item, error })),
    );
    signal.throwIfAborted();
    const remaining = outcomes.flatMap((outcome) =>
      'error' in outcome ? [this.#left(outcome.item, failureOf(outcome.error))] : [],
    );
    const away = remaining.find(({ error }) => error.failure === 'Unavailable');
    if (away === undefined) this.#withdrawing.succeeded();
    else this.#withdrawing.failed(attempt, away.error);
    const withdrawn = outcomes.flatMap((outcome) =>
      'result' in outcome && outcome.result ? [outcome.item.name] : [],
    );
    return { withdrawn, remaining, wasAsked: true };
  }

  locationOf(key: CopyKey): string {
    return `vault ${this.#placeWithin(key)}`;
  }

  placeOf(key: CopyKey): string {
    return `vault ${this.#options.client.server} ${this.#placeWithin(key)}`;
  }

  #placeWithin({ namespace, identity, name }: CopyKey): string {
    const { mount, pathPrefix } = this.#options;
    return `${mount}/${pathPrefix}/${namespace}/${identity}/${name}`;
  }

  #left(key: CopyKey, error: SecretStoreError): CopyWithdrawal['remaining'][number] {
    return { name: key.name, what: leftOf(this.locationOf(key)), error };
  }

  async #bring(
    copy: Copy,
    path: string,
    { record, signal }: Omit<KeepOptions, 'isFresh'>,
  ): Promise<CopyChange> {
    const { client, tokens, roles, clock } = this.#options;
    const { key, value, keepsPrevious } = copy;
    const session = await client.login(roles.identity, await tokens.issue(copy, signal), signal);
    const change = { isWritten: false, destroyed: 0 };
    let compared: CopyObservation['compared'];
    for (let steps = 0; steps < maxSteps; steps++) {
      const metadata = await client.readMetadata(session, path, signal);
      const step = planCopy({ key, metadata, compared, keepsPrevious, now: clock() });
      if (step.action === 'Leave') throw this.#foreign(key);
      await record();
      if (step.action === 'None') return change;
      if (step.action === 'Mark') await client.writeMetadata(session, path, markOf(key), signal);
      if (step.action === 'Compare') {
        const found = await client.readData(session, path, signal);
        compared =
          found === undefined
            ? undefined
            : { version: found.version, isSame: holds(found.value, value) };
      }
      if (step.action === 'Write') {
        const isWritten = await client.writeData(session, path, value, step.cas, signal);
        change.isWritten ||= isWritten;
      }
      if (step.action === 'Destroy') {
        await client.destroy(session, path, step.versions, signal);
        change.destroyed += step.versions.length;
      }
    }
    throw new SecretStoreError(
      'Refused',
      `the vault does not take the value, or somebody else writes to ${this.locationOf(key)}`,
    );
  }

  async #login(signal: AbortSignal): Promise<VaultSession> {
    const { client, readOwnToken, roles } = this.#options;
    return await client.login(roles.operator, await readOwnToken(), signal);
  }

  /** @returns whether it was there */
  async #end(session: VaultSession, key: CopyKey, signal: AbortSignal): Promise<boolean> {
    const { client } = this.#options;
    const path = this.#pathOf(key);
    this.#seen.delete(path);
    const metadata = await client.readMetadata(session, path, signal);
    if (metadata === undefined) return false;
    if (key.uid === '') {
      throw new SecretStoreError(
        'Foreign',
        'its identity was deleted, and the leader has not destroyed it yet',
      );
    }
    if (!isOurs(metadata, key)) throw this.#foreign(key);
    await client.deleteMetadata(session, path, signal);
    return true;
  }

  #foreign(key: CopyKey): SecretStoreError {
    return new SecretStoreError(
      'Foreign',
      `what is at ${this.locationOf(key)} was not made for this identity, or no longer says so, and is left alone`,
    );
  }

  /** Whoever asks next leaves a vault alone that doesn't answer. */
  async #watched<T>(ask: () => Promise<T>): Promise<T> {
    const breaker = this.#keeping;
    const attempt = breaker.attempt();
    if (attempt === undefined) throw breaker.error();
    try {
      const answer = await ask();
      breaker.succeeded();
      return answer;
    } catch (error) {
      // A vault that refuses one of many isn't away.
      if (!(error instanceof SecretStoreError) || error.failure !== 'Unavailable') throw error;
      breaker.failed(attempt, error);
      throw breaker.error();
    }
  }

  #remember(path: string, state: string, until: number): void {
    this.#seen.set(path, { state, until });
    const [oldest] = this.#seen.keys();
    if (this.#seen.size > maxSeen && oldest !== undefined) this.#seen.delete(oldest);
  }

  /** Each part is one segment, whatever it came from: no name reaches another identity's path. */
  #pathOf({ namespace, identity, name }: CopyKey): string {
    const parts = [namespace, identity, name];
    if (!parts.every((part) => segment.test(part) && !part.includes('..'))) {
      throw new SecretStoreError(
        'Refused',
        'a name that is no name of Kubernetes has no path in a vault',
      );
    }
    return [this.#options.pathPrefix, ...parts].join('/');
  }
}

const unchanged: CopyChange = { isWritten: false, destroyed: 0 };

/** What isn't a store's own word (a file that can't be read, a time that is over) is one of ours. */
function failureOf(error: unknown): SecretStoreError {
  return error instanceof SecretStoreError
    ? error
    : new SecretStoreError('Unavailable', 'the operator could not log in to the vault in time');
}
