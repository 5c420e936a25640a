import { annotation, approvalGate, GROUP, label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { workloadResources } from '../api/workload.ts';
import {
  annotationOf,
  groups,
  hasAnnotation,
  hasLabel,
  isPerson,
  isUpdate,
  labelOf,
  removeLabel,
  user,
} from './cel.ts';
import {
  mutating,
  policyName,
  rule,
  validating,
  type AdmissionObject,
  type SelectedParameter,
  type Validation,
} from './policies.ts';

const { workflows, approvals, pods, namespaces } = resources;

/**
 * Verbs of our own on `automationworkflows`: `approve` decides on a revision, `waive-approval` takes
 * the need for approvals away (both for people); `lift-gate` starts what is approved, and prunes
 * decisions (for the operator).
 */
export type WorkflowVerb = 'approve' | 'waive-approval' | 'lift-gate' | 'widen';

/**
 * Whether who asks holds a custom verb on a Workflow of the request's namespace.
 *
 * @param name expression: name of the Workflow
 */
export function mayOnWorkflow(verb: WorkflowVerb, name: string): string {
  return `authorizer.group('${GROUP}').resource('${workflows.plural}').namespace(request.namespace).name(${name}).check('${verb}').allowed()`;
}

/** Value of the label on a Workflow that needs approval by its own spec. */
export const approvalRequired = 'required';

/** Value of the same label on one that needs it by the GuardrailPolicy alone. */
export const approvalByPolicy = 'by-policy';

/** Workflows that need approval: no other one costs a pod anything. */
export const needingApproval: SelectedParameter = {
  kind: 'Workflow',
  matchLabels: {},
  hasLabel: label.approval,
};

/** Expression: whether each run of a Workflow is asked for by itself. */
export const isPerRun = (of: string): string => `${of}.spec.?approval.?per.orValue('') == 'Run'`;

/** Expression: how many approvals a Workflow needs without a policy. */
function quorum(of: string): string {
  const risk = `${of}.spec.?risk.orValue('Low')`;
  const byRisk = `(${risk} == 'High' ? 2 : ${risk} == 'Medium' || ${isPerRun(of)} ? 1 : 0)`;
  const asked = `${of}.spec.?approval.?required.orValue(0)`;
  return `(${asked} > ${byRisk} ? ${asked} : ${byRisk})`;
}

/** Expression: whether it needs any, whatever a policy says. */
export const needsApproval = `(${quorum('object')} > 0)`;

/** The policy that refuses an Approval without the stamp of who decides. */
export const approvalCreationPolicyName = policyName('approval-create');

/** With what the refusal for want of that stamp begins. */
export const unstampedApprover = 'approver is the authenticated user';

/** Who changes, who approves, and that nothing starts before. */
export function approvalPolicies(): AdmissionObject[] {
  return [
    ...stampTemplateChanger(),
    ...keepTemplateChanger(),
    ...markWorkflow(),
    ...unmarkWorkflow(),
    ...validateMark(),
    ...keepWorkflow(),
    ...keepNamespace(),
    ...stampApprover(),
    ...validateApproval(),
    ...refuseOwn(),
    ...keepApproval(),
    ...keepDecision(),
    ...gatePods(),
    ...keepGate(),
  ];
}

/** Whether the namespace of what is deleted is deleted itself. */
const isGoing = '(namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp))';

const { changedBy } = annotation;

/** Of the fields of a pod spec, those that say what it runs; a kill changes others. */
const codeFields = [
  'activeDeadlineSeconds',
  'automountServiceAccountToken',
  'containers',
  'dnsConfig',
  'dnsPolicy',
  'enableServiceLinks',
  'hostAliases',
  'hostIPC',
  'hostNetwork',
  'hostPID',
  'hostUsers',
  'initContainers',
  'os',
  'resourceClaims',
  'restartPolicy',
  'runtimeClassName',
  'schedulerName',
  'securityContext',
  'serviceAccountName',
  'setHostnameAsFQDN',
  'shareProcessNamespace',
  'volumes',
];

/** Expression: the spec of the pods that a workload makes. */
export const podSpecOf = (of: string): string =>
  `(request.resource.resource == '${resources.cronJobs.plural}' ? dyn(${of}).spec.jobTemplate.spec.template.spec : dyn(${of}).spec.template.spec)`;

const templateMetadata = (of: string): string =>
  `(request.resource.resource == '${resources.cronJobs.plural}' ? dyn(${of}).spec.jobTemplate.spec.template.?metadata : dyn(${of}).spec.template.?metadata)`;

/** Written by who restarts pods, and by nothing that runs in them. */
const restarts = [annotation.restartedAt, 'kubectl.kubernetes.io/restartedAt'];

/** Expression: whether labels or annotations of the template, which its pods can read, are the same. */
function isSameMap(field: 'labels' | 'annotations'): string {
  const [after, before] = [templateMetadata('object'), templateMetadata('oldObject')].map(
    (metadata) => `${metadata}.?${field}.orValue({})`,
  );
  const ignored = `key in ['${restarts.join("', '")}']`;
  return `${after}.all(key, ${ignored} || (key in ${before} && ${after}[key] == ${before}[key])) && ${before}.all(key, ${ignored} || key in ${after})`;
}

const isIndependent = (of: string): string =>
  `(request.resource.resource != '${resources.replicaSets.plural}' || !${of}.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false)))`;

const templates = {
  rules: Object.values(workloadResources).map((resource) => rule(resource, ['CREATE', 'UPDATE'])),
  parameter: needingApproval,
  conditions: {
    mine: `${podSpecOf('object')}.?serviceAccountName.orValue('') == params.metadata.name`,
    // Those of a Deployment have its annotations, and are no targets.
    independent: isIndependent('object'),
  },
  variables: {
    // What had a controller wasn't stamped.
    kept: `${isUpdate} && ${hasAnnotation('oldObject', changedBy)} && ${isIndependent('oldObject')} && ${isSameMap('labels')} && ${isSameMap('annotations')} && ${codeFields.map((field) => `${podSpecOf('object')}.?${field} == ${podSpecOf('oldObject')}.?${field}`).join(' && ')}`,
  },
};

/** What others change last is what somebody approves. */
function stampTemplateChanger(): AdmissionObject[] {
  return mutating({
    name: 'changed-template',
    description:
      'Stamps a workload of a Workflow that needs approval with the user who changed what its pods run.',
    ...templates,
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{annotations: {'${changedBy}': variables.kept ? ${annotationOf('oldObject', changedBy)} : ${user}}}}`,
  });
}

/** Workloads that are older than their Workflow have no stamp, and get one with their next change. */
function keepTemplateChanger(): AdmissionObject[] {
  const stamp = annotationOf('object', changedBy);
  return validating({
    name: 'changed-template-kept',
    description: 'The stamp of who changed what pods run is true.',
    ...templates,
    validations: [
      {
        expression: `variables.kept ? ${stamp} == ${annotationOf('oldObject', changedBy)} : (!${hasAnnotation('object', changedBy)} || ${stamp} == ${user})`,
        message: `${changedBy} is the authenticated user who changed the pod template; leave it out, or write your own name with a change`,
      },
    ],
  });
}

const isMarked = (of: string): string => `${labelOf(of, label.approval)} == '${approvalRequired}'`;

function markWorkflow(): AdmissionObject[] {
  return mutating({
    name: 'approval-mark',
    description: 'Labels a Workflow that needs approval, so that its pods are gated.',
    rules: [rule(workflows, ['CREATE', 'UPDATE'])],
    everywhere: true,
    conditions: { needed: needsApproval },
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{labels: {'${label.approval}': '${approvalRequired}'}}}`,
  });
}

