import { z } from 'zod';
import { count, dnsLabel, generation, rules, sha256, time } from './fields.ts';
import type { KubeObject } from './objects.ts';
import { maxParts } from './workflow.ts';

/** Characters that one part is recorded with at most; of a longer one, its digest alone. */
export const maxContent = 65_536;

/** Users that a revision names at most. */
export const maxChangers = 64;

const user = z.string().max(1024).meta({ description: 'Name of a user.' });

const part = z
  .object({
    name: z.string().max(128).meta({
      description: '`Workflow`, `AutomationIdentity`, or kind and name of a target.',
    }),
    digest: sha256('Digest of this part.'),
    changedBy: user.optional().meta({
      description:
        'The authenticated user who changed it last, as admission stamped it; absent where nobody was stamped.',
    }),
    content: z.string().max(maxContent).optional().meta({
      description:
        'The spec of the Workflow or of the AutomationIdentity, or the pod template of the target, as JSON. Absent where it is too long, or where too much else is recorded with it.',
    }),
    redacted: z
      .array(z.string().max(256).meta({ description: 'Where it stands in the part.' }))
      .max(16)
      .optional()
      .meta({
        description:
          'Fields that are left out of `content`, because they have the form of a credential or are too long. `…` says that there are more.',
        'x-kubernetes-list-type': 'atomic',
      }),
  })
  .meta({ description: 'A part of what runs.' });

export const workflowRevisionSpecSchema = z
  .object({
    workflow: dnsLabel('workflow', 'Name of the Workflow, in the same namespace.'),
    revision: z.int().min(1).max(99_999_999).meta({
      description: 'Its number among the revisions of the Workflow, from 1.',
      format: 'int32',
    }),
    digest: sha256(
      'Digest of everything that runs, as approvals name it and `status.revision.digest` of the Workflow has it.',
    ),
    authenticated: z.array(user).max(maxChangers).meta({
      description:
        'Who made it different from the revision before: the users that the API server authenticated. With GitOps, the ServiceAccount of the pipeline. Empty where nobody was stamped.',
      'x-kubernetes-list-type': 'atomic',
    }),
    asserted: z
      .object({
        requestedBy: z.string().max(256).optional().meta({ description: 'Who asked for it.' }),
        version: z.string().max(128).optional().meta({ description: 'The version.' }),
        reason: z.string().max(1024).optional().meta({ description: 'Why it was changed.' }),
        ticket: z.string().max(256).optional().meta({ description: 'Where it was discussed.' }),
        commit: z.string().max(128).optional().meta({ description: 'The commit in Git.' }),
      })
      .optional()
      .meta({
        description:
          'What `spec.change` of the Workflow said: asserted by whoever wrote that, not authenticated.',
      }),
    changers: z.array(user).max(maxChangers).meta({
      description:
        'All who changed something since what was approved last, and so can approve nothing of it. Where there are more than fit, nobody can, until it is as it was approved.',
      'x-kubernetes-list-type': 'atomic',
    }),
    sameAs: count(
      'Number of the last earlier revision with the same digest: it was rolled back to.',
    ).optional(),
    promotedFrom: z
      .object({
        namespace: z.string().max(63).meta({ description: 'Its namespace.' }),
        revision: count('Its number there.'),
      })
      .optional()
      .meta({
        description:
          'The revision of the same digest that has been in force in the namespace that the annotation `automationguardrails.dev/promoted-from` of the Workflow names. Found by the operator: absent where there is none, whatever the annotation says.',
      }),
    parts: z.array(part).min(1).max(maxParts).meta({
      description: 'What it consists of.',
      'x-kubernetes-list-type': 'atomic',
    }),
  })
  .meta({
    description: 'What runs, who changed it and why. Immutable as a whole.',
    ...rules({
      rule: 'self == oldSelf',
      message:
        "a revision can't be changed; to go back to an earlier one: kubectl guardrails rollback NAME --to N",
    }),
  });

export type WorkflowRevisionSpec = z.infer<typeof workflowRevisionSpecSchema>;

/** A part of what runs, as it was recorded. */
export type RecordedPart = WorkflowRevisionSpec['parts'][number];

export const workflowRevisionStatusSchema = z
  .object({
    observedGeneration: generation('`metadata.generation` that the status speaks of.'),
    active: z.boolean().exactOptional().meta({
      description:
        'It is in force: its pods may start. The newest revision that is approved, or that nobody has to approve.',
    }),
    activated: time('When it last came into force.').exactOptional(),
    approved: z
      .object({
        time: time('When the last approval that it needed was counted.'),
        by: z
          .array(user)
          .max(maxChangers)
          .meta({ description: 'By whom.', 'x-kubernetes-list-type': 'atomic' }),
      })
      .exactOptional()
      .meta({
        description:
          'That it was approved. It stays when approvals expire or are withdrawn; whether it may start is `active`.',
      }),
  })
  .meta({ description: 'What became of it. Written by the operator.' });

export type WorkflowRevisionStatus = z.infer<typeof workflowRevisionStatusSchema>;

/** What ran of a Workflow from one change to the next. */
export interface WorkflowRevision extends KubeObject {
  spec: WorkflowRevisionSpec;
  status?: WorkflowRevisionStatus;
}

/** Name of a revision: two writers that record the same one meet. */
export function revisionName(workflow: string, revision: number): string {
  return `${workflow}.${revision}`;
}

/** What the schema demands of the object as a whole. */
export const workflowRevisionRules = [
  {
    rule: "self.metadata.name.startsWith(self.spec.workflow + '.') && self.metadata.name.matches('[.][1-9][0-9]{0,7}$') && int(self.metadata.name.substring(self.spec.workflow.size() + 1)) == self.spec.revision",
    message: 'a revision is named after its Workflow, and numbered',
  },
];
