import { createHash } from 'node:crypto';
import type {
  AutomationIdentity,
  GeneratedSecret,
  SecretStatus,
} from '../../api/automation-identity.ts';
import { timestamp } from '../../api/conditions.ts';
import { annotation, secretNameOf } from '../../api/names.ts';
import type { Pod, Secret } from '../../api/objects.ts';
import { convergenceMs, holdouts, volumeSyncMs } from './convergence.ts';
import { earliest } from './refusal.ts';
import { hookJobName, hookRetryMs, type HookRun } from './hook.ts';
import {
  nextAttempt,
  pendingIn,
  type HookStep,
  type Pending,
  type RotationCause,
} from './pending.ts';
import { rotationSchedule, type RotationDefect, type RotationSchedule } from './schedule.ts';
import {
  answersAtCreation,
  handledBy,
  isUnanswered,
  readState,
  type Answers,
  type CredentialState,
  type Handled,
} from './secret.ts';

/**
 * What an identity asks of its values. Blank annotations ask for nothing; they are copied into
 * Secrets and status, so they have a bound. An owner of whom a part is missing, or blank, isn't
 * another one yet.
 */
export function askedOf({
  metadata: { annotations },
  spec,
}: Pick<AutomationIdentity, 'metadata' | 'spec'>): Answers {
  const nonceOf = (name: string): string | undefined => {
    const nonce = annotations?.[name]?.trim().slice(0, 253);
    return nonce === '' ? undefined : nonce;
  };
  const [team, contact] = [spec.owner?.team?.trim(), spec.owner?.contact?.trim()];
  return {
    rotate: nonceOf(annotation.rotate),
    emergency: nonceOf(annotation.rotateEmergency),
    owner:
      team === undefined || team === '' || contact === undefined || contact === ''
        ? undefined
        : createHash('sha256')
            .update(JSON.stringify([team, contact]))
            .digest('hex')
            .slice(0, 16),
  };
}

/** Where in the time over which rotations are spread an identity has its own, from 0 to below 1. */
export function spreadOf({ metadata: { uid = '' } }: Pick<AutomationIdentity, 'metadata'>): number {
  return createHash('sha256').update(uid).digest().readUInt32BE() / 2 ** 32;
}

/** One generated credential, as it stands and as it is asked for. */
export interface CredentialObservation {
  /** Name of the AutomationIdentity. */
  identity: string;
  credential: GeneratedSecret;
  /** Its Secret, which is ours; `undefined` where there is none. */
  live: Secret | undefined;
  /** What the identity asks of its values. */
  asked: Answers;
  /** What the identity as a whole answered last. */
  lastHandled: Pick<Answers, 'rotate' | 'emergency'>;
  /** Those that reference the Secret and count: none of what is being stopped. */
  pods: readonly Pod[];
  /** What has become of the Job of a hook, by its name. */
  hookRun: (job: string) => HookRun;
  /** As of {@link spreadOf}. */
  spread: number;
  /** What status last said of it. */
  recorded: SecretStatus | undefined;
  /** Nothing is granted now that doesn't stand yet. */
  isWithheld: boolean;
  /** Milliseconds since the epoch. */
  now: number;
}

/** The one write that is due. */
export type CredentialStep =
  | { action: 'None' }
  | { action: 'Create'; rotation: number; answers: Answers; pending?: Pending }
  | { action: 'Mint'; live: Secret; pending: Pending }
  | { action: 'RunHook'; live: Secret; step: HookStep; job: string }
  | { action: 'RecordHook'; live: Secret; pending: Pending }
  | {
      action: 'Rotate';
      live: Secret;
      cause: Pending['cause'];
      rotation: number;
      answers: Answers;
      /** Milliseconds since the epoch. */
      publishedAt: number;
      /** Milliseconds since the epoch; `undefined` where no previous value is kept. */
      previousExpiresAt: number | undefined;
      /** It is the value that waits; another one is generated where none does. */
      isNext: boolean;
    }
  | { action: 'Retire'; live: Secret }
  | { action: 'RecordOwner'; live: Secret; owner: string };

