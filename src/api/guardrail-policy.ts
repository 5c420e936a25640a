import { z } from 'zod';
import { conditionsSchema, count, dnsLabel, duration, generation, rules } from './fields.ts';
import type { KubeObject } from './objects.ts';
import { risks } from './workflow.ts';

/** Name of the one GuardrailPolicy that is in force. */
export const policyInForceName = 'default';

/** What an environment counts as. They are the environments that need no mapping. */
export const tiers = ['dev', 'test', 'prod'] as const;

/** What an environment counts as. */
export type Tier = (typeof tiers)[number];

/** Fields of a Workflow that a policy can ask for. */
const requirableFields = [
  'Description',
  'Version',
  'ChangeReason',
  'RequestedBy',
  'Ticket',
  'Timeout',
  'Requester',
] as const;

/** Something that a policy can ask for. */
export type Requirable = (typeof requirableFields)[number];

/** A field of the spec of a Workflow that a policy can ask for. */
export type RequirableField = Exclude<Requirable, 'Requester'>;

const environment = z
  .object({
    name: dnsLabel(
      'the name of an environment',
      'Value of the label `automationguardrails.dev/environment` of namespaces. `dev`, `test` and `prod` are what they say.',
    ),
    tier: z.enum(tiers).meta({ description: 'What it counts as.' }),
  })
  .meta({
    description: 'An environment, and what it counts as.',
    ...rules({
      rule: "!(self.name in ['dev', 'test', 'prod'])",
      message:
        'dev, test and prod are tiers themselves and are mapped to no other one: leave the entry out',
    }),
  });

const approvalsOf = (risk: string, unlessGiven: number) =>
  z
    .int32()
    .min(0)
    .max(8)
    .optional()
    .meta({
      description: `People who have to approve a Workflow of ${risk} risk; ${unlessGiven} if absent.`,
    });

const approvals = z
  .object({
    low: approvalsOf('low', 0),
    medium: approvalsOf('medium', 1),
    high: approvalsOf('high', 2),
  })
  .meta({
    description: 'How many people approve what runs, by risk.',
    ...rules({
      rule: '(has(self.low) ? self.low : 0) <= (has(self.medium) ? self.medium : 1) && (has(self.medium) ? self.medium : 1) <= (has(self.high) ? self.high : 2)',
      message:
        'a higher risk needs no fewer approvals than a lower one: write low <= medium <= high, which are 0, 1 and 2 if absent',
    }),
  });

const ceilings = z
  .object({
    tokenLifetime: duration(
      'tokenLifetime',
      'Longest life of a token of an AutomationIdentity (`tokens[].expirationSeconds`), a Go-style duration such as `15m`.',
    ).optional(),
    rotationInterval: duration(
      'rotationInterval',
      'Longest time from one rotation of a secret of an AutomationIdentity to the next (`secrets[].rotation.every`), a Go-style duration such as `720h`. A secret without a rotation is beyond it, and so is one with a `schedule`, of which nobody can tell how long it lets it rest.',
    ).optional(),
    reviewInterval: duration(
      'reviewInterval',
      'Longest time from one access review of an AutomationIdentity to the next (`accessReview.every`), a Go-style duration such as `2160h`. One without reviews is beyond it.',
    ).optional(),
    egressPrefixIPv4: z.int32().min(8).max(32).optional().meta({
      description:
        'Shortest prefix of an IPv4 network in the allowlist of a Workflow (`egress[].cidr`): 24 refuses a /16.',
    }),
    egressPrefixIPv6: z.int32().min(16).max(128).optional().meta({
      description: 'Shortest prefix of an IPv6 network in the allowlist of a Workflow.',
    }),
  })
  .meta({ description: 'What no Workflow and no AutomationIdentity may go beyond.' });

/** Groups that a policy names for one risk. */
const maxApproverGroups = 8;

const approvers = z
  .object({
    risk: z.enum(risks).meta({ description: 'The risk of the Workflows that are meant.' }),
    groups: z
      .array(
        z
          .string()
          .min(1)
          .max(256)
          .meta({
            description: 'Name of a group, as the API server authenticates it.',
            ...rules({
              rule: "!self.startsWith('system:')",
              message:
                "groups that begin with 'system:' are the cluster's own, and everybody is in one: name a group of people",
            }),
          }),
      )
      .min(1)
      .max(maxApproverGroups)
      .meta({
        description: 'An approval counts if its approver is in one of them.',
        'x-kubernetes-list-type': 'set',
      }),
    oneOfEach: z.boolean().optional().meta({
      description:
        'Whether each of the groups has to approve, by a person of its own. False if absent.',
    }),
  })
  .meta({ description: 'Who approves Workflows of one risk.' });

