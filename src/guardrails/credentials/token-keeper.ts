import {
  maxTokenSeconds,
  type OutsideToken,
  type TokenStatus,
} from '../../api/automation-identity.ts';
import { secretNameOf } from '../../api/names.ts';
import { keyOf, type Secret } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { isControlledBy } from '../../runtime/applier.ts';
import { dropOldest } from '../../runtime/bounded-map.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { isConflict, messageOf } from '../../runtime/errors.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import type { Problem } from '../requirements.ts';
import { clip, some } from '../wording.ts';
import type { KeepCredentials } from './keeper.ts';
import { askedOf } from './plan.ts';
import { earliest, foreignSecret, refusalOf, refusedMs } from './refusal.ts';
import { isAccepted, type RevokedTokens } from './revoked-tokens.ts';
import { lastHandledOf, type Handled } from './secret.ts';
import {
  clockSkewMs,
  newTokenSecret,
  publicationPatch,
  readClaims,
  tokenOf,
  type TokenClaims,
} from './token.ts';
import { planToken, type TokenPlan, type TokenStep } from './token-plan.ts';
import { withdrawSecrets } from './withdraw.ts';

export interface TokenKeeperOptions {
  client: KubeClient;
  /** Counts each token that was asked for. */
  countIssue: (result: 'success' | 'error') => void;
  /** Milliseconds since the epoch. */
  clock: () => number;
  revoked: RevokedTokens;
}

export interface KeepTokens extends Pick<
  KeepCredentials,
  'identity' | 'childMetadata' | 'isWithheld' | 'notify' | 'signal' | 'log'
> {
  /** What the spec asks for. */
  tokens: readonly OutsideToken[];
}

export interface TokensOutcome {
  /** What keeps the identity from being ready. */
  problems: Problem[];
  tokens: TokenStatus[];
  /** No token is left from before the `rotate` nonce. */
  isHandled: Handled;
  /** Milliseconds since the epoch at which to look again. */
  dueAt: number | undefined;
  /** Milliseconds since the epoch; `undefined` where no token is published. */
  soonestExpiry: number | undefined;
}

/** Requests in flight at a time, for one identity. */
const parallelism = 8;
/** Steps in a row for one token: revoke, create, mint, and what that makes due at once. */
const maxSteps = 4;
/** Whether the API server accepts an audience is asked again after this time. */
const verdictMs = 600_000;
/** Audiences that are remembered at a time. */
const maxVerdicts = 1_000;
/** Each API server remembers for 10 s that a token was good. */
const reviewAgainMs = 2_000;
/** A revoked token that is accepted for longer than that is reported. */
const overdueMs = 30_000;

/**
 * Keeps the tokens of one identity for readers outside of pods: minted, published, renewed at 80 %
 * of their life, and revoked when asked for. Each is bound to the Secret that holds it, so that
 * deleting the Secret ends every token that was ever published in it.
 *
 * Times in status are those of the API server's clock: where this machine's differs by more than
 * a minute, the last token that was minted tells by how much.
 */
export class TokenKeeper {
  readonly #options: TokenKeeperOptions;
  /** By audience: whether a token for it is one that the API server accepts itself. */
  readonly #verdicts = new Map<string, { isForApiServer: boolean; askedAt: number }>();
  /** Milliseconds that the API server's clock is ahead of this machine's. */
  #aheadMs = 0;

  constructor(options: TokenKeeperOptions) {
    this.#options = options;
  }

  /** @throws ApiError for what a retry may cure; its message never holds a token */
  async keep(request: KeepTokens): Promise<TokensOutcome> {
    const { identity, tokens, signal, log } = request;
    const { client, revoked } = this.#options;
    const { status } = identity;
    const names = new Set(tokens.map(({ name }) => name));
    const abandoned = (status?.tokens ?? []).filter(({ name }) => !names.has(name));
    const { withdrawn } = await withdrawSecrets(
      identity,
      abandoned.map(({ secretName }) => secretName),
      { client, revoked, signal },
    );
    if (withdrawn.length > 0) log.info('Tokens withdrawn', { secrets: withdrawn });

    const accountUid = tokens.length === 0 ? undefined : await this.#accountOf(request);
    const kept = await forEachBounded(tokens, parallelism, (token) =>
      this.#keepOne(token, accountUid, request),
    );
    const review = await this.#review(request);
    assertAllDone(kept, 'keep tokens');
    const results = kept.flatMap((outcome) => ('result' in outcome ? [outcome.result] : []));
    return {
      problems: [...results, review].flatMap(({ problem }) => problem ?? []),
      tokens: results.map((result) => result.status),
      isHandled: {
        rotate: results.every(({ isHandled }) => isHandled.rotate),
        emergency: results.every(({ isHandled }) => isHandled.emergency),
      },
      dueAt: earliest([...results, review].map(({ dueAt }) => dueAt)),
      soonestExpiry: this.#local(earliest(results.map(({ expiresAt }) => expiresAt))),
    };
  }

