import { z } from 'zod';
import type { Condition, KubeObject } from './objects.ts';

export const killSwitchSpecSchema = z.object({
  workflow: z.string(),
  reason: z.string(),
  engagedBy: z.string().optional(),
});

export type KillSwitchSpec = z.infer<typeof killSwitchSpecSchema>;

export interface KillSwitchStatus {
  observedGeneration?: number;
  /** Ready, and the rungs of the ladder: Fenced, Paused, PodsGone. */
  conditions?: Condition[];
  workloads?: { total: number; paused: number };
  pods?: { remaining: number };
}

/** An engaged kill switch. It exists from the moment of the kill until the release is complete. */
export interface KillSwitch extends KubeObject {
  spec: KillSwitchSpec;
  status?: KillSwitchStatus;
}
