import { z } from 'zod';
import type { Condition, KubeObject } from './objects.ts';
import { ownerSchema } from './owner.ts';

const permission = z.object({
  apiGroups: z.array(z.string()),
  resources: z.array(z.string()),
  resourceNames: z.array(z.string()).optional(),
  verbs: z.array(z.string()),
  reason: z.string(),
});

const rotation = z.object({
  /** Go-style duration. Exactly one of `every` and `schedule`. */
  every: z.string().optional(),
  /** Cron expression, UTC. */
  schedule: z.string().optional(),
  /** Go-style duration for which `previous.*` stays readable. */
  overlap: z.string().optional(),
  restartConsumers: z.boolean().optional(),
});

const secret = z.object({
  name: z.string(),
  type: z.enum(['Password', 'Token']),
  length: z.int().optional(),
  rotation: rotation.optional(),
});

export const automationIdentitySpecSchema = z.object({
  purpose: z.string().optional(),
  owner: ownerSchema.optional(),
  permissions: z.array(permission).optional(),
  secrets: z.array(secret).optional(),
});

export type AutomationIdentitySpec = z.infer<typeof automationIdentitySpecSchema>;
export type Permission = z.infer<typeof permission>;
export type GeneratedSecret = z.infer<typeof secret>;

export interface SecretStatus {
  name: string;
  /** Name of the Secret object. */
  secretName: string;
  /** RFC 3339. */
  lastRotationTime?: string;
  /** RFC 3339. */
  nextRotationTime?: string;
  /** RFC 3339; present while the previous value is readable. */
  previousExpirationTime?: string;
}

export interface AutomationIdentityStatus {
  observedGeneration?: number;
  conditions?: Condition[];
  /** The last `rotate` nonce that was carried out. */
  lastHandledRotation?: string;
  secrets?: SecretStatus[];
}

/** Who an automation is: its ServiceAccount, permissions and generated credentials. */
export interface AutomationIdentity extends KubeObject {
  spec: AutomationIdentitySpec;
  status?: AutomationIdentityStatus;
}
