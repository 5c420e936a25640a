import type { OutsideToken, TokenStatus } from '../../api/automation-identity.ts';
import { timestamp } from '../../api/conditions.ts';
import { secretNameOf } from '../../api/names.ts';
import type { Secret } from '../../api/objects.ts';
import {
  answersAtCreation,
  handledBy,
  isUnanswered,
  type Answers,
  type Handled,
} from './secret.ts';
import { clockSkewMs, readTokenState, renewalOf, type TokenState } from './token.ts';

/** One token, as it stands and as it is asked for. */
export interface TokenObservation {
  /** Name of the AutomationIdentity. */
  identity: string;
  token: OutsideToken;
  /** Its Secret, which is ours; `undefined` where there is none. */
  live: Secret | undefined;
  /** UID of the identity's ServiceAccount; `undefined` where it has none. */
  accountUid: string | undefined;
  asked: Answers;
  /** The nonces that the identity as a whole answered last. */
  lastHandled: Pick<Answers, 'rotate' | 'emergency'>;
  /** Nothing is granted now that doesn't stand yet. */
  isWithheld: boolean;
  /** The API server accepts tokens for that audience itself, and the spec doesn't allow it. */
  isRefused: boolean;
  /** Milliseconds since the epoch, by the clock of the API server as far as it is known. */
  now: number;
}

/** The one step that is due. */
export type TokenStep =
  | { action: 'None' }
  /** An empty Secret, for the token to be bound to. */
  | { action: 'Create'; answers: Answers }
  /** A token that is published in the Secret. */
  | { action: 'Mint'; live: Secret; accountUid: string; cause: MintCause }
  /** The Secret goes, and with it every token that was ever published in it. */
  | { action: 'Revoke'; live: Secret; cause: RevocationCause };

export type MintCause = 'First' | 'Due' | 'Dead';
export type RevocationCause =
  | 'Requested'
  | 'OwnerChanged'
  | 'AudienceChanged'
  | 'AudienceNotAllowed';

export interface TokenPlan {
  step: TokenStep;
  /** Milliseconds since the epoch at which the plan changes by itself. */
  dueAt: number | undefined;
  /** Milliseconds since the epoch at which the published token expires. */
  expiresAt: number | undefined;
  /** No token is left from before that was asked. */
  isHandled: Handled;
  status: TokenStatus;
}

interface Situation extends TokenObservation {
  live: Secret;
  state: TokenState;
}

/** Why all that was published in a Secret is revoked. This list is the specification. */
const revocations: readonly ((situation: Situation) => RevocationCause | undefined)[] = [
  ({ asked, state: { answers } }) =>
    isUnanswered('rotate', answers, asked) || isUnanswered('emergency', answers, asked)
      ? 'Requested'
      : undefined,
  // Unless it isn't known for whom it was made.
  ({ asked, state: { answers } }) =>
    answers.owner !== undefined && isUnanswered('owner', answers, asked)
      ? 'OwnerChanged'
      : undefined,
  ({ token, state: { claims } }) =>
    claims !== undefined && claims.audiences.join(' ') !== token.audience
      ? 'AudienceChanged'
      : undefined,
  ({ isRefused, state }) =>
    isRefused && state.claims !== undefined ? 'AudienceNotAllowed' : undefined,
];

/** Why a token is minted into a Secret that stands. This list is the specification. */
const mints: readonly ((situation: Situation) => MintCause | undefined)[] = [
  ({ state, isWithheld }) => (state.claims === undefined && !isWithheld ? 'First' : undefined),
  dead,
  ({ state: { claims }, now }) =>
    claims !== undefined && (renewalOf(claims) <= now || isFromFuture(claims.issuedAt, now))
      ? 'Due'
      : undefined,
];

/** Its ServiceAccount was made anew, or the Secret is a copy of the one that it is bound to. */
function dead({ live, state: { claims }, accountUid }: Situation): MintCause | undefined {
  if (claims === undefined) return undefined;
  return claims.accountUid !== accountUid || claims.secretUid !== live.metadata.uid
    ? 'Dead'
    : undefined;
}

/** The clock runs behind: when the token is due can't be told by it. */
function isFromFuture(issuedAt: number, now: number): boolean {
  return issuedAt > now + clockSkewMs;
}

/**
 * Decides on one token. Its state is in its Secret alone, and each step changes one thing on the
 * version that it was planned for: at whatever point the work is cut off, the next plan goes on from
 * what stands. A token that was minted and not published is in nobody's hands, and expires.
 */
export function planToken(observation: TokenObservation): TokenPlan {
  const { identity, token, live, accountUid, asked, lastHandled } = observation;
  const { isWithheld, isRefused } = observation;
  const status = {
    name: token.name,
    secretName: secretNameOf(identity, token.name),
    audience: token.audience,
  };
  if (live === undefined) {
    return {
      step:
        isWithheld || isRefused || accountUid === undefined
          ? none
          : {
              action: 'Create',
              answers: answersAtCreation(asked, lastHandled),
            },
      dueAt: undefined,
      expiresAt: undefined,
      isHandled: { rotate: true, emergency: true },
      status,
    };
  }
  const state = readTokenState(live);
  const { claims } = state;
  const isHandled = handledBy(state.answers, asked);
  if (claims === undefined) {
    return {
      step: stepOf({ ...observation, live, state }),
      dueAt: undefined,
      expiresAt: undefined,
      isHandled,
      status,
    };
  }
  const renewAt = renewalOf(claims);
  const step = stepOf({ ...observation, live, state });
  return {
    step,
    // What is due and can't be done waits for something else than time.
    dueAt: step.action === 'None' && renewAt <= observation.now ? undefined : renewAt,
    expiresAt: claims.expiresAt,
    isHandled,
    status: {
      ...status,
      audience: claims.audiences.join(' ').slice(0, 256),
      issuedAt: timestamp(claims.issuedAt),
      expirationTime: timestamp(claims.expiresAt),
      renewTime: timestamp(renewAt),
    },
  };
}

const none: TokenStep = { action: 'None' };

function stepOf(situation: Situation): TokenStep {
  const { live, accountUid, isRefused } = situation;
  if (live.metadata.deletionTimestamp !== undefined) return none;
  for (const causeOf of revocations) {
    const cause = causeOf(situation);
    if (cause !== undefined) return { action: 'Revoke', live, cause };
  }
  if (accountUid === undefined || isRefused) return none;
  for (const causeOf of mints) {
    const cause = causeOf(situation);
    if (cause !== undefined) return { action: 'Mint', live, accountUid, cause };
  }
  return none;
}
