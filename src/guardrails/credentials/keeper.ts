import {
  defaultConcurrentRestarts,
  isGenerated,
  maxSecretStatuses,
  type AutomationIdentity,
  type AutomationIdentitySpec,
  type GeneratedSecret,
  type SecretEntry,
  type SecretStatus,
} from '../../api/automation-identity.ts';
import type { Tier } from '../../api/guardrail-policy.ts';
import { timestamp } from '../../api/conditions.ts';
import { secretNameOf, secretPrefix } from '../../api/names.ts';
import type { ObjectMeta, Pod, Secret } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { Workload } from '../../api/workload.ts';
import type { Logger } from '../../observability/logger.ts';
import { isControlledBy } from '../../runtime/applier.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError, isConflict, messageOf } from '../../runtime/errors.ts';
import type { IndexedStore } from '../../runtime/merged-store.ts';
import type { ReadStore } from '../../runtime/store.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import type { Problem } from '../requirements.ts';
import { clip, some } from '../wording.ts';
import type { CopyOutcome, CredentialCopies } from './copies.ts';
import { existingSecret, type ExistingSecret } from './existing.ts';
import { generateValue, type RandomBytes } from './generate.ts';
import { HookRunner } from './hook.ts';
import {
  mintPatch,
  newPendingSecret,
  nextValue,
  pendingPatch,
  type Failure,
  type Pending,
} from './pending.ts';
import { earliest, foreignSecret, refusalOf, refusedMs } from './refusal.ts';
import { ExternalRefresh } from './refresh.ts';
import { restartConsumers } from './restarts.ts';
import type { RevokedTokens } from './revoked-tokens.ts';
import { SecretNotices, type SecretNotice } from './secret-notices.ts';
import { credentialSecretsOf, withdrawSecrets } from './withdraw.ts';
import {
  askedOf,
  planCredential,
  spreadOf,
  type CredentialPlan,
  type CredentialStep,
} from './plan.ts';
import {
  lastHandledOf,
  newSecret,
  ownerPatch,
  retirementPatch,
  rotationPatch,
  type Publication,
} from './secret.ts';

/** Something worth an event of the identity. */
export interface Notice {
  type: 'normal' | 'warning';
  /** CamelCase, stable. */
  reason: string;
  message: string;
}

export interface CredentialKeeperOptions {
  client: KubeClient;
  /** Indexed by `secret` (`namespace/secretName`) and `identity` (`namespace/serviceAccountName`). */
  workloads: IndexedStore<Workload>;
  /** Indexed by `secret` (`namespace/secretName`). */
  pods: Pick<ReadStore<Pod>, 'byIndex'>;
  /** Counts each rotation that was tried. */
  countRotation: (result: 'success' | 'error') => void;
  /** Milliseconds since the epoch. */
  clock: () => number;
  randomBytes: RandomBytes;
  /** Remembers the tokens that are withdrawn. */
  revoked: RevokedTokens;
  /** Where copies of credentials are kept whose entry says so. */
  copies: CredentialCopies;
}

export interface KeepCredentials {
  identity: AutomationIdentity;
  /** What the spec asks for. */
  credentials: readonly SecretEntry[];
  /** Name, labels and controller reference of a child. */
  childMetadata: (name: string) => ObjectMeta;
  /** What the environment of the namespace counts as; `undefined`: nothing says so. */
  tier: Tier | undefined;
  /** Nothing is granted now that doesn't stand yet. */
  isWithheld: boolean;
  /** The kill switch of the identity is engaged: its own workloads aren't touched. */
  isKilled: boolean;
  notify: (notice: Notice) => void;
  signal: AbortSignal;
  log: Logger;
}

interface Look extends KeepCredentials {
  /** What happens to Secrets meanwhile. */
  told: SecretNotices;
}

