import type {
  AutomationIdentity,
  GeneratedSecret,
  SecretStatus,
} from '../../api/automation-identity.ts';
import type { Secret } from '../../api/objects.ts';
import type { Logger } from '../../observability/logger.ts';
import type { Problem } from '../requirements.ts';
import { ownerOf, type CopyLedger, type LedgerEntry } from '../secret-store/ledger.ts';
import {
  copiesOf,
  copyKeyOf,
  leftOf,
  notTold,
  SecretStoreError,
  type CopyKey,
  type SecretStore,
} from '../secret-store/store.ts';
import type { CredentialStep } from './plan.ts';
import { refusedMs } from './refusal.ts';
import { hasPreviousIn, valueIn } from './secret.ts';

export interface CredentialCopiesOptions {
  /** Where copies go. */
  store: SecretStore;
  /** Where each copy is written down before it is made, and until it is gone. */
  ledger: Pick<CopyLedger, 'record' | 'strike' | 'entriesOf' | 'reread'>;
  /** Counts each copy that was written, withdrawn, or couldn't be. */
  countCopy: (action: 'write' | 'destroy' | 'withdraw', result: 'success' | 'error') => void;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** What a look at a copy is about. */
export interface CopyRequest {
  identity: AutomationIdentity;
  /** Nothing is granted now that doesn't stand yet. */
  isWithheld: boolean;
  notify: (notice: { type: 'normal' | 'warning'; reason: string; message: string }) => void;
  signal: AbortSignal;
  log: Logger;
}

/** What ending copies is told of. */
export type WithdrawalContext = Pick<CopyRequest, 'signal' | 'log' | 'notify'>;

/** A copy that couldn't be ended. */
export interface RemainingCopy {
  /** Of the credential. */
  name: string;
  problem: Problem;
}

/** What a look at a copy has found. */
export interface CopyOutcome {
  /** For the status of the credential. */
  store: { store?: 'Vault' };
  problem: Problem | undefined;
  /** Milliseconds since the epoch at which to look again. */
  dueAt: number | undefined;
}

/**
 * Keeps the copies of credentials in a store beside Kubernetes. A rotation is published in its
 * Secret first, and copied then; the value before goes from neither until the copy is there, and no
 * further rotation begins before it. So each place has a value that is valid, wherever the work is
 * cut off. An emergency is the exception: it ends the value before at once, and whoever reads the
 * copy has nothing valid until it is written.
 */
export class CredentialCopies {
  readonly #options: CredentialCopiesOptions;

  constructor(options: CredentialCopiesOptions) {
    this.#options = options;
  }

  /**
   * What keeps a step from being taken: the store doesn't hold what stands.
   *
   * @param recorded what status last said of the credential
   */
  async blockerOf(
    step: CredentialStep,
    credential: GeneratedSecret,
    recorded: SecretStatus | undefined,
    request: CopyRequest,
  ): Promise<CopyOutcome | undefined> {
    if (!isPatient(step) || credential.store !== 'Vault' || recorded?.store !== 'Vault') {
      return undefined;
    }
    const { problem, ...outcome } = await this.#copy(credential, step.live, request, true);
    return problem === undefined ? undefined : { ...outcome, problem };
  }

  /**
   * Brings the copy of a credential to what its Secret says, or ends it where none is asked for.
   * That there may be one goes into status before it is made.
   *
   * @param live its Secret, as it stands now
   */
  async keep(
    credential: GeneratedSecret,
    live: Secret | undefined,
    recorded: SecretStatus | undefined,
    request: CopyRequest,
  ): Promise<CopyOutcome> {
    const isRecorded = recorded?.store === 'Vault';
    if (credential.store !== 'Vault') {
      return isRecorded ? await this.#end(credential.name, request) : nothing;
    }
    if (!isRecorded) {
      if (request.isWithheld) return nothing;
      const { store } = this.#options;
      const location = store.locationOf(copyKeyOf(request.identity, credential.name));
      return {
        ...inVault,
        problem: {
          reason: 'Provisioning',
          message: `Credential ${credential.name} is about to be copied to ${location}.`,
        },
        dueAt: this.#options.clock(),
      };
    }
    if (live === undefined) return inVault;
    return await this.#copy(credential, live, request, false);
  }

