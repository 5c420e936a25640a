import type { AutomationIdentity } from '../../api/automation-identity.ts';

/** One credential's copy in a store beside Kubernetes. */
export interface CopyKey {
  /** Of the identity. */
  namespace: string;
  /** Name of the AutomationIdentity. */
  identity: string;
  /**
   * UID of the AutomationIdentity: a copy that another one has made is never touched. Empty where
   * nothing tells it any more: then the copy is looked for, and never touched.
   */
  uid: string;
  /** Name of the credential within the identity. */
  name: string;
}

/** What the copy has to be. */
export interface Copy {
  key: CopyKey;
  /** The Secret that is the record of the value; the token that is asked for is bound to it. */
  secret: { name: string; uid: string; resourceVersion: string };
  /** By the keys of its type, as they are. */
  value: Readonly<Record<string, string>>;
  /** Versions before stay readable: the overlap isn't over. */
  keepsPrevious: boolean;
}

export interface KeepOptions {
  /** The store is asked, however lately it was. */
  isFresh: boolean;
  /**
   * Writes down that there is such a copy; awaited once it is known that the place is free, or the
   * copy's own, and before anything is written there.
   */
  record: () => Promise<void>;
  signal: AbortSignal;
}

/** What was done: nothing, since it was so already, or the writes by which it is so now. */
export interface CopyChange {
  /** A new version was written. */
  isWritten: boolean;
  /** Number of versions that were destroyed. */
  destroyed: number;
}

/** What became of copies that were to be withdrawn. */
export interface CopyWithdrawal {
  /** Names of credentials of which all versions are gone by this. */
  withdrawn: string[];
  /** Where they are, and why they are still there, for people; never a value. */
  remaining: { name: string; what: string; error: SecretStoreError }[];
  /** The store was asked; otherwise it is left alone for now, since it didn't answer. */
  wasAsked: boolean;
}

/**
 * A store beside Kubernetes. The Secret stays the record of a value: a copy is brought to what the
 * Secret says, as often as it takes, and nothing is ever read from it to be published.
 */
export interface SecretStore {
  /**
   * Brings a copy to what its Secret says. Done already, it does nothing.
   *
   * @throws SecretStoreError, and what `record` throws: then nothing was written
   */
  keep(copy: Copy, options: KeepOptions): Promise<CopyChange>;
  /**
   * Ends every version of some copies. What says that it is somebody else's is left
   * alone, and told: whoever may write there could have made it say so. Never throws, but for the
   * signal.
   */
  withdraw(keys: readonly CopyKey[], signal: AbortSignal): Promise<CopyWithdrawal>;
  /** Where a copy is, for people. */
  locationOf(key: CopyKey): string;
  /**
   * Where a copy is, among all stores that there ever were: another server has another. It ends in
   * namespace, identity and name.
   */
  placeOf(key: CopyKey): string;
}

/** Why a store doesn't do what it is asked. */
export type SecretStoreFailure =
  /** It doesn't answer, or not now: sealed, overloaded, on the way to another leader. */
  | 'Unavailable'
  /** It answers, and doesn't allow it. */
  | 'Refused'
  /** Something else is where the copy would be. */
  | 'Foreign'
  /** The identity has no ServiceAccount yet to write as. */
  | 'Waiting'
  /** The operator isn't told of any store. */
  | 'NotConfigured';

/** A store didn't do what it was asked. The message is our own: what a store said is never told. */
export class SecretStoreError extends Error {
  readonly code = 'SECRET_STORE_ERROR';
  override readonly name = 'SecretStoreError';
  readonly failure: SecretStoreFailure;
  /** HTTP status; `undefined` where there was no answer. */
  readonly status: number | undefined;

  /** After which it is worth asking again; `undefined` where nothing tells. */
  readonly retryMs: number | undefined;

  constructor(
    failure: SecretStoreFailure,
    message: string,
    { status, retryMs }: { status?: number | undefined; retryMs?: number } = {},
  ) {
    super(message);
    this.failure = failure;
    this.status = status;
    this.retryMs = retryMs;
  }
}

/** Keys of the copies that an identity's status tells of, of which some may never have been made. */
export function copiesOf(identity: AutomationIdentity): CopyKey[] {
  return (identity.status?.secrets ?? []).flatMap(({ name, store }) =>
    store === 'Vault' ? [copyKeyOf(identity, name)] : [],
  );
}

/** @param name of the credential within the identity */
export function copyKeyOf(
  { metadata }: Pick<AutomationIdentity, 'metadata'>,
  name: string,
): CopyKey {
  const { namespace = '', name: identity, uid = '' } = metadata;
  return { namespace, identity, uid, name };
}

/** @param place of a copy that is left; it ends in namespace, identity and name */
export function leftOf(place: string): string {
  return `${leftPrefix}${place}`;
}

/** Why a copy is left where the settings no longer lead. */
export const notTold = 'the operator is not told of that place any more';

/** What begins all that {@link leftOf} says. */
export const leftPrefix = 'Copy in ';

/**
 * Key of the copy that {@link leftOf} spoke of, without the UID.
 *
 * @returns `undefined` where it is about nothing in that namespace
 */
export function copyLeftIn(namespace: string, what: string): CopyKey | undefined {
  const [where, identity = '', name = ''] = what.split(/[ /]/).slice(-3);
  const isCopy = what.startsWith(leftPrefix) && where === namespace;
  return isCopy ? { namespace, identity, uid: '', name } : undefined;
}

/** Where the operator isn't told of any vault: nothing is copied, and nothing can be withdrawn. */
export const noSecretStore: SecretStore = {
  keep: () => Promise.reject(notConfigured()),
  withdraw: (keys) =>
    Promise.resolve({
      withdrawn: [],
      remaining: keys.map((key) => ({
        name: key.name,
        what: leftOf(
          `a vault that the operator no longer knows: ${key.namespace}/${key.identity}/${key.name}`,
        ),
        error: notConfigured(),
      })),
      wasAsked: false,
    }),
  locationOf: () => 'a vault',
  placeOf: ({ namespace, identity, name }) => `no vault ${namespace}/${identity}/${name}`,
};

function notConfigured(): SecretStoreError {
  return new SecretStoreError('NotConfigured', 'the operator runs without --vault-address');
}
