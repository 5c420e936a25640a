import { z } from 'zod';
import { dnsLabel, rules, sentence, time } from './fields.ts';
import type { KubeObject } from './objects.ts';

export const approvalSpecSchema = z
  .object({
    workflow: dnsLabel('workflow', 'Name of the Workflow, in the same namespace.'),
    digest: z
      .string()
      .max(64)
      .meta({
        description:
          'What is decided on: `status.revision.digest` of the Workflow. It counts for exactly that, and for nothing that comes after.',
        ...rules({
          rule: "self.matches('^[0-9a-f]{64}$')",
          message:
            'digest must be that of a revision, 64 hexadecimal digits as in status.revision.digest of the Workflow; kubectl guardrails approve NAME --reason TEXT writes it',
        }),
      }),
    run: z
      .object({
        kind: z.enum(['Job', 'Pod']).meta({ description: 'A Job, or a pod that belongs to none.' }),
        name: z.string().min(1).max(253).meta({ description: 'Its name.' }),
        uid: z.string().min(1).max(64).meta({
          description: 'Its UID: the decision counts for exactly this one.',
        }),
      })
      .optional()
      .meta({
        description:
          'The run that is decided on, of a Workflow with `approval.per: Run`. Without it, the decision is on the revision.',
      }),
    decision: z.enum(['Approve', 'Reject']).meta({
      description:
        '`Approve`, or `Reject`: that holds whatever others say. The last decision of a person counts.',
    }),
    reason: sentence('reason', 'Why it may run, or may not.'),
    ticket: z.string().max(256).optional().meta({ description: 'Where it was discussed.' }),
    expires: time(
      'Until when the approval counts; without it, until something changes. Pods that run by then go on.',
    ).optional(),
    approver: z.string().max(1024).optional().meta({
      description:
        'The authenticated user who decides. Stamped by admission when the object is created, whatever the request said.',
    }),
    approverGroups: z
      .array(z.string().max(256).meta({ description: 'Name of a group.' }))
      .max(72)
      .optional()
      .meta({
        description:
          'Groups of the approver, as far as the GuardrailPolicy names them. Stamped by admission with `approver`.',
        'x-kubernetes-list-type': 'atomic',
      }),
  })
  .meta({
    description: 'What is decided, on what, by whom and why. Immutable as a whole.',
    ...rules(
      {
        rule: 'self == oldSelf',
        message:
          "a decision can't be changed; decide again: kubectl guardrails approve NAME --reason TEXT, or reject",
      },
      {
        rule: "!has(self.expires) || self.decision == 'Approve'",
        message: 'a rejection holds until something changes: leave expires out',
      },
    ),
  });

export type ApprovalSpec = z.infer<typeof approvalSpecSchema>;

/** A decision of one person on one revision of a Workflow. */
export interface Approval extends KubeObject {
  spec: ApprovalSpec;
}