export interface CredentialPlan {
  step: CredentialStep;
  /** Milliseconds since the epoch at which the plan changes by itself. */
  dueAt: number | undefined;
  /** A rotation whose consumers still have to be restarted: since when, in ms since the epoch. */
  restartSince: number | undefined;
  /** Running pods by which the end of the overlap has been put off for too long. */
  holdouts: readonly Pod[];
  /** Milliseconds since the epoch of the standing value's publication. */
  rotatedAt: number | undefined;
  /** What the identity asks for by its annotations is done here. */
  isHandled: Handled;
  /** The value that waits for its hook. */
  pending: Pending | undefined;
  /** Names of Jobs of its hook that somebody waits for, or looks at. */
  hookJobs: readonly string[];
  status: SecretStatus;
  /** Why it isn't rotated as asked. */
  defects: readonly RotationDefect[];
}

interface Situation {
  observation: CredentialObservation;
  live: Secret;
  state: CredentialState;
  schedule: RotationSchedule;
  pending: Pending | undefined;
  asked: Answers;
  isWithheld: boolean;
  now: number;
}

/** Why a standing credential gets a new value. This list is the specification. */
const causes: readonly ((situation: Situation) => RotationCause | undefined)[] = [
  valueLost,
  specChanged,
  emergencyRequested,
  rotationRequested,
  ownerChanged,
  rotationDue,
];

/** Somebody emptied the Secret, or its type was changed: a value that isn't there is granted anew. */
function valueLost({ state, isWithheld }: Situation): RotationCause | undefined {
  return !state.hasValue && !isWithheld ? 'ValueLost' : undefined;
}

/** Its value holds what the spec said before. Another one is granted anew. */
function specChanged({ state, isWithheld }: Situation): RotationCause | undefined {
  return state.hasValue && !state.isAsSpecified && !isWithheld ? 'SpecChanged' : undefined;
}

/** A nonce that the standing value doesn't answer yet. */
function emergencyRequested({ state, asked }: Situation): RotationCause | undefined {
  return state.hasValue && isUnanswered('emergency', state.answers, asked)
    ? 'Emergency'
    : undefined;
}

/** As above. */
function rotationRequested({ state, asked }: Situation): RotationCause | undefined {
  return state.hasValue && isUnanswered('rotate', state.answers, asked) ? 'Requested' : undefined;
}

/** Who could read the value no longer answers for it; unless it isn't known for whom it was made. */
function ownerChanged({ state, asked }: Situation): RotationCause | undefined {
  const isRecorded = state.answers.owner !== undefined;
  return state.hasValue && isRecorded && isUnanswered('owner', state.answers, asked)
    ? 'OwnerChanged'
    : undefined;
}

/** Its time has come. However many times were missed, it is replaced once. */
function rotationDue({ state, schedule, now }: Situation): RotationCause | undefined {
  const next = schedule.nextAfter(state.rotatedAt);
  return state.hasValue && next !== undefined && next <= now ? 'Scheduled' : undefined;
}

/**
 * Decides on one credential. Its state is in its Secret alone, and each step writes value and
 * state at once on the version that it was planned for: at whatever point the work is cut off, the
 * next plan goes on from what stands, and no step is taken twice.
 */
