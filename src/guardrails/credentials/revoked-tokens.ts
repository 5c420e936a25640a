import type { Secret, TokenReview } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { dropOldest } from '../../runtime/bounded-map.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { readClaims, tokenOf } from './token.ts';
import { refusalOf } from './refusal.ts';

/**
 * Whether the API server accepts a token.
 *
 * @param audiences for whom; without any, for the API server itself. A valid token of another
 *   audience isn't accepted, so a token that is revoked has to be asked about with its own
 * @throws ApiError where it didn't answer; its message never holds the token
 */
export async function isAccepted(
  client: Pick<KubeClient, 'create'>,
  token: string,
  audiences: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  const spec = { token, ...(audiences.length > 0 && { audiences: [...audiences] }) };
  try {
    const body: TokenReview = { metadata: { name: '' }, spec };
    const { status } = await client.create(resources.tokenReviews, body, { signal });
    return status?.authenticated === true;
  } catch (error) {
    throw refusalOf(error, "A token couldn't be reviewed");
  }
}

/** A token that was taken away, until it is known to be dead. */
interface RevokedToken {
  secretName: string;
  token: string;
  audiences: readonly string[];
  /** Milliseconds since the epoch. */
  revokedAt: number;
}

/** What became of the revoked tokens of one identity. */
export interface RevocationReview {
  /** Names of Secrets all of whose tokens are found dead by this review. */
  dead: string[];
  /** Names of Secrets of which the API server accepts a token still. */
  accepted: string[];
  /** Milliseconds since the epoch of the oldest revocation that isn't accepted as one. */
  since: number | undefined;
}

/** Tokens that are remembered at a time; of more, the oldest is no longer asked about. */
const maxRemembered = 1_000;

/**
 * Proves that revoked tokens are dead: remembers each that is taken away, in memory alone, until
 * the API server, asked with the token's own audiences, no longer accepts it. It asks only who has
 * seen the token; a process that starts anew has nothing to ask about.
 */
export class RevokedTokens {
  readonly #clock: () => number;
  /** By `namespace/name` of the identity, and UID of the Secret. */
  readonly #tokens = new Map<string, RevokedToken>();

  /** @param options.clock milliseconds since the epoch */
  constructor({ clock }: { clock: () => number }) {
    this.#clock = clock;
  }

  /**
   * Remembers the token of a Secret that was deleted, where there is one in it.
   *
   * @param identity `namespace/name`
   */
  add(identity: string, secret: Secret): void {
    const token = tokenOf(secret);
    const claims = readClaims(token);
    if (claims === undefined) return;
    const { audiences } = claims;
    this.#tokens.set(`${identity} ${secret.metadata.uid ?? ''}`, {
      secretName: secret.metadata.name,
      token,
      audiences,
      revokedAt: this.#clock(),
    });
    dropOldest(this.#tokens, maxRemembered);
  }

  /**
   * Asks about the tokens of one identity, and forgets those that are dead.
   *
   * @param identity `namespace/name`
   * @throws ApiError where the API server didn't answer; its message never holds the token
   */
  async review(
    identity: string,
    client: Pick<KubeClient, 'create'>,
    signal: AbortSignal,
  ): Promise<RevocationReview> {
    const review: RevocationReview = { dead: [], accepted: [], since: undefined };
    for (const [key, revoked] of this.#tokens) {
      if (!key.startsWith(`${identity} `)) continue;
      const { secretName, token, audiences, revokedAt } = revoked;
      if (await isAccepted(client, token, audiences, signal)) {
        review.accepted.push(secretName);
        review.since = Math.min(revokedAt, review.since ?? revokedAt);
      } else {
        this.#tokens.delete(key);
        review.dead.push(secretName);
      }
    }
    return review;
  }
}