function unmarkWorkflow(): AdmissionObject[] {
  return mutating({
    name: 'approval-unmark',
    description: 'A Workflow that needs no approval carries no mark of it.',
    rules: [rule(workflows, ['CREATE', 'UPDATE'])],
    everywhere: true,
    conditions: {
      'not-needed': `!${needsApproval}`,
      marked: `${hasLabel('object', label.approval)} && ${labelOf('object', label.approval)} != '${approvalByPolicy}'`,
    },
    patchType: 'JSONPatch',
    expression: `[${removeLabel(label.approval)}]`,
  });
}

/**
 * Whoever may change a Workflow could take its approvals away by its risk: that is lowered by who
 * holds a verb of its own.
 */
function validateMark(): AdmissionObject[] {
  const before = `(${isUpdate} ? ${quorum('oldObject')} : 0)`;
  return validating({
    name: 'approval-marks',
    description: 'The mark of a Workflow that needs approval is true, and its need is not lowered.',
    rules: [rule(workflows, ['CREATE', 'UPDATE'])],
    everywhere: true,
    validations: [
      {
        expression: `${needsApproval} ? ${isMarked('object')} : ${labelOf('object', label.approval, approvalByPolicy)} == '${approvalByPolicy}'`,
        message: `the label ${label.approval} follows spec.risk and spec.approval; leave it alone`,
        messageExpression: `'the label ${label.approval} follows spec.risk and spec.approval; leave it alone or, where admission writes nothing, ' + (${needsApproval} ? 'write ${label.approval}: ${approvalRequired}' : 'leave it out')`,
      },
      {
        expression: `${quorum('object')} >= ${before} && !(${isUpdate} && ${isPerRun('oldObject')} && !(${isPerRun('object')})) || (${isPerson} && ${mayOnWorkflow('waive-approval', 'object.metadata.name')})`,
        message: 'the approvals that a Workflow needs are not lowered',
        messageExpression: `'this Workflow needs ' + string(${before}) + ' approvals, and the change would ask for ' + string(${quorum('object')}) + ': leave spec.risk and spec.approval as they are; to lower them takes a person with the verb waive-approval on it (ClusterRole automation-guardrails-approval-waiver)'`,
      },
    ],
  });
}

