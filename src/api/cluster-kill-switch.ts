import { z } from 'zod';
import {
  conditionsSchema,
  count,
  dnsLabel,
  generation,
  labelSelector,
  rules,
  sentence,
} from './fields.ts';
import type { KubeObject } from './objects.ts';
import { risks } from './workflow.ts';

export const clusterKillSwitchSpecSchema = z
  .object({
    environments: z
      .array(
        dnsLabel(
          'an environment',
          'Value of the label `automationguardrails.dev/environment` of a namespace.',
        ),
      )
      .min(1)
      .max(32)
      .optional()
      .meta({
        description:
          'Stops all guarded namespaces of these environments. Exactly one of `environments`, `namespaceSelector`, `everything`, `teams` and `risks`.',
        'x-kubernetes-list-type': 'set',
      }),
    namespaceSelector: labelSelector(
      'Stops all guarded namespaces with these labels. Exactly one of `environments`, `namespaceSelector`, `everything`, `teams` and `risks`.',
    ).optional(),
    everything: z.boolean().optional().meta({
      description:
        'Stops all guarded namespaces of the cluster. Exactly one of `environments`, `namespaceSelector`, `everything`, `teams` and `risks`.',
    }),
    teams: z
      .array(z.string().min(1).max(256).meta({ description: 'Name of a team.' }))
      .min(1)
      .max(32)
      .optional()
      .meta({
        description:
          'Stops all Workflows of these owners (`spec.owner.team`), as soon as the operator has written them into `status.fenced`; what runs is stopped by a KillSwitch for each. Exactly one of `environments`, `namespaceSelector`, `everything`, `teams` and `risks`.',
        'x-kubernetes-list-type': 'set',
      }),
    risks: z
      .array(z.enum(risks).meta({ description: 'A risk.' }))
      .min(1)
      .max(risks.length)
      .optional()
      .meta({
        description:
          'Stops all Workflows of these risks, as `teams` does. Exactly one of `environments`, `namespaceSelector`, `everything`, `teams` and `risks`.',
        'x-kubernetes-list-type': 'set',
      }),
    reason: sentence(
      'reason',
      'Why it was stopped. Shown in `kubectl get cksw,ksw -A` and to everybody whose request the fence refuses.',
    ),
    engagedBy: z.string().max(1024).optional().meta({
      description:
        'The authenticated user who engaged. Stamped by admission when the object is created, whatever the request said.',
    }),
  })
  .meta({
    description:
      'Which namespaces, or which Workflows, are stopped, why and by whom. Immutable as a whole.',
    ...rules(
      {
        rule: '[has(self.environments), has(self.namespaceSelector), has(self.everything) && self.everything, has(self.teams), has(self.risks)].filter(given, given).size() == 1',
        message:
          'a ClusterKillSwitch stops by one thing: write exactly one of environments, namespaceSelector, everything: true, teams and risks',
      },
      {
        rule: 'self == oldSelf',
        message:
          "the spec of a ClusterKillSwitch can't be changed; release it with 'kubectl guardrails release --cluster NAME', then engage another",
      },
    ),
  });

export type ClusterKillSwitchSpec = z.infer<typeof clusterKillSwitchSpecSchema>;

/** Workflows in `status.fenced`, 253 bytes each at most; of more, their KillSwitches are the fence. */
export const maxFenced = 2_000;

/** Entries of `status.waiting`. */
export const maxWaiting = 32;

export const clusterKillSwitchStatusSchema = z
  .object({
    observedGeneration: generation('`metadata.generation` that the status speaks of.'),
    conditions: conditionsSchema.exactOptional().meta({
      ...conditionsSchema.meta(),
      description:
        '`Fenced` (admission refuses new pods and tokens in all of its namespaces), `Ready` (every namespace is stopped), and `Effective` (in every one, every rung was verified).',
    }),
    namespaces: z
      .object({
        total: count('Guarded namespaces that it selects.'),
        stopped: count('Namespaces among them in which everything is stopped.'),
        effective: count('Namespaces among them in which that was verified, rung by rung.'),
      })
      .exactOptional()
      .meta({ description: 'The namespaces, counted.' }),
    workflows: z
      .object({
        total: count('Workflows that it selects.'),
        stopped: count('Workflows among them of which everything is stopped.'),
        effective: count('Workflows among them of which that was verified, rung by rung.'),
      })
      .exactOptional()
      .meta({ description: 'The Workflows, counted, where it selects those.' }),
    fenced: z
      .record(
        z.string(),
        z
          .array(z.string().max(63).meta({ description: 'Name of a Workflow.' }))
          .max(maxFenced)
          .meta({
            description: 'The Workflows of one namespace.',
            'x-kubernetes-list-type': 'atomic',
          }),
      )
      .exactOptional()
      .meta({
        description: `Where it selects Workflows: those whose pods and tokens admission refuses by this very list, by namespace. Until the release, none is taken out, whatever becomes of the Workflow. ${maxFenced} at most; the others are refused by their KillSwitches.`,
        maxProperties: maxFenced,
      }),
    waiting: z
      .array(
        z
          .string()
          .max(127)
          .meta({ description: 'Name of a namespace, or `namespace/name` of a Workflow.' }),
      )
      .max(maxWaiting)
      .exactOptional()
      .meta({
        description:
          'Namespaces or Workflows that are not stopped yet, or not released yet, the first 32; absent where there are none.',
        'x-kubernetes-list-type': 'atomic',
      }),
  })
  .meta({ description: 'How far the stop, or the release, has come. Written by the operator.' });

export type ClusterKillSwitchStatus = z.infer<typeof clusterKillSwitchStatusSchema>;

/** A kill switch over many namespaces. It exists until the release is complete. */
export interface ClusterKillSwitch extends KubeObject {
  spec: ClusterKillSwitchSpec;
  status?: ClusterKillSwitchStatus;
}
