import { z } from 'zod';
import { dnsLabel, rules, sentence } from './fields.ts';
import type { KubeObject } from './objects.ts';

/** How a digest of permissions is written: SHA-256, in hexadecimal. */
const digestPattern = '^sha256:[0-9a-f]{64}$';

/** What a reviewer can decide. */
const decisions = ['Keep', 'Reduce', 'Revoke'] as const;

/** A digest of what an identity may do; `what` names the field in the sentence of its refusal. */
export function digest(what: string, description: string): z.ZodString {
  return z
    .string()
    .max(71)
    .meta({
      description,
      ...rules({
        rule: `self.matches('${digestPattern}')`,
        message: `${what} must be the digest that 'kubectl guardrails review' shows, such as 'sha256:' with 64 hexadecimal digits`,
      }),
    });
}

/** What was decided, as a field of `spec` and of a status. */
export const decision = z.enum(decisions);

export const accessReviewSpecSchema = z
  .object({
    identity: dnsLabel(
      'identity',
      'Name of the AutomationIdentity that was reviewed, in the same namespace.',
    ),
    decision: decision.meta({
      description:
        'What the reviewer decided. `Keep`: it needs what it may do. `Reduce`: it needs less; nothing new is granted until `spec.permissions` asks for less. `Revoke`: permissions, tokens, Secrets and the ServiceAccount are taken away, until a later review with `Keep`.',
    }),
    reason: sentence('reason', 'Why; shown in the conditions and events of the identity.'),
    digest: digest(
      'digest',
      'What was reviewed: the digest of what the identity may do, as its `status.accessReview.digest` had it. The review is void when that changes; a `Revoke` stands whatever changes.',
    ),
    reviewer: z.string().max(1024).optional().meta({
      description:
        'The authenticated user who reviewed. Stamped by admission when the object is created, whatever the request said.',
    }),
  })
  .meta({
    description: 'What was reviewed, by whom, and what was decided. Immutable as a whole.',
    ...rules({
      rule: 'self == oldSelf',
      message:
        "an AccessReview can't be changed: create another one, the latest decides ('kubectl guardrails review')",
    }),
  });

export type AccessReviewSpec = z.infer<typeof accessReviewSpecSchema>;

/** That somebody looked at what an identity may do, and what he decided. */
export interface AccessReview extends KubeObject {
  spec: AccessReviewSpec;
}