/**
 * That what a Workflow needs is lowered by nobody but who may.
 *
 * @param after expression: approvals that it needs after the write
 * @param before expression: and before it
 */
export function validatesWaiver(after: string, before: string): Validation {
  return {
    expression: `${after} >= ${before} || (${isPerson} && ${mayOnWorkflow('waive-approval', 'object.metadata.name')})`,
    message: 'the approvals that a Workflow needs are not lowered',
    messageExpression: `'this Workflow needs ' + string(${before}) + ' approvals, and the change would ask for ' + string(${after}) + ': leave spec.risk and spec.approval.required as they are; to lower them takes a person with the verb waive-approval on it (ClusterRole automation-guardrails-approval-waiver)'`,
  };
}

/** Without the Workflow, pods of its identity would start with all that was granted to it. */
function keepWorkflow(): AdmissionObject[] {
  return validating({
    name: 'approval-workflow-stays',
    description:
      'A Workflow that needs approval is not deleted before the AutomationIdentity that it runs as.',
    rules: [rule(workflows, ['DELETE'])],
    parameter: { kind: 'AutomationIdentity', matchLabels: {} },
    conditions: {
      mine: 'params.metadata.name == oldObject.metadata.name',
      needed: hasLabel('oldObject', label.approval),
    },
    validations: [
      {
        expression: `${isGoing} || ${isPerson} && ${mayOnWorkflow('waive-approval', 'oldObject.metadata.name')}`,
        message:
          'without this Workflow, its pods would start unapproved: delete the AutomationIdentity first',
        messageExpression: `'without this Workflow, whatever runs as its identity would start unapproved: delete that first (kubectl delete aid ' + oldObject.metadata.name + ' -n ' + oldObject.metadata.namespace + '), or have it done by a person with the verb waive-approval on it'`,
      },
    ],
  });
}

