import { resources } from '../../api/resources.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { controllerOf } from '../../runtime/applier.ts';
import { isNotFound } from '../../runtime/errors.ts';
import { refusalOf } from '../credentials/refusal.ts';
import { isAccepted } from '../credentials/revoked-tokens.ts';
import { readClaims } from '../credentials/token.ts';
import { SecretStoreError, type Copy } from './store.ts';

export interface IdentityTokensOptions {
  /** Writes only while this process leads. */
  client: Pick<KubeClient, 'get' | 'create'>;
  /** Whom the tokens are for: the vault, and never the API server. */
  audience: string;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** Seconds; the API server takes no less. The token is used at once, and forgotten. */
const lifeSeconds = 600;
/** For how long it is believed that the API server doesn't take tokens of the audience itself. */
const verdictMs = 600_000;

/**
 * Tokens by which the operator logs in to a vault as an identity. Each is for the vault alone, and
 * bound to the Secret whose value is copied: it ends with it.
 */
export class IdentityTokens {
  readonly #options: IdentityTokensOptions;
  /** Milliseconds since the epoch. */
  #trustedUntil = -Infinity;

  constructor(options: IdentityTokensOptions) {
    this.#options = options;
  }

  /**
   * A token of the identity's ServiceAccount. One that the API server would take for itself never
   * leaves the operator: whoever runs the vault could use it.
   *
   * @throws SecretStoreError where there is no ServiceAccount of the identity's, or the token is
   *   refused; ApiError for what a retry may cure
   */
  async issue({ key, secret }: Copy, signal: AbortSignal): Promise<string> {
    const { client, audience } = this.#options;
    const { namespace, identity, uid } = key;
    const account = await client.get(
      resources.serviceAccounts,
      { namespace, name: identity },
      { metadataOnly: true, signal },
    );
    const accountUid = account?.metadata.uid ?? '';
    if (account === undefined || controllerOf(account)?.uid !== uid) {
      throw new SecretStoreError(
        'Waiting',
        `there is no ServiceAccount ${identity} of the identity's to log in with`,
      );
    }
    const token = await this.#request(key, secret, accountUid, signal);
    const claims = readClaims(token);
    if (
      claims === undefined ||
      claims.audiences.join(' ') !== audience ||
      claims.secretUid !== secret.uid ||
      claims.accountUid !== accountUid
    ) {
      throw new SecretStoreError(
        'Refused',
        'the API server issued another token than was asked for',
      );
    }
    await this.#refuseForApiServer(token, signal);
    return token;
  }

  async #request(
    { namespace, identity }: Copy['key'],
    secret: Copy['secret'],
    accountUid: string,
    signal: AbortSignal,
  ): Promise<string> {
    const { client, audience } = this.#options;
    try {
      const { status } = await client.create(
        resources.tokenRequests,
        {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenRequest',
          metadata: { namespace, name: identity, uid: accountUid },
          spec: {
            audiences: [audience],
            expirationSeconds: lifeSeconds,
            boundObjectRef: {
              apiVersion: 'v1',
              kind: 'Secret',
              name: secret.name,
              uid: secret.uid,
            },
          },
        },
        { subresource: 'token', signal },
      );
      return status?.token ?? '';
    } catch (error) {
      if (isNotFound(error)) {
        throw new SecretStoreError('Waiting', `the ServiceAccount ${identity} is being replaced`);
      }
      const { status, reason } = refusalOf(error, 'A token for the vault could not be requested');
      throw new SecretStoreError(
        'Refused',
        `the API server refuses a token of ${identity} for the vault (${status} ${reason})`,
        { status },
      );
    }
  }

  /** A no proves nothing without a yes to the audience: it is said of a dead token, too. */
  async #refuseForApiServer(token: string, signal: AbortSignal): Promise<void> {
    const { client, audience, clock } = this.#options;
    if (clock() < this.#trustedUntil) return;
    if (await isAccepted(client, token, [], signal)) {
      throw new SecretStoreError(
        'Refused',
        'the audience of --vault-audience is one of the API server itself: choose another',
      );
    }
    if (!(await isAccepted(client, token, [audience], signal))) {
      throw new SecretStoreError('Waiting', 'the API server does not accept the token it issued');
    }
    this.#trustedUntil = clock() + verdictMs;
  }
}