export type Approvers = z.infer<typeof approvers>;

const tierRules = z
  .object({
    name: z.enum(tiers).meta({ description: 'The tier: `dev`, `test` or `prod`.' }),
    approvals: approvals.optional(),
    approvers: z
      .array(approvers)
      .max(risks.length)
      .optional()
      .meta({
        description:
          'Who approves, by risk. For one that is not listed, whoever holds the verb `approve` does. A group gives no right by itself: its people need the verb, too.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['risk'],
      }),
    ceilings: ceilings.optional(),
    required: z
      .array(
        z.enum(requirableFields).meta({
          description:
            'A field of a Workflow: `Description` (`description`), `Version`, `ChangeReason`, `RequestedBy` and `Ticket` (of `change`), `Timeout` (of `limits`); or `Requester`, of an AutomationIdentity, too: who was authenticated when its spec was changed, so that his rights are asked for. Admission stamps him; where it writes nothing (before Kubernetes 1.36), whoever changes it writes the annotation `automationguardrails.dev/changed-by`, and a person `automationguardrails.dev/changed-by-groups` as well.',
        }),
      )
      .max(requirableFields.length)
      .optional()
      .meta({
        description: 'What every Workflow has to have. An owner it needs in any case.',
        'x-kubernetes-list-type': 'set',
      }),
  })
  .meta({ description: 'What holds in the environments of a tier.' });

/** What becomes of what goes beyond a policy. */
const enforcements = ['Enforce', 'Warn', 'Audit'] as const;

export const guardrailPolicySpecSchema = z
  .object({
    enforcement: z.enum(enforcements).optional().meta({
      description:
        '`Enforce`, also if absent: what goes beyond a ceiling is refused, and what stood before is Held. `Warn`: whoever writes it is warned. `Audit`: it is only reported. In each of them, by the condition `PolicyViolation` and a metric. Approvals are asked for in all three.',
    }),
    gracePeriod: duration(
      'gracePeriod',
      'Time for which what stood before is only reported, and not Held yet, a Go-style duration such as `168h`. Without it, there is none.',
    ).optional(),
    environments: z
      .array(environment)
      .max(64)
      .optional()
      .meta({
        description:
          'Environments besides `dev`, `test` and `prod`, and what they count as. In a namespace of any other one everything is Held.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['name'],
      }),
    tiers: z
      .array(tierRules)
      .max(tiers.length)
      .optional()
      .meta({
        description:
          'What holds in each tier. In one that is not listed there are no ceilings, and the approvals are those that hold without a policy.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['name'],
      }),
  })
  .meta({
    description: 'What environments there are, and what their automations have to keep to.',
  });

export type GuardrailPolicySpec = z.infer<typeof guardrailPolicySpecSchema>;
export type TierRules = z.infer<typeof tierRules>;
/** What becomes of what goes beyond a ceiling. */
export type Enforcement = (typeof enforcements)[number];

export const guardrailPolicyStatusSchema = z
  .object({
    observedGeneration: generation('`metadata.generation` that the status speaks of.'),
    conditions: conditionsSchema.exactOptional().meta({
      ...conditionsSchema.meta(),
      description: '`Ready`: the operator goes by this policy.',
    }),
    violations: z
      .object({
        workflows: count('Workflows that go beyond it.'),
        automationIdentities: count('AutomationIdentities that go beyond it.'),
      })
      .exactOptional()
      .meta({ description: 'What goes beyond it, counted. Each says so in its own status.' }),
  })
  .meta({ description: 'What the operator makes of it. Written by the operator.' });

export type GuardrailPolicyStatus = z.infer<typeof guardrailPolicyStatusSchema>;

/** What an organisation asks of all automations. The one called `default` is in force. */
export interface GuardrailPolicy extends KubeObject {
  spec: GuardrailPolicySpec;
  status?: GuardrailPolicyStatus;
}