/** The policies that gate pods are bound to guarded namespaces by their label. */
function keepNamespace(): AdmissionObject[] {
  const environment = (of: string): string => labelOf(of, label.environment);
  return validating({
    name: 'approval-namespace',
    description:
      'A namespace with a Workflow that needs approval stays guarded, and in its environment.',
    rules: [rule(namespaces, ['UPDATE'])],
    parameter: needingApproval,
    everywhere: true,
    objectSelector: { matchExpressions: [{ key: label.environment, operator: 'Exists' }] },
    conditions: {
      changes: `${hasLabel('oldObject', label.environment)} && ${environment('oldObject')} != ${environment('object')}`,
      stands: '!has(oldObject.metadata.deletionTimestamp)',
    },
    validations: [
      {
        expression: hasLabel('object', label.environment),
        message: `a Workflow in this namespace needs approval; its label ${label.environment} stays`,
        messageExpression: `'the Workflow ' + params.metadata.name + ' in this namespace needs approval, which only holds in a guarded one: the label ${label.environment} stays'`,
      },
      {
        // Another environment may ask for fewer approvals.
        expression: `!${hasLabel('object', label.environment)} || (${isPerson} && ${mayOnWorkflow('waive-approval', 'params.metadata.name')})`,
        message: `a Workflow in this namespace needs approval; its environment stays`,
        messageExpression: `'the Workflow ' + params.metadata.name + ' in this namespace needs approval, and another environment may ask for fewer: to change the label ${label.environment} takes a person with the verb waive-approval on it'`,
      },
    ],
  });
}

function stampApprover(): AdmissionObject[] {
  return mutating({
    name: 'approval-stamp',
    description: 'Stamps a new Approval with the authenticated user who decides.',
    rules: [rule(approvals, ['CREATE'])],
    everywhere: true,
    patchType: 'ApplyConfiguration',
    expression: `Object{spec: Object.spec{approver: ${user}}}`,
  });
}

function validateApproval(): AdmissionObject[] {
  return validating({
    name: 'approval-create',
    description: 'A decision is made by a person with the right to, in his own name.',
    rules: [rule(approvals, ['CREATE'])],
    everywhere: true,
    validations: [
      {
        expression: isPerson,
        message: 'a ServiceAccount may not decide on a Workflow; a person does',
      },
      {
        expression: mayOnWorkflow('approve', 'object.spec.workflow'),
        message: 'you may not decide on this Workflow',
        messageExpression: `${user} + ' may not decide on the Workflow ' + object.spec.workflow + ': it takes the verb approve on automationworkflows (ClusterRole automation-guardrails-approver)'`,
      },
      {
        expression: `has(object.spec.approver) && object.spec.approver == ${user}`,
        message: `${unstampedApprover}, stamped by admission; leave it out`,
        messageExpression: `'${unstampedApprover}: write spec.approver: ' + ${user} + ', or leave it out where admission stamps it (kubectl guardrails approve does either)'`,
      },
      {
        expression: `object.spec.?approverGroups.orValue([]).all(g, g in ${groups})`,
        message:
          'approverGroups are groups of the authenticated user, stamped by admission; leave them out',
      },
      {
        expression:
          '!has(object.spec.expires) || !has(object.metadata.creationTimestamp) || timestamp(object.spec.expires) > timestamp(object.metadata.creationTimestamp)',
        message: 'spec.expires has passed already: write a time to come, or leave it out',
      },
    ],
  });
}

/**
 * At once, with a sentence. What counts is what the operator finds when it decides: a change that
 * comes after the approval makes another digest, and one that came before it carries its stamp.
 */
function refuseOwn(): AdmissionObject[] {
  const own = [
    { suffix: '', parameter: needingApproval },
    { suffix: '-identity', parameter: { kind: 'AutomationIdentity', matchLabels: {} } },
  ] as const satisfies readonly { suffix: string; parameter: SelectedParameter }[];
  const is = (name: string): string => `${name}.lowerAscii() == ${user}.lowerAscii()`;
  return own.flatMap(({ suffix, parameter }) =>
    validating({
      name: `approval-own${suffix}`,
      description: 'Nobody approves his own change.',
      rules: [rule(approvals, ['CREATE'])],
      parameter,
      conditions: {
        mine: `params.metadata.name == object.spec.workflow && object.spec.decision == 'Approve'`,
      },
      validations: [
        {
          expression: `!(${is(annotationOf('params', changedBy))})`,
          message: 'you made this change; somebody else has to approve it',
          messageExpression: `${user} + ' changed the ${parameter.kind} ' + params.metadata.name + ' last; somebody else has to approve that'`,
        },
        ...(parameter.kind === 'Workflow'
          ? [
              {
                expression: `!(${is(`params.spec.?change.?requestedBy.orValue('')`)})`,
                message: 'spec.change.requestedBy names you; somebody else has to approve it',
              },
            ]
          : []),
      ],
    }),
  );
}

