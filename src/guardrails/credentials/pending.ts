import { z } from 'zod';
import type { GeneratedSecret } from '../../api/automation-identity.ts';
import { annotation } from '../../api/names.ts';
import type { ObjectMeta, Secret } from '../../api/objects.ts';
import { keysOfType } from './generate.ts';
import {
  base64,
  encoded,
  isFilled,
  nextOf,
  pendingTextIn,
  versionOf,
  withoutNext,
  type Answers,
  type CredentialValue,
} from './secret.ts';

/**
 * A value that waits in its Secret, under `next.*`, until its hook has told the other system of it.
 * How far it has come stands beside it, and is written before each next step.
 */
export interface Pending {
  /** What is done. */
  step: 'Minted' | 'Set';
  /** Number of the rotation that its publication will be; 0 for a first value. */
  rotation: number;
  cause: PendingCause;
  /** What its publication answers. */
  answers: Answers;
  /** Which try of the hook it is, from 1. */
  attempt: number;
  /** After a failure. */
  failed?: Failure | undefined;
}

/** Of a hook. */
export interface Failure {
  step: HookStep;
  /** CamelCase, as the Job's condition has it. */
  reason: string;
  /** Name of the Job. */
  job: string;
  /** Milliseconds since the epoch before which it isn't tried again unasked. */
  notBefore: number;
}

/** The Jobs of a hook, in their order. */
export type HookStep = 'Set' | 'Test';

/** Why a value is replaced. */
const rotationCauses = [
  'ValueLost',
  'SpecChanged',
  'Emergency',
  'Requested',
  'OwnerChanged',
  'Scheduled',
] as const;

export type RotationCause = (typeof rotationCauses)[number];
/** Or made: there was none. */
export type PendingCause = RotationCause | 'Created';

const stored = z.object({
  step: z.enum(['Minted', 'Set']),
  rotation: z.int().min(0),
  cause: z.enum([...rotationCauses, 'Created']),
  answers: z.object({
    rotate: z.string().optional(),
    emergency: z.string().optional(),
    owner: z.string().optional(),
  }),
  attempt: z.int().min(1),
  failed: z
    .object({
      step: z.enum(['Set', 'Test']),
      reason: z.string(),
      job: z.string(),
      notBefore: z.number(),
    })
    .optional(),
});

/**
 * What waits, where that is a value of the type that the spec asks for; total.
 *
 * @returns `undefined` where nothing waits, or nothing that can be published
 */
export function pendingIn(
  secret: Secret,
  { type, username }: GeneratedSecret,
): Pending | undefined {
  const pending = parse(pendingTextIn(secret));
  const { data = {} } = secret;
  const isWhole = keysOfType[type].every((key) => isFilled(data[nextOf(key)]));
  const isAsSpecified = username === undefined || data[nextOf('username')] === base64(username);
  if (pending === undefined || !isWhole || !isAsSpecified) return undefined;
  const { rotate, emergency, owner } = pending.answers;
  return { ...pending, answers: { rotate, emergency, owner } };
}

/** The attempt that a value begins with which takes the place of one that waits. */
export function nextAttempt(secret: Secret): number {
  return (parse(pendingTextIn(secret))?.attempt ?? 0) + 1;
}

function parse(text: string | undefined): z.infer<typeof stored> | undefined {
  if (text === undefined) return undefined;
  try {
    return stored.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** The value that waits. */
export function nextValue({ data = {} }: Secret, type: GeneratedSecret['type']): CredentialValue {
  return Object.fromEntries(
    keysOfType[type].map((key) => [key, Buffer.from(data[nextOf(key)] ?? '', 'base64').toString()]),
  );
}

/** A Secret whose first value waits. */
export function newPendingSecret(
  metadata: ObjectMeta,
  pending: Pending,
  value: CredentialValue,
): Secret {
  return {
    metadata: { ...metadata, annotations: annotationsOf(pending) },
    type: 'Opaque',
    data: waiting(value),
  };
}

/** Merge patch that puts a new value beside the standing one, where it waits. */
export function mintPatch(live: Secret, pending: Pending, value: CredentialValue): object {
  return {
    metadata: { ...versionOf(live), annotations: annotationsOf(pending) },
    data: { ...withoutNext(live), ...waiting(value) },
  };
}

/** Merge patch that records how far the value that waits has come. */
export function pendingPatch(live: Secret, pending: Pending): object {
  return { metadata: { ...versionOf(live), annotations: annotationsOf(pending) } };
}

function annotationsOf(pending: Pending): Record<string, string> {
  return { [annotation.pendingRotation]: JSON.stringify(pending satisfies z.input<typeof stored>) };
}

function waiting(value: CredentialValue): Record<string, string> {
  return Object.fromEntries(
    Object.entries(encoded(value)).map(([key, text]) => [nextOf(key), text]),
  );
}
