import type { AutomationIdentity, GeneratedSecret } from '../../api/automation-identity.ts';
import { annotation } from '../../api/names.ts';
import type { ObjectMeta, Secret } from '../../api/objects.ts';
import { keysOfType } from './generate.ts';

/**
 * The Secret of a generated credential: its keys, the annotations that carry its state, and the
 * bodies of the writes that change both at once. Its values go in and out of here as they are,
 * and nowhere else.
 */

/** By the keys of a type, as they are. */
export type CredentialValue = Readonly<Record<string, string>>;

const allKeys = [...new Set(Object.values(keysOfType).flat())];

const previousOf = (key: string): string => `previous.${key}`;

/** Where a value waits until its hook has told the other system of it. */
export const nextOf = (key: string): string => `next.${key}`;

/**
 * How far the clock of an operator may be ahead of another one's, or of its own after it was set:
 * an hour, where somebody has read it in the wrong time zone, and some. What was written within
 * that is believed, which delays a rotation by as much at most.
 */
export const clockErrorMs = 2 * 3_600_000;

/** What a value is an answer to, or what is asked for. */
export interface Answers {
  /** The nonce of `rotate`. */
  rotate: string | undefined;
  /** The nonce of `rotate-emergency`. */
  emergency: string | undefined;
  /** Digest of the owner. */
  owner: string | undefined;
}

/** What a Secret answers, as its annotations say. */
export function answersIn({ metadata: { annotations = {} } }: Secret): Answers {
  return {
    rotate: annotations[annotation.handledRotation],
    emergency: annotations[annotation.handledEmergency],
    owner: annotations[annotation.ownerDigest],
  };
}

/** Annotations that say so; where nothing was asked, there is none. */
export function answerAnnotations({ rotate, emergency, owner }: Answers): Record<string, string> {
  return {
    ...(rotate !== undefined && { [annotation.handledRotation]: rotate }),
    ...(emergency !== undefined && { [annotation.handledEmergency]: emergency }),
    ...(owner !== undefined && { [annotation.ownerDigest]: owner }),
  };
}

/** Whether something is asked for that a Secret doesn't answer yet. */
export function isUnanswered(what: keyof Answers, answers: Answers, asked: Answers): boolean {
  return asked[what] !== undefined && asked[what] !== answers[what];
}

/** Which of the nonces are answered. */
export type Handled = Record<'rotate' | 'emergency', boolean>;

/** Which nonces a Secret answers; one that isn't asked for is. */
export function handledBy(answers: Answers, asked: Answers): Handled {
  return {
    rotate: !isUnanswered('rotate', answers, asked),
    emergency: !isUnanswered('emergency', answers, asked),
  };
}

/** What a Secret answers that is created now: all that is asked for, and what was answered before. */
export function answersAtCreation(
  asked: Answers,
  lastHandled: Pick<Answers, 'rotate' | 'emergency'>,
): Answers {
  return {
    rotate: asked.rotate ?? lastHandled.rotate,
    emergency: asked.emergency ?? lastHandled.emergency,
    owner: asked.owner,
  };
}

/** The nonces that an identity as a whole has answered last. */
export function lastHandledOf({
  status,
}: AutomationIdentity): Pick<Answers, 'rotate' | 'emergency'> {
  return {
    rotate: status?.lastHandledRotation,
    emergency: status?.lastHandledEmergencyRotation,
  };
}

/** What a Secret's annotations and keys say, however they have been treated. */
export interface CredentialState {
  /** Under every key of its type. */
  hasValue: boolean;
  /** What of the value the spec says itself, a username, is as it says. */
  isAsSpecified: boolean;
  hasPrevious: boolean;
  /** Number of rotations so far; 0 where the annotation can't be read. */
  rotation: number;
  /** Milliseconds since the epoch; in the future by the error of a clock at most. */
  rotatedAt: number;
  /** Milliseconds since the epoch; `undefined` where the annotation can't be read. */
  previousExpiresAt: number | undefined;
  answers: Answers;
  /** The rotation's consumers were all restarted. */
  areConsumersRestarted: boolean;
}

/**
 * Reads the state; total.
 *
 * A rotation time that is missing, malformed or in the future (an edit, a clock that jumped) is
 * not believed. The Secret's own creation stands in for it, which the API server wrote: a value
 * is never older than the object that holds it, so it is replaced too early rather than too late.
 *
 * @param now milliseconds since the epoch
 */
export function readState(
  secret: Secret,
  { type, username }: GeneratedSecret,
  now: number,
): CredentialState {
  const { metadata, data = {} } = secret;
  const annotations = metadata.annotations ?? {};
  const rotation = annotations[annotation.rotation] ?? '';
  const stamped = parseTime(annotations[annotation.rotatedAt]);
  const created = parseTime(metadata.creationTimestamp) ?? 0;
  return {
    hasValue: valueIn(secret, type) !== undefined,
    isAsSpecified: username === undefined || data['username'] === base64(username),
    hasPrevious: hasPreviousIn(secret, type),
    rotation: /^\d{1,15}$/.test(rotation) ? Number(rotation) : 0,
    rotatedAt:
      stamped !== undefined && stamped <= now + clockErrorMs ? stamped : Math.min(created, now),
    previousExpiresAt: parseTime(annotations[annotation.previousExpiresAt]),
    answers: answersIn(secret),
    areConsumersRestarted: annotations[annotation.consumersRestarted] === rotation,
  };
}

/** @returns milliseconds since the epoch, or `undefined` for anything but RFC 3339 */
export function parseTime(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$/.test(text)) {
    return undefined;
  }
  const time = Date.parse(text);
  return Number.isNaN(time) ? undefined : time;
}