export interface CredentialsOutcome {
  /** What keeps the identity from being ready. */
  problems: Problem[];
  /** What should have happened by now; it keeps nobody from being ready. */
  overdue: Problem[];
  secrets: SecretStatus[];
  lastHandledRotation: string | undefined;
  lastHandledEmergencyRotation: string | undefined;
  /** Milliseconds since the epoch at which to look again. */
  dueAt: number | undefined;
  /** Milliseconds since the epoch; `undefined` where there is none. */
  oldestRotatedAt: number | undefined;
}

/** Requests in flight at a time, for one identity. */
const parallelism = 8;
/** A copy that couldn't be withdrawn is tried again after this time. */
const withdrawAgainMs = 10_000;
/** Writes in a row to one Secret: a rotation, and what it makes due at once. */
const maxSteps = 3;

/**
 * Keeps the generated credentials of one identity: created, rotated when due or asked for,
 * previous values withdrawn, consumers restarted, and what left the spec deleted.
 *
 * Secrets are read by name, each time: a watch would need the right to list them, which shows
 * every value in the namespace.
 */
export class CredentialKeeper {
  readonly #options: CredentialKeeperOptions;
  readonly #refresh: ExternalRefresh;
  readonly #hooks: HookRunner;

  constructor(options: CredentialKeeperOptions) {
    this.#options = options;
    this.#refresh = new ExternalRefresh(options);
    this.#hooks = new HookRunner(options);
  }

