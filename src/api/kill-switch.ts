import { z } from 'zod';
import { conditionsSchema, count, dnsLabel, generation, rules, sentence, time } from './fields.ts';
import type { KubeObject } from './objects.ts';

export const killSwitchSpecSchema = z
  .object({
    workflow: dnsLabel(
      'workflow',
      'Name of the Workflow that is stopped, in the same namespace. It need not exist: everything that runs as the ServiceAccount of this name is stopped. Equal to `metadata.name`. Exactly one of `workflow` and `wholeNamespace`.',
    ).optional(),
    wholeNamespace: z.boolean().optional().meta({
      description:
        'Stops everything that runs in the namespace, whatever it runs as. `metadata.name` is then `namespace`. Exactly one of `workflow` and `wholeNamespace`.',
    }),
    reason: sentence(
      'reason',
      'Why it was stopped. Shown in `kubectl get ksw` and to everybody whose request the fence refuses.',
    ),
    engagedBy: z.string().max(1024).optional().meta({
      description:
        'The authenticated user who engaged. Stamped by admission when the object is created, whatever the request said. Where the annotation of a Workflow engaged, the user who set that.',
    }),
  })
  .meta({
    description: 'What is stopped, why and by whom. Immutable as a whole.',
    ...rules(
      {
        rule: 'has(self.workflow) != (has(self.wholeNamespace) && self.wholeNamespace)',
        message:
          'a KillSwitch stops one Workflow, or the whole namespace: write either workflow or wholeNamespace: true',
      },
      {
        rule: 'self == oldSelf',
        message:
          "the spec of a KillSwitch can't be changed; release the automation with 'kubectl guardrails release', then engage again with another reason",
      },
    ),
  });

export type KillSwitchSpec = z.infer<typeof killSwitchSpecSchema>;

/** Entries of `status.remaining`. */
export const maxRemaining = 32;

export const killSwitchStatusSchema = z
  .object({
    observedGeneration: generation('`metadata.generation` that the status speaks of.'),
    conditions: conditionsSchema.exactOptional().meta({
      ...conditionsSchema.meta(),
      description:
        'The rungs of the ladder: `Fenced` (admission refuses whatever would start), `PermissionsRevoked`, `Paused` (workloads were told to stop), `PodsGone` (no pod is left), `SecretsWithdrawn`, `IdentityRevoked` (the ServiceAccount is deleted), `TokensRevoked` (the API server accepts none of its tokens any more) and `EgressClosed`; `Effective` says that all of them were verified, and `Ready` follows it.',
    }),
    workloads: z
      .object({
        total: count('Workloads that run as the identity.'),
        paused: count('Workloads among them that are paused.'),
      })
      .exactOptional()
      .meta({ description: 'The workloads, counted.' }),
    pods: z
      .object({ remaining: count('Pods of the identity that are still there.') })
      .exactOptional()
      .meta({ description: 'The pods, counted.' }),
    remaining: z
      .array(
        z
          .object({
            what: z.string().max(512).meta({ description: 'What it is.' }),
            until: time(
              'When it ends by itself; absent where that isn’t known, or never.',
            ).exactOptional(),
          })
          .meta({ description: 'Something of the automation that can still be used.' }),
      )
      .max(maxRemaining)
      .exactOptional()
      .meta({
        description:
          'What is left of the automation and stays valid, the first 32; absent where nothing is.',
        'x-kubernetes-list-type': 'atomic',
      }),
  })
  .meta({ description: 'How far the stop, or the release, has come. Written by the operator.' });

export type KillSwitchStatus = z.infer<typeof killSwitchStatusSchema>;

/** Something of the automation that can still be used. */
export type Remaining = NonNullable<KillSwitchStatus['remaining']>[number];

/** Name of the KillSwitch that stops a whole namespace; no Workflow can have it. */
export const wholeNamespaceName = 'namespace';

/** An engaged kill switch. It exists from the moment of the kill until the release is complete. */
export interface KillSwitch extends KubeObject {
  spec: KillSwitchSpec;
  status?: KillSwitchStatus;
}