  /**
   * While a review has its access revoked: nothing is minted, and it is asked whether what was
   * withdrawn is dead.
   */
  async withdrawn(
    request: Pick<KeepTokens, 'identity' | 'notify' | 'signal' | 'log'>,
  ): Promise<TokensOutcome> {
    const { problem, dueAt } = await this.#review(request);
    return {
      ...withdrawnTokens(request.identity.status?.tokens),
      problems: problem === undefined ? [] : [problem],
      dueAt,
    };
  }

  /** UID of the ServiceAccount, where it is the identity's: of another one, no token is minted. */
  async #accountOf({ identity, signal }: KeepTokens): Promise<string | undefined> {
    const { namespace = '', name } = identity.metadata;
    const key = { namespace, name };
    const account = await this.#options.client.get(resources.serviceAccounts, key, { signal });
    if (account === undefined || !isControlledBy(account, identity)) return undefined;
    return account.metadata.deletionTimestamp === undefined ? account.metadata.uid : undefined;
  }

  async #keepOne(
    token: OutsideToken,
    accountUid: string | undefined,
    request: KeepTokens,
  ): Promise<KeptToken> {
    const { identity, isWithheld, signal } = request;
    const { client, clock } = this.#options;
    const { namespace = '', name: identityName } = identity.metadata;
    const { tokens: recorded = [], secrets = [] } = identity.status ?? {};
    const key = { namespace, name: secretNameOf(identityName, token.name) };
    const isRecorded = recorded.some(({ name }) => name === token.name);

    let live = await client.get(resources.secrets, key, { signal });
    for (let steps = 0; ; steps++) {
      if (live !== undefined && !isControlledBy(live, identity)) return this.#foreign(token, key);
      const observation = {
        identity: identityName,
        token,
        live,
        accountUid,
        asked: askedOf(identity),
        lastHandled: lastHandledOf(identity),
        isWithheld,
        isRefused: false,
        now: clock() + this.#aheadMs,
      };
      let plan = planToken(observation);
      // A revocation waits for no answer.
      if (plan.step.action !== 'Revoke') {
        observation.isRefused = (await this.#verdictOn(token, live, signal)) === 'Refused';
        plan = planToken(observation);
      }
      const { step } = plan;
      const kept = this.#keptAs(plan);
      const isAnnounced = isRecorded || step.action !== 'Create';
      // Under the same name, something else of ours stands, and is about to go.
      const isTaken = secrets.some(({ name }) => name === token.name);
      if (isTaken || !isAnnounced) {
        return { ...kept, problem: provisioning(key.name), dueAt: clock() };
      }
      if (step.action === 'None' || steps === maxSteps) {
        if (!observation.isRefused) return kept;
        const problem = audienceNotAllowed(token, key.name);
        return { ...kept, problem, dueAt: clock() + verdictMs };
      }
      const taken = await this.#take(step, token, key, request);
      if (taken.problem !== undefined) {
        return { ...kept, problem: taken.problem, dueAt: clock() + refusedMs };
      }
      live = taken.live;
    }
  }

  async #take(
    step: Exclude<TokenStep, { action: 'None' }>,
    token: OutsideToken,
    { namespace, name }: { namespace: string; name: string },
    request: KeepTokens,
  ): Promise<Taken> {
    const { identity, childMetadata, signal, log } = request;
    const { client, revoked } = this.#options;
    switch (step.action) {
      case 'Revoke': {
        const { uid = '' } = step.live.metadata;
        await client.delete(resources.secrets, { namespace, name }, { uid, signal });
        revoked.add(keyOf(identity), step.live);
        log.info('Tokens revoked', { secret: name, cause: step.cause });
        return { live: await client.get(resources.secrets, { namespace, name }, { signal }) };
      }
      case 'Create':
        try {
          const secret = newTokenSecret(childMetadata(name), step.answers);
          return { live: await client.create(resources.secrets, secret, { signal }) };
        } catch (error) {
          const { status, reason } = refusalOf(error, `Secret ${name} couldn't be created`);
          const message = `The API server refused to create Secret ${name} (${status} ${reason}). Look for a quota or an admission policy.`;
          return { problem: { reason: 'SecretNotCreated', message } };
        }
      case 'Mint':
        return this.#mint(step, token, request);
    }
  }

  async #mint(
    { live, accountUid, cause }: Extract<TokenStep, { action: 'Mint' }>,
    token: OutsideToken,
    request: KeepTokens,
  ): Promise<Taken> {
    const { signal, log, notify } = request;
    const { client, countIssue } = this.#options;
    const { namespace = '', name } = live.metadata;
    let minted: { text: string; claims: TokenClaims } | Problem;
    try {
      minted = await this.#request(live, accountUid, token, request);
    } catch (error) {
      if (!isConflict(error)) countIssue('error');
      throw error;
    }
    if ('reason' in minted) {
      countIssue('error');
      return { problem: minted };
    }
    const { text, claims } = minted;
    const verdict = await this.#verdictOn(token, undefined, signal);
    if (verdict === 'Unknown') {
      const isForApiServer = await this.#ask(token, text, signal);
      // It is bound to a Secret that it isn't put into: nobody has it.
      if (isForApiServer === true) return { live };
      if (isForApiServer === undefined) {
        countIssue('error');
        return { problem: notAccepted(token) };
      }
    }
    const patch = publicationPatch(live, token, text, claims);
    try {
      const key = { namespace, name };
      const published = await client.mergePatch(resources.secrets, key, patch, { signal });
      countIssue('success');
      log.info('Token issued', { secret: name, cause, expiresAt: new Date(claims.expiresAt) });
      if (cause === 'First') {
        const message = `Secret ${name} has a token for ${token.audience}.`;
        notify({ type: 'normal', reason: 'TokenIssued', message });
      }
      return { live: published };
    } catch (error) {
      const { status, reason } = refusalOf(error, `Secret ${name} couldn't be written`);
      countIssue('error');
      const message = `The API server refused to write Secret ${name} (${status} ${reason}). An immutable Secret has to be deleted; otherwise look for a quota or an admission policy.`;
      return { problem: { reason: 'TokenNotIssued', message } };
    }
  }

  /** Asks for a token, and makes sure that it is what was asked for. */
  async #request(
    live: Secret,
    accountUid: string,
    { name: tokenName, audience, expirationSeconds = maxTokenSeconds }: OutsideToken,
    { identity, signal, log }: KeepTokens,
  ): Promise<{ text: string; claims: TokenClaims } | Problem> {
    const { client, clock } = this.#options;
    const { namespace = '', name } = identity.metadata;
    const { name: secretName, uid = '' } = live.metadata;
    try {
      const { status } = await client.create(
        resources.tokenRequests,
        {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenRequest',
          metadata: { namespace, name, uid: accountUid },
          spec: {
            audiences: [audience],
            expirationSeconds,
            boundObjectRef: { apiVersion: 'v1', kind: 'Secret', name: secretName, uid },
          },
        },
        { subresource: 'token', signal },
      );
      const text = status?.token ?? '';
      const claims = readClaims(text);
      if (
        claims === undefined ||
        claims.audiences.join(' ') !== audience ||
        claims.secretUid !== uid ||
        claims.accountUid !== accountUid
      ) {
        const message = `The API server answered the request for token ${tokenName} with another one; it was thrown away.`;
        return { reason: 'TokenNotIssued', message };
      }
      const aheadMs = claims.issuedAt - clock();
      this.#aheadMs = Math.abs(aheadMs) > clockSkewMs ? aheadMs : 0;
      return { text, claims };
    } catch (error) {
      const { status, reason } = refusalOf(error, `Token ${tokenName} couldn't be requested`);
      log.warn('A token was refused', { secret: secretName, status, reason });
      const said = clip(messageOf(error));
      return {
        reason: 'TokenNotIssued',
        message: `The API server issues no token ${tokenName} (${status} ${reason}): ${said}`,
      };
    }
  }

  /**
   * Whether a token for that audience may be published. What isn't known is asked about the token
   * that is published already, where there is one: the API server may have been told of another
   * audience, and the spec may have allowed it before.
   */
  async #verdictOn(
    token: OutsideToken,
    published: Secret | undefined,
    signal: AbortSignal,
  ): Promise<'Allowed' | 'Refused' | 'Unknown'> {
    const { audience, allowKubernetesAPI } = token;
    if (allowKubernetesAPI === true) return 'Allowed';
    const verdict = this.#verdicts.get(audience);
    if (verdict !== undefined && this.#options.clock() - verdict.askedAt < verdictMs) {
      return verdict.isForApiServer ? 'Refused' : 'Allowed';
    }
    const text = published === undefined ? '' : tokenOf(published);
    if (readClaims(text)?.audiences.join(' ') !== audience) return 'Unknown';
    const isForApiServer = await this.#ask(token, text, signal);
    if (isForApiServer === undefined) return 'Unknown';
    return isForApiServer ? 'Refused' : 'Allowed';
  }

  /**
   * Whether the API server accepts a token itself. A no alone proves nothing, since it is also said
   * of a token that is dead, and when the API server can't look: it has to be a yes to the token's
   * own audience as well.
   *
   * @returns `undefined` where it accepts the token for nobody
   */
  async #ask(
    { audience }: OutsideToken,
    text: string,
    signal: AbortSignal,
  ): Promise<boolean | undefined> {
    const { client, clock } = this.#options;
    const isForApiServer = await isAccepted(client, text, [], signal);
    if (!isForApiServer && !(await isAccepted(client, text, [audience], signal))) return undefined;
    this.#verdicts.delete(audience);
    this.#verdicts.set(audience, { isForApiServer, askedAt: clock() });
    dropOldest(this.#verdicts, maxVerdicts);
    return isForApiServer;
  }

  /** Asks whether what was revoked is dead. */
  async #review({
    identity,
    notify,
    signal,
    log,
  }: Pick<KeepTokens, 'identity' | 'notify' | 'signal' | 'log'>): Promise<{
    problem?: Problem;
    dueAt?: number;
  }> {
    const { client, clock, revoked } = this.#options;
    const { dead, accepted, since } = await revoked.review(keyOf(identity), client, signal);
    for (const secret of dead) {
      log.info('Revoked tokens are dead', { secret });
      notify({
        type: 'normal',
        reason: 'TokenRevoked',
        message: `The API server accepts no token any more that was published in Secret ${secret} before.`,
      });
    }
    if (accepted.length === 0) return {};
    if (clock() - (since ?? 0) < overdueMs) return { dueAt: clock() + reviewAgainMs };
    return {
      dueAt: clock() + refusedMs,
      problem: {
        reason: 'TokenStillAccepted',
        message: `The API server accepts tokens that were revoked: those of Secret ${some(accepted)}.`,
      },
    };
  }

  #keptAs({ status, dueAt, expiresAt, isHandled }: TokenPlan): KeptToken {
    return { status, dueAt: this.#local(dueAt), expiresAt, isHandled, problem: undefined };
  }

  #foreign(token: OutsideToken, key: { namespace: string; name: string }): KeptToken {
    return {
      status: { name: token.name, secretName: key.name, audience: token.audience },
      dueAt: this.#options.clock() + refusedMs,
      expiresAt: undefined,
      isHandled: { rotate: true, emergency: true },
      problem: foreignSecret(key),
    };
  }

  /** A time of the API server's clock, by this machine's. */
  #local(time: number | undefined): number | undefined {
    return time === undefined ? undefined : time - this.#aheadMs;
  }
}