  /** @throws ApiError for what a retry may cure; its message never comes from a Secret */
  async keep(request: KeepCredentials): Promise<CredentialsOutcome> {
    const { identity, credentials } = request;
    const generated = credentials.filter(isGenerated);
    const watched = credentials.filter((entry) => !isGenerated(entry));
    const names = new Set(generated.map(({ name }) => secretNameOf(identity.metadata.name, name)));
    const abandoned = (identity.status?.secrets ?? []).filter(
      ({ secretName }) => secretName.startsWith(secretPrefix) && !names.has(secretName),
    );

    const deleted = await forEachBounded(abandoned, parallelism, (status) =>
      this.#delete(status, request),
    );
    const told = new SecretNotices();
    const look = { ...request, told };
    const kept = await forEachBounded(generated, parallelism, async (credential) =>
      this.#keepCopy(credential, await this.#keepOne(credential, look), request),
    );
    told.tell(request.notify);
    const seen = await forEachBounded(watched, parallelism, (entry) => this.#watch(entry, request));
    assertAllDone(deleted, 'delete credentials');
    assertAllDone(kept, 'keep credentials');
    assertAllDone(seen, 'watch credentials');
    const results = kept.flatMap((outcome) => ('result' in outcome ? [outcome.result] : []));
    const hookJobs = new Set(results.flatMap((result) => result.hookJobs));
    await this.#hooks.tidy(identity, hookJobs, request.signal);
    const left = deleted.flatMap((outcome) => ('result' in outcome ? (outcome.result ?? []) : []));
    const existing = seen.flatMap((outcome) => ('result' in outcome ? [outcome.result] : []));
    const restarts = await restartConsumers(results, request, this.#options);

    const asked = askedOf(identity);
    const handled = (what: 'rotate' | 'emergency'): string | undefined =>
      results.every(({ isHandled }) => isHandled[what]) ? asked[what] : undefined;
    return {
      problems: [
        ...[...results, ...existing, ...left].flatMap(({ problem }) => problem ?? []),
        ...restarts.problems,
      ],
      overdue: [
        ...results.flatMap(({ status, holdouts }) => overdueOf(status, holdouts)),
        ...existing.flatMap(({ overdue }) => overdue ?? []),
      ],
      secrets: [
        // First: what is cut off here isn't made before there is room for it.
        ...left.map(({ status }) => status),
        ...credentials.flatMap(
          ({ name }) =>
            [...results, ...existing].find(({ status }) => status.name === name)?.status ?? [],
        ),
      ].slice(0, maxSecretStatuses),
      lastHandledRotation: handled('rotate') ?? identity.status?.lastHandledRotation,
      lastHandledEmergencyRotation:
        handled('emergency') ?? identity.status?.lastHandledEmergencyRotation,
      dueAt: earliest([...results, ...existing, ...left, restarts].map(({ dueAt }) => dueAt)),
      oldestRotatedAt: earliest(results.map(({ rotatedAt }) => rotatedAt)),
    };
  }

  /**
   * While killed or revoked: every Secret is deleted, those of tokens among them, also one that came
   * into being just before. Their state stays in status, so that what ends it makes successors of
   * them and not first values.
   *
   * @param spec `undefined` where it can't be read
   * @throws ApiError for what a retry may cure; its message never comes from a Secret
   */
  async withdraw(
    identity: AutomationIdentity,
    spec: AutomationIdentitySpec | undefined,
    { signal, log, notify }: Pick<KeepCredentials, 'signal' | 'log' | 'notify'>,
  ): Promise<CredentialsOutcome> {
    const { client, revoked, copies, clock } = this.#options;
    const names = credentialSecretsOf(identity, spec);
    // What they were to set is no value any more.
    await this.#hooks.tidy(identity, new Set(), signal);
    const { withdrawn } = await withdrawSecrets(identity, names, { client, revoked, signal });
    if (withdrawn.length > 0) log.info('Credentials withdrawn', { secrets: withdrawn });
    const left = await copies.withdraw(identity, { signal, log, notify });
    return {
      problems: left.map(({ problem }) => problem),
      overdue: [],
      secrets: (identity.status?.secrets ?? []).map((status) => {
        const { name, secretName, lastRotationTime } = status;
        // What is only watched stays as it is.
        if (!secretName.startsWith(secretPrefix)) return status;
        return {
          name,
          secretName,
          ...(left.some((copy) => copy.name === name) && { store: 'Vault' as const }),
          ...(lastRotationTime !== undefined && { lastRotationTime }),
        };
      }),
      lastHandledRotation: identity.status?.lastHandledRotation,
      lastHandledEmergencyRotation: identity.status?.lastHandledEmergencyRotation,
      dueAt: left.length > 0 ? clock() + withdrawAgainMs : undefined,
      oldestRotatedAt: undefined,
    };
  }

  /** By its metadata, and nothing else: its values are never read. */
  async #watch(entry: SecretEntry, { identity, signal }: KeepCredentials): Promise<ExistingSecret> {
    const { client, clock } = this.#options;
    const { namespace = '' } = identity.metadata;
    const key = { namespace, name: entry.secretName ?? '' };
    const live = await client.get(resources.secrets, key, { metadataOnly: true, signal });
    const seen = existingSecret(entry, live?.metadata, clock());
    return live === undefined ? { ...seen, dueAt: clock() + refusedMs } : seen;
  }

  async #keepOne(credential: GeneratedSecret, request: Look): Promise<KeptCredential> {
    const { identity, isWithheld, isKilled, signal } = request;
    const { client, clock, pods, copies } = this.#options;
    const { namespace = '', name: identityName } = identity.metadata;
    const key = { namespace, name: secretNameOf(identityName, credential.name) };
    const recorded = identity.status?.secrets?.find(({ secretName }) => secretName === key.name);

    // Where nothing says that it is ours, it is asked whose it is before its values are read.
    const metadataOnly = recorded?.lastRotationTime === undefined;
    let live = await client.get(resources.secrets, key, { metadataOnly, signal });
    if (metadataOnly && live !== undefined && isControlledBy(live, identity)) {
      live = await client.get(resources.secrets, key, { signal });
    }
    if (live !== undefined && !isControlledBy(live, identity)) {
      return foreign(credential, key, clock());
    }
    const started = new Set<string>();
    for (let steps = 0; ; steps++) {
      const plan = planCredential({
        identity: identityName,
        credential,
        live,
        asked: askedOf(identity),
        lastHandled: lastHandledOf(identity),
        // A killed identity's pods are being stopped: none of them is waited for.
        pods: pods
          .byIndex('secret', `${namespace}/${key.name}`)
          .filter(({ spec }) => !isKilled || spec?.serviceAccountName !== identityName),
        hookRun: (job) =>
          started.has(job) ? { state: 'Running' } : this.#hooks.runOf(identity, job),
        spread: spreadOf(identity),
        recorded,
        isWithheld,
        now: clock(),
      });
      const { step } = plan;
      if (step.action === 'None' || steps === maxSteps) return keptAs(credential, plan, live);
      if (step.action === 'Create' && recorded === undefined) {
        return toBeRecorded(credential, plan, clock());
      }
      const blocker = await copies.blockerOf(step, credential, recorded, request);
      if (blocker !== undefined) return blockedBy(blocker, keptAs(credential, plan, live));
      try {
        if (step.action === 'RunHook') {
          started.add(step.job);
          const problem = await this.#runHook(step, credential, request);
          if (problem === undefined) continue;
          return { ...keptAs(credential, plan, live), problem, dueAt: clock() + refusedMs };
        }
        live = await this.#take(step, credential, key.name, request);
      } catch (error) {
        const problem = this.#refusalOf(error, step, key.name, request);
        return { ...keptAs(credential, plan, live), problem, dueAt: clock() + refusedMs };
      }
    }
  }