/** What others could write on it would have the garbage collector delete a rejection. */
function keepApproval(): AdmissionObject[] {
  return validating({
    name: 'approval-bare',
    description: 'An Approval has no owners and no finalizers.',
    rules: [rule(approvals, ['CREATE', 'UPDATE'])],
    everywhere: true,
    validations: [
      {
        expression:
          'object.metadata.?finalizers.orValue([]).size() == 0 && object.metadata.?ownerReferences.orValue([]).size() == 0',
        message: 'an Approval has no finalizers and no owners; leave them out',
      },
    ],
  });
}

function keepDecision(): AdmissionObject[] {
  return validating({
    name: 'approval-delete',
    description: 'An approval is withdrawn by who may decide, a rejection by who made it.',
    rules: [rule(approvals, ['DELETE'])],
    everywhere: true,
    validations: [
      {
        expression: `${isGoing} || (!${isPerson} && ${mayOnWorkflow('lift-gate', 'oldObject.spec.workflow')}) || (${isPerson} && ${mayOnWorkflow('approve', 'oldObject.spec.workflow')} && (oldObject.spec.decision == 'Approve' || oldObject.spec.?approver.orValue('') == ${user}))`,
        message: 'a decision is not deleted',
        messageExpression: `'an approval is withdrawn by who may decide on the Workflow, and a rejection by who made it, ' + oldObject.spec.?approver.orValue('unknown') + ': change what is rejected instead'`,
      },
    ],
  });
}

/** Expression: whether a pod runs as the Workflow that is the parameter. */
export const runsAsIt = (of: string): string =>
  `${of}.spec.?serviceAccountName.orValue('') == params.metadata.name`;
const isGated = (of: string): string =>
  `${of}.spec.?schedulingGates.orValue([]).exists(g, g.name == '${approvalGate}')`;

function gatePods(): AdmissionObject[] {
  return mutating({
    name: 'approval-gate',
    description: 'A pod of a Workflow that needs approval waits for it.',
    rules: [rule(pods, ['CREATE'])],
    parameter: needingApproval,
    conditions: { mine: runsAsIt('object') },
    patchType: 'ApplyConfiguration',
    expression: `Object{spec: Object.spec{schedulingGates: [Object.spec.schedulingGates{name: '${approvalGate}'}]}}`,
  });
}

function keepGate(): AdmissionObject[] {
  const images = (of: string, containers: string): string =>
    `${of}.spec.?${containers}.orValue([]).map(c, c.?image.orValue(''))`;
  const isSameCode = [
    ...['containers', 'initContainers'].map(
      (field) => `${images('object', field)} == ${images('oldObject', field)}`,
    ),
    'object.spec.?ephemeralContainers.orValue([]).size() == oldObject.spec.?ephemeralContainers.orValue([]).size()',
  ].join(' && ');
  return validating({
    name: 'approval-gated',
    description:
      'A pod of a Workflow that needs approval starts by the operator alone, and with the code that it was made with.',
    rules: [rule(pods, ['CREATE', 'UPDATE']), rule(pods, ['UPDATE'], 'ephemeralcontainers')],
    parameter: needingApproval,
    conditions: { mine: runsAsIt('object') },
    validations: [
      {
        expression: `${isUpdate} || ${isGated('object')}`,
        message: `a pod of a Workflow that needs approval waits for it: add {name: ${approvalGate}} to schedulingGates in the pod template`,
      },
      {
        expression: `!${isUpdate} || !${isGated('oldObject')} || ${isGated('object')} || (!${isPerson} && ${mayOnWorkflow('lift-gate', 'params.metadata.name')})`,
        message: 'this pod waits for approval, and the operator alone starts it',
        messageExpression: `'this pod waits for the approval of the Workflow ' + params.metadata.name + ', and the operator alone starts it: kubectl guardrails approve ' + params.metadata.name + ' -n ' + params.metadata.namespace + ' --reason TEXT'`,
      },
      {
        expression: `!${isUpdate} || (${isSameCode})`,
        message:
          'a pod of a Workflow that needs approval runs what was approved: change the pod template instead, and have that approved',
      },
    ],
  });
}
