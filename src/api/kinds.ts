import type { z } from 'zod';
import { approvalSpecSchema } from './approval.ts';
import { accessReviewSpecSchema } from './access-review.ts';
import {
  automationIdentityRules,
  automationIdentitySpecSchema,
  automationIdentityStatusSchema,
} from './automation-identity.ts';
import { evidenceSegmentRules, evidenceSegmentSpecSchema } from './evidence-segment.ts';
import { identityNameRules, type ValidationRule } from './fields.ts';
import {
  clusterKillSwitchSpecSchema,
  clusterKillSwitchStatusSchema,
} from './cluster-kill-switch.ts';
import { guardrailPolicySpecSchema, guardrailPolicyStatusSchema } from './guardrail-policy.ts';
import { killSwitchSpecSchema, killSwitchStatusSchema } from './kill-switch.ts';
import { resources, type Resource } from './resources.ts';
import {
  workflowRevisionRules,
  workflowRevisionSpecSchema,
  workflowRevisionStatusSchema,
} from './workflow-revision.ts';
import { workflowSpecSchema, workflowStatusSchema } from './workflow.ts';

/** A column of `kubectl get`. */
export interface PrinterColumn {
  readonly name: string;
  readonly type: 'string' | 'integer' | 'date';
  readonly jsonPath: string;
  readonly description: string;
  /** 0 (the default) is always shown, 1 only with `-o wide`. */
  readonly priority?: 0 | 1;
}

/** All that a CustomResourceDefinition and its reference page are made of. */
export interface KindDefinition {
  readonly resource: Resource;
  readonly shortName: string;
  /** First sentence of `kubectl explain`. */
  readonly description: string;
  readonly spec: z.ZodObject;
  /** Absent for a record, which is written once and says nothing of what came of it. */
  readonly status?: z.ZodObject;
  /** Rules over the whole object. */
  readonly rules: readonly ValidationRule[];
  readonly columns: readonly PrinterColumn[];
}

function conditionColumn(name: string, type: string, description: string): PrinterColumn {
  return {
    name,
    type: 'string',
    jsonPath: `.status.conditions[?(@.type=="${type}")].status`,
    description,
  };
}

const reasonColumn: PrinterColumn = {
  name: 'Reason',
  type: 'string',
  jsonPath: '.status.conditions[?(@.type=="Ready")].reason',
  description: 'Why it is ready, or not.',
};

const messageColumn: PrinterColumn = {
  name: 'Message',
  type: 'string',
  jsonPath: '.status.conditions[?(@.type=="Ready")].message',
  description: 'The same in a sentence.',
  priority: 1,
};

const holdColumn: PrinterColumn = {
  name: 'Hold',
  type: 'string',
  jsonPath: '.status.holds[0].reason',
  description: 'The first of what holds it.',
  priority: 1,
};

const ageColumn: PrinterColumn = {
  name: 'Age',
  type: 'date',
  jsonPath: '.metadata.creationTimestamp',
  description: 'Time since it was created.',
};

