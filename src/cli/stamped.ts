import { isUnstamped } from '../admission/index.ts';
import { resources } from '../api/resources.ts';
import type { KubeClient } from '../runtime/client.ts';
import { ApiError } from '../runtime/errors.ts';

/**
 * A write that admission stamps with who makes it. Where admission rewrites nothing it is refused
 * without the stamp, and made again with the name that the API server knows the user by.
 */
export async function stamped(
  client: KubeClient,
  policy: string,
  write: (userName?: string, groups?: readonly string[]) => Promise<unknown>,
): Promise<void> {
  try {
    await write();
  } catch (error) {
    if (!(error instanceof ApiError && isUnstamped(error.message, policy))) throw error;
    const review = await client.create(resources.selfSubjectReviews, { metadata: { name: '' } });
    const { username, groups } = review.status?.userInfo ?? {};
    await write(username, groups);
  }
}
