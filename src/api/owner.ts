import { z } from 'zod';

/** Who answers for an automation. A missing part holds the object; the schema doesn't require it. */
export const ownerSchema = z
  .object({
    team: z
      .string()
      .max(253)
      .optional()
      .meta({ description: 'Team that owns the automation, such as `finance-platform`.' }),
    contact: z
      .string()
      .max(253)
      .optional()
      .meta({ description: 'Where the team is reached: a mail address, a channel or a URL.' }),
    escalation: z.string().max(253).optional().meta({
      description: 'Whom to call when the contact does not answer: an on-call rota or a number.',
    }),
  })
  .meta({
    description:
      'Who answers for the automation. All three parts are needed; while one is missing, the object is Held and is granted nothing new.',
  });

export type Owner = z.infer<typeof ownerSchema>;