/** The kinds of the API group, in the order in which a user meets them. */
export const kinds: readonly KindDefinition[] = [
  {
    resource: resources.automationIdentities,
    shortName: 'aid',
    description:
      'An AutomationIdentity says who an automation is: its ServiceAccount, what that may do, and the credentials that are generated and rotated for it. The Workflow of the same name runs as it.',
    spec: automationIdentitySpecSchema,
    status: automationIdentityStatusSchema,
    rules: [...identityNameRules('an AutomationIdentity'), ...automationIdentityRules],
    columns: [
      conditionColumn('Ready', 'Ready', 'Everything that it asks for is there.'),
      conditionColumn('Held', 'Held', 'Something is missing, and nothing new is granted.'),
      conditionColumn('Excess', 'ExcessPermissions', 'Others let it do more than it declares.'),
      holdColumn,
      conditionColumn('Review-Overdue', 'ReviewOverdue', 'Nobody has reviewed it in time.'),
      reasonColumn,
      messageColumn,
      ageColumn,
    ],
  },
  {
    resource: resources.workflows,
    shortName: 'awf',
    description:
      'A Workflow is an automation: the workloads that it consists of, who owns it, where it may connect, who has to approve it, and how long and how often it may run. It runs as the AutomationIdentity of the same name. To stop it at once, create a KillSwitch of that name (`kubectl guardrails kill`) or set the annotation `automationguardrails.dev/kill-switch` to the reason.',
    spec: workflowSpecSchema,
    status: workflowStatusSchema,
    rules: identityNameRules('a Workflow'),
    columns: [
      conditionColumn('Ready', 'Ready', 'Its guardrails are in place.'),
      conditionColumn('Held', 'Held', 'Something is missing, and nothing new is granted.'),
      conditionColumn('Approved', 'Approved', 'What runs is approved, as far as that is needed.'),
      conditionColumn('Stopped', 'Stopped', 'The kill switch is engaged.'),
      reasonColumn,
      holdColumn,
      {
        name: 'Owner',
        type: 'string',
        jsonPath: '.spec.owner.team',
        description: 'Team that owns it.',
        priority: 1,
      },
      messageColumn,
      ageColumn,
    ],
  },
  {
    resource: resources.killSwitches,
    shortName: 'ksw',
    description:
      'A KillSwitch stops the Workflow of the same name, or its whole namespace, while it exists: nothing of it starts, and what runs is stopped. It is released, not deleted: another person sets the annotation `automationguardrails.dev/release` (`kubectl guardrails release`), and the operator deletes it when everything is restored.',
    spec: killSwitchSpecSchema,
    status: killSwitchStatusSchema,
    rules: [
      {
        rule: "self.metadata.name == (has(self.spec.workflow) ? self.spec.workflow : 'namespace') && !(has(self.spec.workflow) && self.spec.workflow in ['default', 'namespace'])",
        message:
          "the name of a KillSwitch must be the name of the workflow that it stops, so that there is one for each, or 'namespace' with wholeNamespace: true; a workflow can't be called 'default' or 'namespace'",
      },
    ],
    columns: [
      {
        name: 'Workflow',
        type: 'string',
        jsonPath: '.spec.workflow',
        description: 'What is stopped; empty where it is the whole namespace.',
      },
      { name: 'Reason', type: 'string', jsonPath: '.spec.reason', description: 'Why.' },
      { name: 'Engaged-By', type: 'string', jsonPath: '.spec.engagedBy', description: 'By whom.' },
      conditionColumn('Fenced', 'Fenced', 'Admission refuses whatever would start.'),
      conditionColumn('Pods-Gone', 'PodsGone', 'No pod is left.'),
      conditionColumn(
        'Effective',
        'Effective',
        'Everything was verified, and nothing stays valid.',
      ),
      conditionColumn('Ready', 'Ready', 'The stop is complete.'),
      ageColumn,
    ],
  },
  {
    resource: resources.clusterKillSwitches,
    shortName: 'cksw',
    description:
      'A ClusterKillSwitch stops all automations of many namespaces at once: of an environment, of namespaces with a label, or of all guarded ones; or the Workflows of an owner or a risk. The fence of namespaces stands from the moment that it exists; the operator engages a KillSwitch in each namespace, or for each Workflow, which stops what runs. It is released as a KillSwitch is, by another person (`kubectl guardrails release --cluster NAME`).',
    spec: clusterKillSwitchSpecSchema,
    status: clusterKillSwitchStatusSchema,
    rules: [
      {
        rule: 'self.metadata.name.size() <= 63',
        message:
          'the name of a ClusterKillSwitch has at most 63 characters, since it becomes the value of a label; choose a shorter one',
      },
    ],
    columns: [
      { name: 'Reason', type: 'string', jsonPath: '.spec.reason', description: 'Why.' },
      { name: 'Engaged-By', type: 'string', jsonPath: '.spec.engagedBy', description: 'By whom.' },
      conditionColumn('Fenced', 'Fenced', 'Admission refuses whatever would start.'),
      {
        name: 'Namespaces',
        type: 'integer',
        jsonPath: '.status.namespaces.total',
        description: 'How many namespaces it stops.',
      },
      {
        name: 'Stopped',
        type: 'integer',
        jsonPath: '.status.namespaces.stopped',
        description: 'In how many of them everything is stopped.',
      },
      conditionColumn(
        'Effective',
        'Effective',
        'Everything was verified, and nothing stays valid.',
      ),
      conditionColumn('Ready', 'Ready', 'The stop is complete.'),
      ageColumn,
    ],
  },
  {
    resource: resources.guardrailPolicies,
    shortName: 'gpol',
    description:
      'A GuardrailPolicy says what all automations have to keep to: which environments there are, how many people approve what runs, and ceilings on tokens, rotations, reviews and egress. There is one, called `default`; without it no ceilings hold, and the approvals are those of the risk.',
    spec: guardrailPolicySpecSchema,
    status: guardrailPolicyStatusSchema,
    rules: [
      {
        rule: "self.metadata.name == 'default'",
        message:
          "there is one GuardrailPolicy, and it is called 'default': write the rules into that",
      },
    ],
    columns: [
      {
        name: 'Enforcement',
        type: 'string',
        jsonPath: '.spec.enforcement',
        description: 'What becomes of what goes beyond it; Enforce if absent.',
      },
      {
        name: 'Workflows',
        type: 'integer',
        jsonPath: '.status.violations.workflows',
        description: 'How many Workflows go beyond it.',
      },
      {
        name: 'Identities',
        type: 'integer',
        jsonPath: '.status.violations.automationIdentities',
        description: 'How many AutomationIdentities go beyond it.',
      },
      conditionColumn('Ready', 'Ready', 'The operator goes by it.'),
      ageColumn,
    ],
  },
  {
    resource: resources.approvals,
    shortName: 'awa',
    description:
      'An Approval is the decision of one person on one revision of a Workflow: that it may run, or may not. It is created and never changed (`kubectl guardrails approve`, `kubectl guardrails reject`).',
    spec: approvalSpecSchema,
    rules: [],
    columns: [
      {
        name: 'Workflow',
        type: 'string',
        jsonPath: '.spec.workflow',
        description: 'What it decides on.',
      },
      {
        name: 'Decision',
        type: 'string',
        jsonPath: '.spec.decision',
        description: 'What was decided.',
      },
      { name: 'Approver', type: 'string', jsonPath: '.spec.approver', description: 'By whom.' },
      {
        name: 'Expires',
        type: 'string',
        jsonPath: '.spec.expires',
        description: 'Until when it counts.',
      },
      { name: 'Reason', type: 'string', jsonPath: '.spec.reason', description: 'Why.' },
      {
        name: 'Digest',
        type: 'string',
        jsonPath: '.spec.digest',
        description: 'The revision.',
        priority: 1,
      },
      ageColumn,
    ],
  },
  {
    resource: resources.accessReviews,
    shortName: 'arv',
    description:
      'An AccessReview records that somebody looked at what an AutomationIdentity may do, and what he decided: create one with `kubectl guardrails review`. It is never changed; the latest one of an identity decides.',
    spec: accessReviewSpecSchema,
    rules: [],
    columns: [
      {
        name: 'Identity',
        type: 'string',
        jsonPath: '.spec.identity',
        description: 'What was reviewed.',
      },
      {
        name: 'Decision',
        type: 'string',
        jsonPath: '.spec.decision',
        description: 'What was decided.',
      },
      { name: 'Reviewer', type: 'string', jsonPath: '.spec.reviewer', description: 'By whom.' },
      { name: 'Reason', type: 'string', jsonPath: '.spec.reason', description: 'Why.' },
      ageColumn,
    ],
  },
  {
    resource: resources.workflowRevisions,
    shortName: 'awr',
    description:
      'A WorkflowRevision is what ran of a Workflow from one change to the next: its spec, that of its AutomationIdentity, and the pod templates of its targets, with who changed it and why. The operator records it, and nobody changes it. Read it with `kubectl guardrails history`.',
    spec: workflowRevisionSpecSchema,
    status: workflowRevisionStatusSchema,
    rules: workflowRevisionRules,
    columns: [
      {
        name: 'Workflow',
        type: 'string',
        jsonPath: '.spec.workflow',
        description: 'What it is a revision of.',
      },
      {
        name: 'Revision',
        type: 'integer',
        jsonPath: '.spec.revision',
        description: 'Its number.',
      },
      {
        name: 'Active',
        type: 'string',
        jsonPath: '.status.active',
        description: 'It is in force.',
      },
      {
        name: 'Approved',
        type: 'string',
        jsonPath: '.status.approved.by',
        description: 'Who approved it.',
      },
      {
        name: 'Changed-By',
        type: 'string',
        jsonPath: '.spec.authenticated',
        description: 'Who was authenticated when it was changed.',
      },
      {
        name: 'Reason',
        type: 'string',
        jsonPath: '.spec.asserted.reason',
        description: 'Why, as asserted.',
      },
      ageColumn,
    ],
  },
  {
    resource: resources.evidenceSegments,
    shortName: 'evs',
    description:
      'An EvidenceSegment is a part of the record of everything that was done by and to an automation: a chain of records, each with the hash of the one before. The operator appends to it; nobody changes a record, or takes one out. Read it with `kubectl guardrails timeline`.',
    spec: evidenceSegmentSpecSchema,
    rules: evidenceSegmentRules,
    columns: [
      {
        name: 'Chain',
        type: 'string',
        jsonPath: '.spec.chain',
        description: 'Whose records these are.',
      },
      {
        name: 'First',
        type: 'integer',
        jsonPath: '.spec.first',
        description: 'Sequence of the first record.',
      },
      {
        name: 'Last',
        type: 'integer',
        jsonPath: '.spec.head.sequence',
        description: 'Sequence of the last record.',
      },
      {
        name: 'Sealed',
        type: 'string',
        jsonPath: '.spec.sealed',
        description: 'It is complete, and the next one has begun.',
      },
      {
        name: 'Signed',
        type: 'date',
        jsonPath: '.spec.head.time',
        description: 'Time since the last record was signed.',
      },
    ],
  },
];