/** The value that stands; `undefined` unless it is there under every key of its type. */
export function valueIn(
  { data = {} }: Secret,
  type: GeneratedSecret['type'],
): CredentialValue | undefined {
  const found = keysOfType[type].flatMap((key) => {
    const encodedValue = data[key];
    return isFilled(encodedValue)
      ? [[key, Buffer.from(encodedValue, 'base64').toString()] as const]
      : [];
  });
  return found.length === keysOfType[type].length ? Object.fromEntries(found) : undefined;
}

/** Whether the value before stays readable. */
export function hasPreviousIn({ data = {} }: Secret, type: GeneratedSecret['type']): boolean {
  return keysOfType[type].some((key) => data[previousOf(key)] !== undefined);
}

/** What is written together with a new value. */
export interface Publication {
  type: GeneratedSecret['type'];
  rotation: number;
  /** Milliseconds since the epoch. */
  publishedAt: number;
  /** Where nothing was asked, what stands is left. */
  answers: Answers;
  /** Nobody waits for a restart: the rotation counts as complete. */
  isComplete: boolean;
}

/** A Secret that holds its first value. */
export function newSecret(
  metadata: ObjectMeta,
  publication: Publication,
  value: CredentialValue,
): Secret {
  return {
    metadata: { ...metadata, annotations: publicationAnnotations(publication) },
    type: 'Opaque',
    data: encoded(value),
  };
}

/**
 * Merge patch that puts a new value in place of the standing one, which stays readable as
 * `previous.*` until `previousExpiresAt`; without a time there is no previous value from then on.
 * Where no value stands (somebody took it away), the one before it keeps its own time. Keys of the other types go, in
 * case the type was changed. The patch names the version that it was planned for, so that it
 * happens once.
 *
 * @param previousExpiresAt RFC 3339
 */
export function rotationPatch(
  live: Secret,
  publication: Publication,
  value: CredentialValue,
  previousExpiresAt: string | undefined,
): object {
  const keys: readonly string[] = keysOfType[publication.type];
  const standing = new Map(
    keys.flatMap((key) => {
      const encodedValue = live.data?.[key];
      return isFilled(encodedValue) ? [[key, encodedValue]] : [];
    }),
  );
  return {
    metadata: {
      ...versionOf(live),
      annotations: {
        ...restartPending,
        ...publicationAnnotations(publication),
        ...((standing.size > 0 || previousExpiresAt === undefined) && {
          [annotation.previousExpiresAt]: previousExpiresAt ?? null,
        }),
        ...(pendingTextIn(live) !== undefined && { [annotation.pendingRotation]: null }),
      },
    },
    data: {
      ...withoutNext(live),
      ...withoutOtherTypes(keys),
      ...encoded(value),
      ...((standing.size > 0 || previousExpiresAt === undefined) &&
        Object.fromEntries(
          keys.map((key) => [
            previousOf(key),
            previousExpiresAt === undefined ? null : (standing.get(key) ?? null),
          ]),
        )),
    },
  };
}

/** Merge patch that withdraws the previous value. */
export function retirementPatch(live: Secret): object {
  return {
    metadata: { ...versionOf(live), annotations: { [annotation.previousExpiresAt]: null } },
    data: Object.fromEntries(allKeys.map((key) => [previousOf(key), null])),
  };
}

/** Merge patch that records for whom the standing value was made. */
export function ownerPatch(live: Secret, owner: string): object {
  return { metadata: { ...versionOf(live), annotations: { [annotation.ownerDigest]: owner } } };
}

/** Merge patch that records that every consumer of the standing rotation was restarted. */
export function completionPatch(live: Secret): object {
  return {
    metadata: {
      ...versionOf(live),
      annotations: {
        [annotation.consumersRestarted]: live.metadata.annotations?.[annotation.rotation] ?? null,
      },
    },
  };
}

const restartPending = { [annotation.consumersRestarted]: null };

function withoutOtherTypes(keys: readonly string[]): Record<string, null> {
  return Object.fromEntries(
    allKeys
      .filter((other) => !keys.includes(other))
      .flatMap((other) => [
        [other, null],
        [previousOf(other), null],
      ]),
  );
}

/** What a Secret says of a value that waits; `undefined` where none does. */
export function pendingTextIn({ metadata }: Secret): string | undefined {
  return metadata.annotations?.[annotation.pendingRotation];
}

/** Keys of a merge patch that take away whatever waits. */
export function withoutNext({ data = {} }: Secret): Record<string, null> {
  return Object.fromEntries(
    allKeys
      .map(nextOf)
      .filter((key) => data[key] !== undefined)
      .map((key) => [key, null]),
  );
}

/** As a Secret's `data`. */
export function encoded(value: CredentialValue): Record<string, string> {
  return Object.fromEntries(Object.entries(value).map(([key, text]) => [key, base64(text)]));
}

function publicationAnnotations({
  rotation,
  publishedAt,
  answers,
  isComplete,
}: Publication): Record<string, string> {
  return {
    [annotation.rotatedAt]: new Date(publishedAt).toISOString(),
    [annotation.rotation]: String(rotation),
    ...answerAnnotations(answers),
    ...(isComplete && { [annotation.consumersRestarted]: String(rotation) }),
  };
}

/** For a patch of exactly this version of it. */
export function versionOf({ metadata: { uid, resourceVersion } }: Secret): object {
  return { uid, resourceVersion };
}

/** As the values of a Secret are written. */
export function base64(value: string): string {
  return Buffer.from(value).toString('base64');
}

/** Whether a key of a Secret holds something. */
export function isFilled(value: string | undefined): value is string {
  return value !== undefined && value !== '';
}