export function planCredential(observation: CredentialObservation): CredentialPlan {
  const { identity, credential, live, recorded, asked, lastHandled, isWithheld, now } = observation;
  const schedule = rotationSchedule(credential.rotation, observation.spread);
  const { defects } = schedule;
  const secretName = secretNameOf(identity, credential.name);

  if (live === undefined) {
    const lastRotationTime = recorded?.lastRotationTime;
    // A value that was published before has consumers that hold it: its successor is a rotation.
    const rotation = lastRotationTime === undefined ? 0 : 1;
    const answers = answersAtCreation(asked, lastHandled);
    const pending = { step: 'Minted', rotation, cause: 'Created', answers, attempt: 1 } as const;
    const isHooked = credential.rotation?.hook !== undefined;
    return {
      step: isWithheld
        ? none
        : { action: 'Create', rotation, answers, ...(isHooked && { pending }) },
      dueAt: undefined,
      restartSince: undefined,
      holdouts: [],
      rotatedAt: undefined,
      isHandled: { rotate: true, emergency: true },
      pending: undefined,
      hookJobs: [],
      status: {
        name: credential.name,
        secretName,
        ...(lastRotationTime !== undefined && { lastRotationTime }),
      },
      defects,
    };
  }

  const state = readState(live, credential, now);
  const pending = pendingIn(live, credential);
  const situation = { observation, live, state, schedule, pending, asked, isWithheld, now };
  const expiresAt = state.hasPrevious ? previousExpiry(state, schedule) : undefined;
  const nextAt = schedule.nextAfter(state.rotatedAt);
  // A first value that waits is none yet, for anybody.
  const isPublished = state.hasValue || pending === undefined;
  const lastRotationTime = isPublished ? timestamp(state.rotatedAt) : recorded?.lastRotationTime;
  const isRestartWanted = credential.rotation?.restartConsumers === true;
  const isRestarting = isRestartWanted && state.rotation > 0 && !state.areConsumersRestarted;
  const gate = gateOf(observation, secretName, state.rotatedAt, expiresAt, isRestarting);
  return {
    step: live.metadata.deletionTimestamp === undefined ? stepOf(situation, gate) : none,
    // What waits is rotated when its hook is done; that is watched.
    dueAt: earliest([pending === undefined ? nextAt : pending.failed?.notBefore, gate?.dueAt]),
    restartSince: isRestarting ? state.rotatedAt : undefined,
    holdouts: gate?.overdue ?? [],
    rotatedAt: isPublished ? state.rotatedAt : undefined,
    isHandled: handledBy(state.answers, asked),
    pending,
    hookJobs: pending === undefined ? [] : hookJobsOf(observation, live, pending),
    status: {
      name: credential.name,
      secretName,
      ...(pending !== undefined
        ? { state: pending.step }
        : state.rotation > 0 && { state: stageOf(state, isRestarting) }),
      ...(lastRotationTime !== undefined && { lastRotationTime }),
      ...(isPublished && nextAt !== undefined && { nextRotationTime: timestamp(nextAt) }),
      ...(expiresAt !== undefined && { previousExpirationTime: timestamp(expiresAt) }),
    },
    defects,
  };
}

/** A rotation's state is in the Secret: what it holds, and whether the restarts were recorded. */
function stageOf(
  { hasPrevious }: CredentialState,
  isRestarting: boolean,
): NonNullable<SecretStatus['state']> {
  if (isRestarting) return 'Published';
  return hasPrevious ? 'Converging' : 'Retired';
}

/** What stands between a previous value and its withdrawal. */
interface Gate {
  isOpen: boolean;
  /** Milliseconds since the epoch at which to look again. */
  dueAt: number;
  /** Who has kept it shut for too long. */
  overdue: readonly Pod[];
}

/** How often it is looked whether a pod that holds a previous value is gone. */
const gateCheckMs = 15_000;

/** Not before the overlap is over, and not while somebody may still use the value. */
function gateOf(
  { pods, now }: CredentialObservation,
  secretName: string,
  rotatedAt: number,
  expiresAt: number | undefined,
  isRestarting: boolean,
): Gate | undefined {
  if (expiresAt === undefined) return undefined;
  if (now < expiresAt) return { isOpen: false, dueAt: expiresAt, overdue: [] };
  const holding = holdouts(pods, secretName, rotatedAt, now);
  const isOverdue = now >= Math.max(expiresAt, rotatedAt + volumeSyncMs) + convergenceMs;
  return {
    isOpen: holding.length === 0 && !isRestarting,
    dueAt: now + (isOverdue ? 4 : 1) * gateCheckMs,
    overdue: isOverdue ? holding : [],
  };
}

const none: CredentialStep = { action: 'None' };

function stepOf(situation: Situation, gate: Gate | undefined): CredentialStep {
  const { live, state, pending, asked } = situation;
  const next = pending === undefined ? rotationStep(situation) : hookStep(situation, pending);
  if (next.action !== 'None') return next;
  if (gate?.isOpen === true) return { action: 'Retire', live };
  return state.hasValue && state.answers.owner === undefined && asked.owner !== undefined
    ? { action: 'RecordOwner', live, owner: asked.owner }
    : none;
}