/** While killed or revoked: nothing is minted, and what was published is told of until it would have expired. */
export function withdrawnTokens(recorded: readonly TokenStatus[] = []): TokensOutcome {
  return {
    problems: [],
    tokens: recorded.map(({ name, secretName, audience, issuedAt, expirationTime }) => ({
      name,
      secretName,
      audience,
      ...(issuedAt !== undefined && { issuedAt }),
      ...(expirationTime !== undefined && { expirationTime }),
    })),
    isHandled: { rotate: true, emergency: true },
    dueAt: undefined,
    soonestExpiry: undefined,
  };
}

interface Taken {
  live?: Secret | undefined;
  problem?: Problem;
}

interface KeptToken {
  status: TokenStatus;
  problem: Problem | undefined;
  /** Milliseconds since the epoch, by this machine's clock. */
  dueAt: number | undefined;
  /** Milliseconds since the epoch, by the clock of the API server. */
  expiresAt: number | undefined;
  isHandled: Handled;
}

/** The name of a Secret goes into status before it is created, as that of every credential. */
function provisioning(secretName: string): Problem {
  return { reason: 'Provisioning', message: `Secret ${secretName} is about to be created.` };
}

function audienceNotAllowed({ name, audience }: OutsideToken, secretName: string): Problem {
  return {
    reason: 'AudienceNotAllowed',
    message: `Token ${name} is not issued: ${audience} is an audience of this cluster's API server, so that whoever reads Secret ${secretName} could act as the identity. Write the audience of the system that the token is for, or set allowKubernetesAPI: true, if that is meant.`,
  };
}

function notAccepted({ name }: OutsideToken): Problem {
  return {
    reason: 'TokenNotIssued',
    message: `The API server doesn't accept the token ${name} that it issued; it was thrown away.`,
  };
}
