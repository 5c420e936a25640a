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
  | { action: 'Create'; rotation: number; answers: Answers }
  | {
      action: 'Rotate';
      live: Secret;
      cause: RotationCause;
      rotation: number;
      answers: Answers;
      /** Milliseconds since the epoch. */
      publishedAt: number;
      /** Milliseconds since the epoch; `undefined` where no previous value is kept. */
      previousExpiresAt: number | undefined;
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
  status: SecretStatus;
  /** Why it isn't rotated as asked. */
  defects: readonly RotationDefect[];
}

export type RotationCause =
  | 'ValueLost'
  | 'SpecChanged'
  | 'Emergency'
  | 'Requested'
  | 'OwnerChanged'
  | 'Scheduled';

interface Situation {
  live: Secret;
  state: CredentialState;
  schedule: RotationSchedule;
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
    return {
      // A value that was published before has consumers that hold it: its successor is a rotation.
      step: isWithheld
        ? { action: 'None' }
        : {
            action: 'Create',
            rotation: lastRotationTime === undefined ? 0 : 1,
            answers: answersAtCreation(asked, lastHandled),
          },
      dueAt: undefined,
      restartSince: undefined,
      holdouts: [],
      rotatedAt: undefined,
      isHandled: { rotate: true, emergency: true },
      status: {
        name: credential.name,
        secretName,
        ...(lastRotationTime !== undefined && { lastRotationTime }),
      },
      defects,
    };
  }

  const state = readState(live, credential, now);
  const situation = { live, state, schedule, asked, isWithheld, now };
  const expiresAt = state.hasPrevious ? previousExpiry(state, schedule) : undefined;
  const nextAt = schedule.nextAfter(state.rotatedAt);
  const isRestartWanted = credential.rotation?.restartConsumers === true;
  const isRestarting = isRestartWanted && state.rotation > 0 && !state.areConsumersRestarted;
  const gate = gateOf(observation, secretName, state.rotatedAt, expiresAt, isRestarting);
  return {
    step: live.metadata.deletionTimestamp === undefined ? stepOf(situation, gate) : none,
    dueAt: earliest([nextAt, gate?.dueAt]),
    restartSince: isRestarting ? state.rotatedAt : undefined,
    holdouts: gate?.overdue ?? [],
    rotatedAt: state.rotatedAt,
    isHandled: handledBy(state.answers, asked),
    status: {
      name: credential.name,
      secretName,
      ...(state.rotation > 0 && { state: stageOf(state, isRestarting) }),
      lastRotationTime: timestamp(state.rotatedAt),
      ...(nextAt !== undefined && { nextRotationTime: timestamp(nextAt) }),
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
  const { live, state, schedule, asked, now } = situation;
  // Whatever else is a reason at the same time.
  const keepsPrevious = schedule.overlapMs > 0 && !isUnanswered('emergency', state.answers, asked);
  for (const causeOf of causes) {
    const cause = causeOf(situation);
    if (cause === undefined) continue;
    return {
      action: 'Rotate',
      live,
      cause,
      rotation: state.rotation + 1,
      answers: asked,
      // Two rotations never carry the same time, since a restart is known by it.
      publishedAt: Math.max(now, state.rotatedAt + 1),
      previousExpiresAt: keepsPrevious ? now + schedule.overlapMs : undefined,
    };
  }
  if (gate?.isOpen === true) return { action: 'Retire', live };
  return state.hasValue && state.answers.owner === undefined && asked.owner !== undefined
    ? { action: 'RecordOwner', live, owner: asked.owner }
    : none;
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