function rotationStep(situation: Situation): CredentialStep {
  const { observation, live, state, asked } = situation;
  for (const causeOf of causes) {
    const cause = causeOf(situation);
    if (cause === undefined) continue;
    const rotation = state.rotation + 1;
    if (observation.credential.rotation?.hook !== undefined) {
      const attempt = nextAttempt(live);
      const pending = { step: 'Minted', rotation, cause, answers: asked, attempt } as const;
      return { action: 'Mint', live, pending };
    }
    return publication(situation, { rotation, cause, answers: asked }, false);
  }
  return none;
}

/** The write that puts a value in place of the standing one. */
function publication(
  { live, state, schedule, now }: Situation,
  { rotation, cause, answers }: Pick<Pending, 'rotation' | 'cause' | 'answers'>,
  isNext: boolean,
): CredentialStep {
  // Whatever else is a reason at the same time.
  const keepsPrevious =
    schedule.overlapMs > 0 && !isUnanswered('emergency', state.answers, answers);
  return {
    action: 'Rotate',
    live,
    cause,
    rotation,
    answers,
    // Two rotations never carry the same time, since a restart is known by it.
    publishedAt: Math.max(now, state.rotatedAt + 1),
    previousExpiresAt: keepsPrevious ? now + schedule.overlapMs : undefined,
    isNext,
  };
}

/**
 * What comes next for a value that waits: a Job for each step, and its publication. A hook that
 * fails begins anew with `set` and the same value, which the other system may already have taken.
 */
function hookStep(situation: Situation, pending: Pending): CredentialStep {
  const { observation, live, state, asked, isWithheld, now } = situation;
  const { credential, hookRun } = observation;
  if (isWithheld && !state.hasValue) return none;
  const { hook } = credential.rotation ?? {};
  const step: HookStep = pending.step === 'Minted' ? 'Set' : 'Test';
  // Without the step nobody has to be asked any more.
  if (hook === undefined || (step === 'Test' && hook.test === undefined)) {
    return publication(situation, pending, true);
  }
  const { failed, ...attempt } = pending;
  if (failed !== undefined) {
    const isAskedAgain = (['rotate', 'emergency'] as const).some((what) =>
      isUnanswered(what, pending.answers, asked),
    );
    if (now < failed.notBefore && !isAskedAgain) return none;
    // Nobody has used the value yet, so it is as new as one that was asked for just now.
    const answers = state.hasValue ? asked : answersAtCreation(asked, pending.answers);
    return { action: 'RecordHook', live, pending: { ...attempt, answers } };
  }
  const job = jobOf(observation, live, pending, step);
  const run = hookRun(job);
  switch (run.state) {
    case 'Absent':
      return { action: 'RunHook', live, step, job };
    case 'Running':
      return none;
    case 'Succeeded':
      return step === 'Set' && hook.test !== undefined
        ? { action: 'RecordHook', live, pending: { ...pending, step: 'Set' } }
        : publication(situation, pending, true);
    case 'Failed': {
      const notBefore = now + hookRetryMs(pending.attempt);
      return {
        action: 'RecordHook',
        live,
        pending: {
          ...pending,
          step: 'Minted',
          attempt: pending.attempt + 1,
          failed: { step, reason: run.reason, job, notBefore },
        },
      };
    }
  }
}

function jobOf(
  { identity, credential }: CredentialObservation,
  live: Secret,
  pending: Pending,
  step: HookStep,
): string {
  return hookJobName(live, { identity, credential: credential.name }, pending, step);
}

function hookJobsOf(observation: CredentialObservation, live: Secret, pending: Pending): string[] {
  return [
    ...(pending.failed === undefined ? [] : [pending.failed.job]),
    ...(['Set', 'Test'] as const).map((step) => jobOf(observation, live, pending, step)),
  ];
}

/**
 * When a previous value is withdrawn: when its Secret says, but never later than the overlap
 * allows by now, counted from the publication of its successor. Where neither says, at once.
 */
function previousExpiry(state: CredentialState, { overlapMs }: RotationSchedule): number {
  const allowed = state.rotatedAt + overlapMs;
  return state.previousExpiresAt === undefined
    ? allowed
    : Math.min(state.previousExpiresAt, allowed);
}
