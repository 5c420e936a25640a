import type { ObjectMeta } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { ForeignObjectError } from '../../runtime/applier.ts';
import { ApiError } from '../../runtime/errors.ts';
import type { Problem } from '../requirements.ts';

/** A refusal is looked at again after this time: nothing tells when its cause is gone. */
export const refusedMs = 60_000;

/** What stands in the way where somebody else has a Secret of that name. */
export function foreignSecret(metadata: ObjectMeta): Problem {
  return {
    reason: 'ForeignObject',
    message: new ForeignObjectError(resources.secrets, { metadata }).message,
  };
}

/**
 * What of an answer to a request with a secret in it may be told. What the server said is dropped:
 * its sentences may repeat what they were sent.
 *
 * @param what what failed, for people
 * @returns a refusal that a retry doesn't cure
 * @throws ApiError for all else, without the server's sentence; what isn't one as it is
 */
export function refusalOf(error: unknown, what: string): ApiError {
  if (!(error instanceof ApiError)) throw error;
  const { status, reason, retryAfterMs } = error;
  const told = new ApiError(`${what}: ${status} ${reason}`, { status, reason, retryAfterMs });
  const isFinal = status >= 400 && status < 500 && ![401, 404, 408, 409, 429].includes(status);
  if (!isFinal) throw told;
  return told;
}

/** The first of several times; `undefined` where there is none. */
export function earliest(times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}