  async #runHook(
    { step, job }: Extract<CredentialStep, { action: 'RunHook' }>,
    credential: GeneratedSecret,
    { identity, childMetadata, signal, log }: KeepCredentials,
  ): Promise<Problem | undefined> {
    const { hook } = credential.rotation ?? {};
    if (hook === undefined) return undefined;
    const metadata = childMetadata(job);
    const request = { identity, credential, hook, step, metadata, signal };
    const problem = await this.#hooks.start(request);
    if (problem === undefined) log.info('Hook of a rotation started', { job, step });
    return problem;
  }

  /** What stands is copied, where the entry says so, and only then is all as it should be. */
  async #keepCopy(
    credential: GeneratedSecret,
    kept: KeptCredential,
    request: KeepCredentials,
  ): Promise<KeptCredential> {
    // It was asked just now, and didn't take it.
    if (kept.isBlocked) return kept;
    const recorded = request.identity.status?.secrets?.find(
      ({ secretName }) => secretName === kept.status.secretName,
    );
    const copy = await this.#options.copies.keep(credential, kept.live, recorded, request);
    const withIt = withCopy(copy, kept);
    // Whoever is told reads at once, perhaps from there.
    if (kept.live === undefined || copy.problem !== undefined) return withIt;
    const { problem, dueAt } = await this.#refresh.refresh(credential, kept.live, request);
    const former = await this.#options.copies.formerOf(request.identity, credential.name);
    return withCopy({ ...copy, problem: former ?? problem, dueAt }, withIt);
  }

  async #take(
    step: Exclude<CredentialStep, { action: 'None' | 'RunHook' }>,
    credential: GeneratedSecret,
    name: string,
    request: Look,
  ): Promise<Secret> {
    const { identity, childMetadata, told, signal, log } = request;
    // Where nothing says what it is for, it is for what matters most.
    const { tier = 'prod' } = request;
    const { client, clock, countRotation, randomBytes } = this.#options;
    const { namespace = '' } = identity.metadata;
    const patch = (body: object): Promise<Secret> =>
      client.mergePatch(resources.secrets, { namespace, name }, body, { signal });

    if (step.action === 'Create' && step.pending !== undefined) {
      const value = generateValue(credential, randomBytes, name, tier);
      const waiting = newPendingSecret(childMetadata(name), step.pending, value);
      const created = await client.create(resources.secrets, waiting, { signal });
      log.info('Credential minted', { secret: name });
      return created;
    }
    if (step.action === 'Mint') {
      const value = generateValue(credential, randomBytes, name, tier);
      const minted = await patch(mintPatch(step.live, step.pending, value));
      log.info('Credential minted', { secret: name, cause: step.pending.cause });
      return minted;
    }
    if (step.action === 'RecordHook') {
      return await this.#recordHook(step, credential, name, request);
    }
    if (step.action === 'Create') {
      const publication = publicationOf(credential, { ...step, publishedAt: clock() });
      publication.isComplete ||= step.rotation > 0 && this.#startsEverybodyAnew(name, request);
      const value = generateValue(credential, randomBytes, name, tier);
      const created = await client.create(
        resources.secrets,
        newSecret(childMetadata(name), publication, value),
        { signal },
      );
      log.info('Credential created', { secret: name });
      told.add(name, wasCreated);
      return created;
    }
    if (step.action === 'Retire') {
      const retired = await patch(retirementPatch(step.live));
      log.info('Previous credential withdrawn', { secret: name });
      told.add(name, wasWithdrawn);
      return retired;
    }
    if (step.action === 'RecordOwner') return await patch(ownerPatch(step.live, step.owner));
    const { cause, previousExpiresAt, isNext } = step;
    const publication = publicationOf(credential, step);
    if (cause === 'Created' && step.rotation > 0) {
      publication.isComplete ||= this.#startsEverybodyAnew(name, request);
    }
    const rotated = await patch(
      rotationPatch(
        step.live,
        publication,
        isNext
          ? nextValue(step.live, credential.type)
          : generateValue(credential, randomBytes, name, tier),
        previousExpiresAt === undefined ? undefined : new Date(previousExpiresAt).toISOString(),
      ),
    );
    if (cause === 'Created') {
      log.info('Credential created', { secret: name });
      told.add(name, wasCreated);
      return rotated;
    }
    countRotation('success');
    log.info('Credential rotated', { secret: name, cause, rotation: step.rotation });
    told.add(name, hasRotated(cause));
    return rotated;
  }

  async #recordHook(
    { live, pending }: Extract<CredentialStep, { action: 'RecordHook' }>,
    { name: credential }: GeneratedSecret,
    secret: string,
    { identity, notify, signal, log }: KeepCredentials,
  ): Promise<Secret> {
    const { client, countRotation } = this.#options;
    const { namespace = '' } = identity.metadata;
    const key = { namespace, name: secret };
    const body = pendingPatch(live, pending);
    const recorded = await client.mergePatch(resources.secrets, key, body, { signal });
    const { failed, step } = pending;
    if (failed === undefined) {
      log.info('Hook of a rotation recorded', { secret, step });
      return recorded;
    }
    countRotation('error');
    log.warn('Hook of a rotation failed', { secret, job: failed.job, reason: failed.reason });
    notify({
      type: 'warning',
      reason: 'RotationHookFailed',
      message: hookFailed(credential, failed).message,
    });
    return recorded;
  }

  /** While a kill is being released, no pod of the identity has been left to hold a value. */
  #startsEverybodyAnew(secretName: string, { identity, isKilled }: KeepCredentials): boolean {
    const { namespace = '', name } = identity.metadata;
    return (
      isKilled &&
      this.#options.workloads
        .byIndex('secret', `${namespace}/${secretName}`)
        .every(({ serviceAccountName }) => serviceAccountName === name)
    );
  }

  /**
   * A refusal that a retry doesn't cure becomes a problem; all else is thrown. What the server
   * said is dropped either way: its sentences may repeat what they were sent.
   *
   * @throws ApiError
   */
  #refusalOf(
    error: unknown,
    { action }: CredentialStep,
    secret: string,
    { log }: KeepCredentials,
  ): Problem {
    if (
      (action === 'Rotate' || action === 'Mint') &&
      error instanceof ApiError &&
      !isConflict(error)
    ) {
      this.#options.countRotation('error');
    }
    if (action === 'RunHook') {
      // No value is in such a request.
      const { status, message } = refusalOf(error, messageOf(error));
      log.warn('Hook of a rotation refused', { secret, status });
      return {
        reason: 'RotationHookUnusable',
        message: `The rotation of Secret ${secret} waits: the API server refused the Job of its hook. ${clip(message)}`,
      };
    }
    const { status, reason } = refusalOf(error, `Secret ${secret} couldn't be written`);
    log.warn('Write of a credential refused', { secret, action, status, reason });
    return {
      reason: action === 'Create' ? 'SecretNotCreated' : 'RotationFailed',
      message: `The API server refused to ${verbs[action]} Secret ${secret} (${status} ${reason}). An immutable Secret has to be deleted; otherwise look for a quota or an admission policy.`,
    };
  }

  /** @returns what is left of it, where its copy couldn't be withdrawn */
  async #delete(
    { name, secretName }: SecretStatus,
    { identity, notify, signal, log }: KeepCredentials,
  ): Promise<LeftCopy | undefined> {
    const { client, clock, revoked, copies } = this.#options;
    const { withdrawn } = await withdrawSecrets(identity, [secretName], {
      client,
      revoked,
      signal,
    });
    if (withdrawn.length > 0) {
      log.info('Credential deleted', { secret: secretName });
      notify({
        type: 'normal',
        reason: 'SecretDeleted',
        message: `Secret ${secretName} was deleted: it is no longer in spec.secrets.`,
      });
    }
    const [left] = await copies.withdraw(identity, { signal, log, notify }, [name]);
    return left === undefined
      ? undefined
      : {
          status: { name, secretName, store: 'Vault' },
          problem: left.problem,
          dueAt: clock() + refusedMs,
        };
  }
}

