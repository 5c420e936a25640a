import { z } from 'zod';
import type { OutsideToken } from '../../api/automation-identity.ts';
import type { ObjectMeta, Secret } from '../../api/objects.ts';
import { answerAnnotations, answersIn, type Answers, base64, versionOf } from './secret.ts';

/**
 * The Secret of a token for readers outside of pods. All that is to be known of the token is read
 * from the token itself, so that nothing beside it can disagree with it.
 */

/** What a token says of itself. Nobody has checked its signature here. */
export interface TokenClaims {
  audiences: readonly string[];
  /** Milliseconds since the epoch, by the clock of the API server. */
  issuedAt: number;
  /** Milliseconds since the epoch, by the clock of the API server. */
  expiresAt: number;
  /** UID of the Secret that it is bound to. */
  secretUid: string | undefined;
  /** UID of the ServiceAccount whose token it is. */
  accountUid: string | undefined;
}

/** Latest time that RFC 3339 can write, in seconds. */
const endOfTime = 253_402_300_799;

const seconds = z.number().min(0).max(endOfTime);

/** Claims of the API server's tokens (`pkg/serviceaccount/claims.go` of Kubernetes). */
const payloadSchema = z.object({
  aud: z.union([z.string().transform((one) => [one]), z.array(z.string())]),
  iat: seconds,
  exp: seconds,
  'kubernetes.io': z
    .object({
      secret: z.object({ uid: z.string() }).optional(),
      serviceaccount: z.object({ uid: z.string() }).optional(),
    })
    .optional(),
});

/** Reads the claims of a JSON Web Token; total. @returns `undefined` for anything else */
export function readClaims(token: string): TokenClaims | undefined {
  const [, payload, signature] = token.split('.');
  if (payload === undefined || signature === undefined) return undefined;
  const { success, data } = payloadSchema.safeParse(jsonOf(payload));
  if (!success) return undefined;
  const bound = data['kubernetes.io'];
  return {
    audiences: data.aud,
    issuedAt: data.iat * 1000,
    expiresAt: data.exp * 1000,
    secretUid: bound?.secret?.uid,
    accountUid: bound?.serviceaccount?.uid,
  };
}

function jsonOf(base64url: string): unknown {
  try {
    return JSON.parse(Buffer.from(base64url, 'base64url').toString());
  } catch {
    return undefined;
  }
}

/** How far the clocks of two machines may be apart. */
export const clockSkewMs = 60_000;

/** The token that a Secret publishes; the empty string where there is none. */
export function tokenOf({ data }: Secret): string {
  return Buffer.from(data?.['token'] ?? '', 'base64').toString();
}

/** What a Secret says, however it has been treated. */
export interface TokenState {
  /** Of the published token; `undefined` where there is none. */
  claims: TokenClaims | undefined;
  answers: Answers;
}

/** Reads the state; total. */
export function readTokenState(secret: Secret): TokenState {
  return {
    claims: readClaims(tokenOf(secret)),
    answers: answersIn(secret),
  };
}

/** When a new token takes the place of one: after 80 % of its life. Milliseconds since the epoch. */
export function renewalOf({ issuedAt, expiresAt }: TokenClaims): number {
  return issuedAt + Math.max(0, expiresAt - issuedAt) * 0.8;
}

/**
 * A Secret that a token can be bound to: empty, since it is its UID that the token needs.
 *
 * @param answers what it is an answer to
 */
export function newTokenSecret(metadata: ObjectMeta, answers: Answers): Secret {
  return {
    metadata: { ...metadata, annotations: answerAnnotations(answers) },
    type: 'Opaque',
  };
}

/**
 * Merge patch that publishes a token in the place of the one before, which stays valid for the rest
 * of its life. It names the version that it was planned for, so that it happens once.
 */
export function publicationPatch(
  live: Secret,
  { audience }: OutsideToken,
  token: string,
  { expiresAt }: TokenClaims,
): object {
  return {
    metadata: versionOf(live),
    data: {
      token: base64(token),
      audience: base64(audience),
      expirationTimestamp: base64(new Date(expiresAt).toISOString().replace(/\.\d+/, '')),
    },
  };
}
