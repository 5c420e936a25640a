import { z } from 'zod';
import { dnsLabel, duration, rules } from './fields.ts';
import { durationPattern } from './duration.ts';

/** Minutes that a step of a hook may take, where the spec doesn't say. */
export const defaultHookMinutes = 10;

/** How often a step of a hook is tried again, where the spec doesn't say. */
export const defaultHookRetries = 3;

const cronJob = (field: 'set' | 'test', what: string) =>
  dnsLabel(
    `hook.${field}, the name of a CronJob`,
    `${what} The name of a CronJob in the same namespace with \`suspend: true\`, whose pods run as the identity: a Job is made of its template.`,
  );

/** What tells another system of a new value, before that is published. */
export const rotationHook = z
  .object({
    set: cronJob(
      'set',
      'Tells the other system of the new value, which its pods find beside the current one under the keys `next.*` of the Secret.',
    ),
    test: cronJob('test', 'Finds out whether the new value works.').optional(),
    timeout: duration(
      'hook.timeout',
      `Longest time that a step may take with all its retries, a Go-style duration of at most \`24h\`; \`${defaultHookMinutes}m\` if absent.`,
    ).optional(),
    maxRetries: z
      .int32()
      .min(0)
      .max(10)
      .optional()
      .meta({
        description: `How often a pod of a step that fails is replaced; ${defaultHookRetries} times if absent.`,
      }),
  })
  .meta({
    description: 'Jobs that make a rotation real in the system that the credential opens.',
    ...rules({
      rule: `!has(self.timeout) || !self.timeout.matches('${durationPattern}') || duration(self.timeout) <= duration('24h')`,
      message: 'hook.timeout is at most 24h: a step that takes longer should start it and end',
    }),
  });

export type RotationHook = z.infer<typeof rotationHook>;