interface KeptCredential {
  status: SecretStatus;
  live: Secret | undefined;
  problem: Problem | undefined;
  restartSince: number | undefined;
  holdouts: readonly Pod[];
  /** Workloads that may restart at a time. */
  atOnce: number;
  rotatedAt: number | undefined;
  dueAt: number | undefined;
  isHandled: CredentialPlan['isHandled'];
  /** Names of Jobs of its hook that stay. */
  hookJobs: readonly string[];
  /** Something is due that waits until its copy is there. */
  isBlocked: boolean;
}

/** A copy of a credential that has left the spec. */
interface LeftCopy {
  status: SecretStatus;
  problem: Problem;
  dueAt: number;
}

/** A step that isn't taken as long as the copy isn't there. */
function blockedBy(blocker: CopyOutcome, kept: KeptCredential): KeptCredential {
  // What is due by the clock is past, and waits for the store alone.
  return { ...withCopy(blocker, kept), dueAt: blocker.dueAt, isBlocked: true };
}

function withCopy({ store, problem, dueAt }: CopyOutcome, kept: KeptCredential): KeptCredential {
  return {
    ...kept,
    status: { ...kept.status, ...store },
    problem: kept.problem ?? problem,
    dueAt: problem === undefined ? kept.dueAt : earliest([kept.dueAt, dueAt]),
  };
}

