import { z } from 'zod';

/** Who answers for an automation. A missing part holds the object; the schema doesn't require it. */
export const ownerSchema = z.object({
  team: z.string().optional(),
  contact: z.string().optional(),
  escalation: z.string().optional(),
});

export type Owner = z.infer<typeof ownerSchema>;
