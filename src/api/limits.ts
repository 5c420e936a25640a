import { z } from 'zod';
import { count, duration, rules, time } from './fields.ts';

/** The limits on the number of something, which the operator counts. */
export const countedLimits = [
  'maxConcurrentRuns',
  'maxRunsPerHour',
  'maxConsecutiveFailures',
  'maxFailureRate',
] as const;

export type CountedLimit = (typeof countedLimits)[number];

/** Ends of runs that a failure rate looks back on at most. */
export const maxOutcomes = 200;

const failureRate = z
  .object({
    percent: z.int32().min(0).max(99).meta({
      description: 'How many of a hundred may fail. More is a breach.',
    }),
    over: z.int32().min(2).max(maxOutcomes).default(20).meta({
      description: 'Of how many runs, the last ones that ended.',
    }),
    minRuns: z.int32().min(1).max(maxOutcomes).default(5).meta({
      description: 'How many must have ended before there is a rate.',
    }),
  })
  .meta({
    description:
      'What part of the last runs may fail: for an automation that fails now and then, and must not fail often.',
    ...rules({
      rule: 'self.minRuns <= self.over',
      message: 'minRuns must not be above over: the rate is that of the last runs, over in number',
    }),
  });

export const limitsSchema = z
  .object({
    timeout: duration(
      'timeout',
      'How long a run may take: the highest `activeDeadlineSeconds` of a Job, in whole seconds. Written into Jobs that have none, or a higher one, when they are created.',
    ).optional(),
    maxRetries: z.int32().min(0).max(1_000_000).optional().meta({
      description:
        'How often the pods of a run are tried again: the highest `backoffLimit` of a Job. Written into Jobs that have a higher one (6 is what Kubernetes sets) when they are created.',
    }),
    maxConcurrentRuns: z.int32().min(1).max(1_000_000).optional().meta({
      description: 'How many runs may be under way at a time. One more is a breach.',
    }),
    maxRunsPerHour: z.int32().min(1).max(1_000_000).optional().meta({
      description:
        'How many runs may be created within an hour, counted by the minute. One more is a breach.',
    }),
    maxConsecutiveFailures: z.int32().min(0).max(1_000_000).optional().meta({
      description:
        'How many runs may fail one after the other without one that succeeds. One more is a breach.',
    }),
    maxFailureRate: failureRate.optional(),
    onBreach: z.enum(['Hold', 'Kill']).default('Hold').meta({
      description:
        'What a breach of a limit that is counted does. `Hold`: no new run starts, and what runs goes on; it ends when a person acknowledges it (annotation `automationguardrails.dev/acknowledge`), and by itself when a number that can fall is below its limit again. `Kill`: the kill switch is engaged, and people release it as any other.',
    }),
  })
  .meta({
    description:
      'Protection against an automation that runs wild. A run is a Job that runs as the ServiceAccount of the same name as the Workflow. `timeout` and `maxRetries` hold by admission alone; the others are counted by the operator.',
  });

export type Limits = z.infer<typeof limitsSchema>;

/** Minutes that are counted one by one. */
export const countedMinutes = 60;

/** Runs of one minute that can be told apart after a restart. */
export const maxMarkedRuns = 512;

function mark(description: string) {
  return z
    .object({
      before: time('Every one that happened before this time is counted.'),
      runs: z
        .array(
          z.string().max(32).meta({
            description:
              'Beginning of the UID of a Job, and after a `+` the seconds since that time.',
          }),
        )
        .max(maxMarkedRuns)
        .meta({
          description: 'Of those since then, the ones that are counted.',
          'x-kubernetes-list-type': 'atomic',
        }),
    })
    .meta({ description });
}

export const runsStatusSchema = z
  .object({
    perMinute: z
      .object({
        from: time('The first minute.'),
        created: z.array(count('Runs that were created in this minute.')).max(countedMinutes).meta({
          description: 'How many were created in that minute and in each after it.',
          'x-kubernetes-list-type': 'atomic',
        }),
      })
      .exactOptional()
      .meta({ description: 'Runs of the last hour.' }),
    consecutiveFailures: count('Runs that failed since the last one that succeeded.'),
    outcomes: z.string().max(maxOutcomes).exactOptional().meta({
      description:
        'How the last runs ended, the oldest first: `S` succeeded, `F` failed. Kept where `maxFailureRate` asks for it.',
    }),
    created: mark('How far creations are counted.').exactOptional(),
    ended: mark('How far ends are counted.').exactOptional(),
    tolerated: count(
      'Runs that were not over when a breach was acknowledged: so many may be under way, though they are above the limit.',
    ).exactOptional(),
    breaches: z
      .array(
        z
          .object({
            limit: z.enum(countedLimits).meta({ description: 'The limit.' }),
            allowed: count('What it allowed.'),
            counted: count('What was counted when it was breached.'),
            of: count(
              'Of how many runs; of `maxFailureRate` alone, whose `allowed` is the percentage.',
            ).exactOptional(),
            since: time('When that was.'),
          })
          .meta({ description: 'A limit that is breached.' }),
      )
      .max(countedLimits.length)
      .exactOptional()
      .meta({
        description: 'Limits that are breached; absent where none is.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['limit'],
      }),
    killSwitch: z
      .string()
      .max(64)
      .exactOptional()
      .meta({ description: 'UID of the KillSwitch that stands for the breach.' }),
    acknowledged: z
      .object({
        by: z.string().max(1024).meta({ description: 'The authenticated user.' }),
        reason: z.string().max(1024).meta({ description: 'Why the automation may go on.' }),
        time: time('When the operator took note of it.'),
      })
      .exactOptional()
      .meta({ description: 'Who acknowledged the last breach.' }),
  })
  .meta({ description: 'What is known of the runs. Small, so that a restart counts each once.' });

/** What was counted so far, as it is stored. */
export type Ledger = z.infer<typeof runsStatusSchema>;

export type Breach = NonNullable<Ledger['breaches']>[number];
