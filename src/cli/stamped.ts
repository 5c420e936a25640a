import { isUnstamped } from '../admission/index.ts';
import type { KubeClient } from '../runtime/client.ts';
import { ApiError } from '../runtime/errors.ts';
import { authorOf } from './write-at.ts';

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
    const { name, groups } = await authorOf(client);
    await write(name, groups);
  }
}