  /**
   * What keeps an identity from being ready though the store holds what stands: of a credential there
   * is a copy in a place of before, too.
   *
   * @param name of the credential
   * @throws ApiError
   */
  async formerOf(
    { metadata }: Pick<AutomationIdentity, 'metadata'>,
    name: string,
  ): Promise<Problem | undefined> {
    const key = copyKeyOf({ metadata }, name);
    const known = this.#options.ledger.entriesOf(ownerOf(key));
    if (!known.some((entry) => this.#isFormer(entry, [key]))) return undefined;
    const [left] = await this.#former([key]);
    return left?.problem;
  }

  /**
   * Ends the copies of an identity. Those in a place of before can't be ended, and are left.
   *
   * @param names of credentials that have no copy any more: of them, what says that it is somebody
   *   else's counts as gone; all credentials if `undefined`
   * @returns what is left of them
   * @throws ApiError where it couldn't be written down that they are gone, or read what there is
   */
  async withdraw(
    identity: AutomationIdentity,
    context: WithdrawalContext,
    names?: readonly string[],
  ): Promise<RemainingCopy[]> {
    const keys = copiesOf(identity).filter(({ name }) => names?.includes(name) ?? true);
    const left = await this.end(keys, context);
    const here = left.filter(
      ({ problem }) => names === undefined || problem.reason !== reasons.Foreign.reason,
    );
    const former = await this.#former(keys);
    // Without any vault, the place of before is all that there is to say.
    const isSaid = ({ name, problem }: RemainingCopy): boolean =>
      problem.reason === reasons.NotConfigured.reason && former.some((one) => one.name === name);
    return [...here.filter((one) => !isSaid(one)), ...former];
  }

  /**
   * Ends some copies of one identity, which may be gone.
   *
   * @returns what is left of them
   * @throws ApiError where it couldn't be written down that they are gone
   */
  async end(
    keys: readonly CopyKey[],
    { signal, log, notify }: WithdrawalContext,
  ): Promise<RemainingCopy[]> {
    const { store, ledger, countCopy } = this.#options;
    const { withdrawn, remaining } = await store.withdraw(keys, signal);
    for (const key of keys.filter(({ name }) => withdrawn.includes(name))) {
      countCopy('withdraw', 'success');
      log.info('Copy of a credential withdrawn', { credential: key.name });
      notify({
        type: 'normal',
        reason: 'CopyWithdrawn',
        message: `All versions of credential ${key.name} in ${store.locationOf(key)} were destroyed.`,
      });
    }
    const isLeft = new Set(remaining.map(({ name }) => name));
    const ended = keys.filter(({ name }) => !isLeft.has(name));
    await Promise.all(ended.map((key) => ledger.strike({ key, place: store.placeOf(key) })));
    return remaining.map(({ name, what, error }) => {
      countCopy('withdraw', 'error');
      log.warn('Copy of a credential could not be withdrawn', { credential: name, error });
      return {
        name,
        problem: {
          ...reasons[error.failure],
          message: `${what} could not be destroyed: ${error.message}.`,
        },
      };
    });
  }

  /** Where a copy is made now, as the ledger has it. */
  placeOf(key: CopyKey): string {
    return this.#options.store.placeOf(key);
  }

  /** Copies of these credentials of one identity that are where the settings no longer lead. */
  async #former(keys: readonly CopyKey[]): Promise<RemainingCopy[]> {
    const [first] = keys;
    if (first === undefined) return [];
    // An administrator may have destroyed them, and taken them out.
    const entries = await this.#options.ledger.reread(ownerOf(first));
    return entries.filter((entry) => this.#isFormer(entry, keys)).map(outOfReach);
  }

  #isFormer({ key, place }: LedgerEntry, keys: readonly CopyKey[]): boolean {
    return (
      place !== this.placeOf(key) &&
      keys.some(({ uid, name }) => key.uid === uid && key.name === name)
    );
  }

  async #end(name: string, request: CopyRequest): Promise<CopyOutcome> {
    const [left] = await this.withdraw(request.identity, request, [name]);
    return left === undefined
      ? nothing
      : { ...inVault, problem: left.problem, dueAt: this.#options.clock() + refusedMs };
  }

  async #copy(
    credential: GeneratedSecret,
    live: Secret,
    { identity, notify, signal, log }: CopyRequest,
    isFresh: boolean,
  ): Promise<CopyOutcome> {
    const { store, ledger, countCopy, clock } = this.#options;
    const { name: secretName, uid = '', resourceVersion = '' } = live.metadata;
    const value = valueIn(live, credential.type);
    // Somebody emptied it, and nothing is granted now.
    if (value === undefined) return inVault;
    const key = copyKeyOf(identity, credential.name);
    const keepsPrevious = hasPreviousIn(live, credential.type);
    const copy = { key, secret: { name: secretName, uid, resourceVersion }, value, keepsPrevious };
    try {
      const { isWritten, destroyed } = await store.keep(copy, {
        isFresh,
        record: () => ledger.record({ key, place: store.placeOf(key) }),
        signal,
      });
      if (isWritten) {
        countCopy('write', 'success');
        log.info('Credential copied', { credential: credential.name });
        notify({
          type: 'normal',
          reason: 'Copied',
          message: `The value of Secret ${secretName} was copied to ${store.locationOf(key)}.`,
        });
      }
      if (destroyed > 0) {
        countCopy('destroy', 'success');
        log.info('Versions of a copied credential destroyed', {
          credential: credential.name,
          count: destroyed,
        });
      }
      return inVault;
    } catch (error) {
      if (!(error instanceof SecretStoreError)) throw error;
      countCopy('write', 'error');
      const { failure, status } = error;
      log.warn('Credential not copied', { credential: credential.name, failure, status });
      return {
        ...inVault,
        problem: {
          ...reasons[failure],
          message: `Credential ${credential.name} is not known to be in ${store.locationOf(key)}, and is not rotated until it is: ${error.message}.`,
        },
        dueAt: clock() + (error.retryMs ?? refusedMs),
      };
    }
  }
}

/** A copy of which the settings name another place now. */
export function outOfReach({ key, place }: LedgerEntry): RemainingCopy {
  return {
    name: key.name,
    problem: {
      ...reasons.NotConfigured,
      message: `${leftOf(place)} could not be destroyed: ${notTold}.`,
    },
  };
}

/** What a value before ends by, or begins to. */
function isPatient(
  step: CredentialStep,
): step is Extract<CredentialStep, { action: 'Retire' | 'Mint' | 'Rotate' }> {
  if (step.action === 'Retire') return true;
  if (step.action === 'Mint') return !urgent.has(step.pending.cause);
  // Of a value that its hook has set, the other system knows already: it is published.
  return step.action === 'Rotate' && !step.isNext && !urgent.has(step.cause);
}

/** Of these, no value is left to wait for. */
const urgent: ReadonlySet<string> = new Set(['ValueLost', 'SpecChanged', 'Emergency']);

const nothing: CopyOutcome = { store: {}, problem: undefined, dueAt: undefined };
const inVault: CopyOutcome = { ...nothing, store: { store: 'Vault' } };

const reasons: Record<SecretStoreError['failure'], Pick<Problem, 'reason'>> = {
  Unavailable: { reason: 'SecretStoreUnavailable' },
  Refused: { reason: 'SecretStoreRefused' },
  Foreign: { reason: 'ForeignObject' },
  Waiting: { reason: 'Provisioning' },
  NotConfigured: { reason: 'SecretStoreNotConfigured' },
};