const wasCreated: SecretNotice = {
  reason: 'SecretCreated',
  one: (secret) => `${secret} was created.`,
  many: (secrets) => `${secrets} were created.`,
};

const wasWithdrawn: SecretNotice = {
  reason: 'PreviousWithdrawn',
  one: (secret) => `The previous value of ${secret} was withdrawn.`,
  many: (secrets) => `The previous values of ${secrets} were withdrawn.`,
};

const hasRotated = (cause: Pending['cause']): SecretNotice => ({
  reason: 'Rotated',
  one: (secret) => `${secret} has a new value: ${causeSentences[cause]}.`,
  many: (secrets) => `${secrets} have new values: ${causeSentences[cause]}.`,
});

const causeSentences: Record<Pending['cause'], string> = {
  Created: 'there was none',
  ValueLost: 'the one before was taken out of it',
  SpecChanged: 'the spec asks for another one',
  Emergency: 'an emergency rotation was asked for, so the one before is gone',
  Requested: 'a rotation was asked for',
  OwnerChanged: 'the owner is another one',
  Scheduled: 'its rotation was due',
};

const verbs: Record<CredentialStep['action'], string> = {
  None: 'change',
  Create: 'create',
  Mint: 'rotate',
  RunHook: 'rotate',
  RecordHook: 'rotate',
  Rotate: 'rotate',
  Retire: 'withdraw the previous value of',
  RecordOwner: 'write the owner to',
};

