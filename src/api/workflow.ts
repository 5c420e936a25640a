import { z } from 'zod';
import type { Condition, KubeObject } from './objects.ts';
import { ownerSchema } from './owner.ts';

const target = z.object({
  group: z.enum(['apps', 'batch']),
  kind: z.enum(['Deployment', 'StatefulSet', 'Job', 'CronJob']),
  name: z.string().max(63).optional(),
  selector: z.object({ matchLabels: z.record(z.string(), z.string()) }).optional(),
});

const egressPort = z.object({
  port: z.int(),
  endPort: z.int().optional(),
  protocol: z.enum(['TCP', 'UDP', 'SCTP']).default('TCP'),
});

const egressEntry = z.object({
  cidr: z.string().optional(),
  /** Exact name of a namespace; with podSelector, the pods of it. */
  namespace: z.string().optional(),
  podSelector: z.object({ matchLabels: z.record(z.string(), z.string()) }).optional(),
  ports: z.array(egressPort).optional(),
  reason: z.string(),
});

export const workflowSpecSchema = z.object({
  description: z.string().optional(),
  owner: ownerSchema.optional(),
  targets: z.array(target),
  egress: z.array(egressEntry).optional(),
});

export type WorkflowSpec = z.infer<typeof workflowSpecSchema>;
export type WorkflowTarget = z.infer<typeof target>;
export type EgressEntry = z.infer<typeof egressEntry>;

export interface WorkflowStatus {
  observedGeneration?: number;
  conditions?: Condition[];
  targets?: { total: number; running: number; stopped: number; missing: number };
}

/** An automation: what runs, who owns it, and where it may connect. */
export interface Workflow extends KubeObject {
  spec: WorkflowSpec;
  status?: WorkflowStatus;
}
