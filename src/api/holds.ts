import { z } from 'zod';
import { time } from './fields.ts';

/** Reasons that hold one object at a time. */
export const maxHolds = 32;

export const holdsSchema = z
  .array(
    z
      .object({
        reason: z
          .string()
          .min(1)
          .max(64)
          .meta({ description: 'One reason of the condition `Held`.' }),
        message: z
          .string()
          .max(2048)
          .meta({ description: 'What is missing, and what to do about it.' }),
        since: time('When it began to hold. It stays while the message changes.'),
        acknowledged: z
          .object({
            by: z.string().max(1024).meta({ description: 'The authenticated user.' }),
            reason: z.string().max(1024).meta({ description: 'What is done about it.' }),
            time: time('When the operator took note of it.'),
          })
          .exactOptional()
          .meta({
            description:
              'Who knows of it, and does something about it: alerts are quiet. It ends with the hold.',
          }),
      })
      .meta({ description: 'Something that holds the object.' }),
  )
  .max(maxHolds)
  .meta({
    description: 'What holds it, one entry for each reason; absent where nothing does.',
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['reason'],
  });

/** What holds an object, since when, and who knows of it. */
export type Hold = z.infer<typeof holdsSchema>[number];