function keptAs(
  { name, rotation }: GeneratedSecret,
  plan: CredentialPlan,
  live: Secret | undefined,
): KeptCredential {
  const { status, restartSince, holdouts, rotatedAt, dueAt, isHandled, hookJobs } = plan;
  const problem = problemOf(name, plan);
  const atOnce = rotation?.maxConcurrentRestarts ?? defaultConcurrentRestarts;
  return {
    status,
    live,
    problem,
    restartSince,
    holdouts,
    atOnce,
    rotatedAt,
    dueAt,
    isHandled,
    hookJobs,
    isBlocked: false,
  };
}

/** Why a credential isn't rotated as asked, or isn't there yet. */
function problemOf(
  name: string,
  { defects, pending, rotatedAt }: CredentialPlan,
): Problem | undefined {
  if (pending?.failed !== undefined) return hookFailed(name, pending.failed);
  const [first] = defects;
  if (first !== undefined) {
    return {
      reason: first.reason,
      message: `Credential ${name} is not rotated as asked: ${defects.map(({ message }) => message).join(', and ')}.`,
    };
  }
  if (pending === undefined || rotatedAt !== undefined) return undefined;
  return {
    reason: 'Provisioning',
    message: `Credential ${name} is published when its hook is done.`,
  };
}

function hookFailed(credential: string, { step, reason, job, notBefore }: Failure): Problem {
  return {
    reason: 'RotationHookFailed',
    message: `The step ${step.toLowerCase()} of the hook of credential ${credential} failed (${reason}, Job ${job}), and the value before stays. It is tried again at ${timestamp(notBefore)}, and at once when a rotation is asked for.`,
  };
}

function overdueOf({ secretName }: SecretStatus, pods: readonly Pod[]): Problem[] {
  if (pods.length === 0) return [];
  const named = some(pods.map(({ metadata }) => `Pod ${metadata.name}`));
  return [
    {
      reason: 'ConvergenceOverdue',
      message: `The previous value of Secret ${secretName} stays readable: ${pods.length} running pods may still use it, ${named}.`,
    },
  ];
}

/**
 * The name of a Secret goes into status before it is created, so that it is found and deleted
 * when its entry leaves the spec, whatever happened between.
 */
function toBeRecorded(
  credential: GeneratedSecret,
  plan: CredentialPlan,
  now: number,
): KeptCredential {
  return {
    ...keptAs(credential, plan, undefined),
    problem: {
      reason: 'Provisioning',
      message: `Secret ${plan.status.secretName} is about to be created.`,
    },
    dueAt: now,
  };
}

function foreign(
  { name }: GeneratedSecret,
  key: { namespace: string; name: string },
  now: number,
): KeptCredential {
  return {
    status: { name, secretName: key.name },
    live: undefined,
    problem: foreignSecret(key),
    restartSince: undefined,
    holdouts: [],
    atOnce: 0,
    rotatedAt: undefined,
    dueAt: now + refusedMs,
    isHandled: { rotate: true, emergency: true },
    hookJobs: [],
    isBlocked: false,
  };
}

function publicationOf(
  { type, rotation: settings }: GeneratedSecret,
  { rotation, publishedAt, answers }: Omit<Publication, 'type' | 'isComplete'>,
): Publication {
  const isComplete = rotation > 0 && settings?.restartConsumers !== true;
  return { type, rotation, publishedAt, answers, isComplete };
}
