import { wholeNamespaceName } from '../api/kill-switch.ts';
import { annotation, label, PROBE_NAMESPACE } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { unstampedApprover } from './approval.ts';
import { reviewerUnstamped } from './access-review.ts';
import { unstampedHoldAcknowledger } from './holds.ts';
import { unstampedAcknowledger } from './limits.ts';
import {
  annotationOf,
  changesAnnotation,
  hasAnnotation,
  hasLabel,
  isDryRun,
  isPerson,
  isProbe,
  isReleasing,
  isUpdate,
  labelOf,
  mayOnThis,
  removeAnnotation,
  user,
} from './cel.ts';
import { selectedByCluster } from './fence.ts';
import {
  isRefusedBy,
  mutating,
  policyName,
  rule,
  validating,
  type AdmissionObject,
  type Operation,
  type Validation,
} from './policies.ts';

/** The life of a KillSwitch: who may engage, who may release, and that nothing else ends a kill. */
export function killSwitchPolicies(): AdmissionObject[] {
  return [
    ...stampEngager(),
    ...validateCreation(),
    ...stampReleaser(),
    ...unstampReleaser(),
    ...validateRelease(),
    ...blockReleaseByAnnotation(),
    ...refuseOwnRelease(),
    ...protectFromDeletion(),
    ...protectGuardedNamespace(),
    ...protectSelectedNamespace(),
    ...protectStatus(),
  ];
}

/** The policy that refuses a KillSwitch without the stamp of who engages. */
export const killSwitchCreationPolicyName = policyName('kill-switch-create');

/** The policy that refuses the wish for release without the stamp of who asks. */
export const releaseStampPolicyName = policyName('kill-switch-release');

const unstamped = {
  engagedBy: 'engagedBy is the authenticated user',
  releasedBy: 'released-by is stamped by admission',
  approver: unstampedApprover,
};

/**
 * Whether a message of the API server says that this policy refused a request for want of the
 * stamp, which admission gives where it rewrites.
 */
export function isUnstamped(message: string, policy: string): boolean {
  const sentences = [
    ...Object.values(unstamped),
    reviewerUnstamped,
    unstampedHoldAcknowledger,
    unstampedAcknowledger,
  ];
  const refusals = sentences.map((text) => `denied request: ${text}`);
  return isRefusedBy(message, policy) && refusals.some((text) => message.includes(text));
}

const asksRelease = `(${hasAnnotation('object', annotation.release)} && ${changesAnnotation(annotation.release)})`;
const breaksGlass = `(${hasAnnotation('object', annotation.breakGlass)} && ${changesAnnotation(annotation.breakGlass)})`;
const withdrawsRelease = `(!${hasAnnotation('object', annotation.release)} && ${hasAnnotation('oldObject', annotation.release)})`;
/** Who asked for the release of its ClusterKillSwitch is passed on by the operator. */
const passesOn = `(${hasLabel('object', label.clusterKillSwitch)} && ${annotationOf('object', annotation.releasedBy)} != '' && !${isPerson} && ${mayOnThis('lift')})`;
/** Passed on by the operator: a person never latches, though some hold every verb. */
const isLatched = `has(object.spec.engagedBy) && object.spec.engagedBy != '' && !${isPerson} && ${mayOnThis('latch')}`;

/**
 * Bytes of annotations that others may write. The API server takes 256 KiB of them in all, and one
 * more would fail: the probe, the wish for release, and what the release puts back.
 */
const maxAnnotations = 32_768;
const maxLabels = 64;
const ofClusterLabel = `the label ${label.clusterKillSwitch} is written by the operator alone: by it, a KillSwitch ends with its ClusterKillSwitch; leave it alone`;
const noRoom = `a kill switch has at most ${maxAnnotations / 1024} KiB of annotations and ${maxLabels} labels: more would leave no room for what its release needs; leave some out`;

/** Expressions: characters of annotations that aren't the operator's, and the number of labels. */
function weight(of: string): { annotations: string; labels: string } {
  const annotations = `${of}.metadata.?annotations.orValue({})`;
  return {
    annotations: `${annotations}.map(k, k == '${annotation.restoreServiceAccount}' ? 0 : k.size() + ${of}.metadata.annotations[k].size()).sum()`,
    labels: `${of}.metadata.?labels.orValue({}).size()`,
  };
}

/** Both kinds live by the same rules. */
function killSwitches(...operations: Operation[]): ReturnType<typeof rule>[] {
  return [resources.killSwitches, resources.clusterKillSwitches].map((resource) =>
    rule(resource, operations),
  );
}

/** Expression: what sets the roles for a ClusterKillSwitch apart from those for a KillSwitch. */
const clusterPart = `(request.resource.resource == '${resources.clusterKillSwitches.plural}' ? 'cluster-' : '')`;

/** Expression: how a command names the object. `of` is `object` or `oldObject`. */
function named(of: string): { kubectl: string; guardrails: string } {
  const { name, namespace } = {
    name: `${of}.metadata.?name.orValue('')`,
    namespace: `${of}.metadata.?namespace`,
  };
  return {
    kubectl: `(${namespace}.hasValue() ? 'ksw ' + ${name} + ' -n ' + ${namespace}.orValue('') : 'cksw ' + ${name})`,
    guardrails: `(${namespace}.hasValue() ? ${name} + ' -n ' + ${namespace}.orValue('') : '--cluster ' + ${name})`,
  };
}

function stampEngager(): AdmissionObject[] {
  return mutating({
    name: 'kill-switch-stamp',
    description: 'Stamps a new KillSwitch with the authenticated user who engages it.',
    rules: killSwitches('CREATE'),
    everywhere: true,
    // The operator passes on who wrote the annotation that it latches.
    conditions: { 'not-latched': `!(${isLatched})` },
    patchType: 'ApplyConfiguration',
    expression: `Object{spec: Object.spec{engagedBy: ${user}}}`,
  });
}

function validateCreation(): AdmissionObject[] {
  const marks = [
    annotation.release,
    annotation.releasedBy,
    annotation.breakGlass,
    annotation.restoreServiceAccount,
    annotation.probe,
  ].map((name) => `!${hasAnnotation('object', name)}`);
  const { annotations, labels } = weight('object');
  return validating({
    name: 'kill-switch-create',
    description: 'A new KillSwitch is engaged, by the user who asks, and not half-way released.',
    rules: killSwitches('CREATE'),
    everywhere: true,
    validations: [
      {
        expression: `(has(object.spec.engagedBy) && object.spec.engagedBy == ${user}) || (${isLatched})`,
        message: `${unstamped.engagedBy}, stamped by admission; leave it out`,
        messageExpression: `'${unstamped.engagedBy}: write spec.engagedBy: ' + ${user} + ', or leave it out where admission stamps it (kubectl guardrails kill does either)'`,
      },
      {
        expression: [`!${hasLabel('object', label.releasing)}`, ...marks].join(' && '),
        message: 'a new kill switch is engaged: create it without the marks of a release',
      },
      {
        expression: `!${hasLabel('object', label.clusterKillSwitch)} || (${isLatched})`,
        message: ofClusterLabel,
      },
      {
        // A finalizer would keep a released one in the way of the next kill; an owner would have
        // the garbage collector try to delete it.
        expression:
          'object.metadata.?finalizers.orValue([]).size() == 0 && object.metadata.?ownerReferences.orValue([]).size() == 0',
        message: 'a kill switch has no finalizers and no owners; leave them out',
      },
      {
        expression: `${annotations} <= ${maxAnnotations} && ${labels} <= ${maxLabels}`,
        message: noRoom,
      },
      {
        expression: `request.?namespace.orValue('') != '${PROBE_NAMESPACE}' || ${mayOnThis('latch')}`,
        message: `the standing probe has the namespace ${PROBE_NAMESPACE} for itself: nothing runs there, and a kill switch would drown its answers`,
      },
    ],
  });
}

function stampReleaser(): AdmissionObject[] {
  return mutating({
    name: 'kill-switch-release-stamp',
    description: 'Stamps a KillSwitch with the authenticated user who asks for its release.',
    rules: killSwitches('UPDATE'),
    everywhere: true,
    conditions: { asks: asksRelease, 'not-passed-on': `!${passesOn}` },
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{annotations: {'${annotation.releasedBy}': ${user}}}}`,
  });
}

function unstampReleaser(): AdmissionObject[] {
  return mutating({
    name: 'kill-switch-release-unstamp',
    description: 'Removes the stamp of the releaser together with the wish for release.',
    rules: killSwitches('UPDATE'),
    everywhere: true,
    conditions: {
      withdraws: withdrawsRelease,
      stamped: hasAnnotation('object', annotation.releasedBy),
    },
    patchType: 'JSONPatch',
    expression: `[${removeAnnotation(annotation.releasedBy)}]`,
  });
}

function validateRelease(): AdmissionObject[] {
  const { release, releasedBy, breakGlass } = annotation;
  const inThisKillSwitch = `'kubectl annotate ' + ${named('object').kubectl}`;
  const byHand = `variables.isAsked ? ${inThisKillSwitch} + ' ${release}=TEXT ${releasedBy}=' + ${user} : ${inThisKillSwitch} + ' ${release}- ${releasedBy}-'`;
  const asks: Validation[] = [
    {
      expression: `!variables.asks || ${annotationOf('object', release)}.trim() != ''`,
      message: `a release needs a reason: set ${release} to why it is safe to start again`,
    },
    {
      expression: `!variables.asks || variables.breaks || variables.passesOn || ${mayOnThis('release')}`,
      message: 'you may not release this kill switch',
      messageExpression: `${user} + ' may not release this kill switch: it takes the verb release on ' + request.resource.resource + ' (ClusterRole automation-guardrails-' + ${clusterPart} + 'releaser)'`,
    },
    {
      expression: `!variables.asks || variables.breaks || !has(object.spec.engagedBy) || ${user} != object.spec.engagedBy`,
      message: 'you engaged this kill switch; somebody else has to release it',
      messageExpression: `${user} + ' engaged this kill switch; somebody else has to release it'`,
    },
    {
      expression: `!(variables.asks || variables.breaks) || ${isPerson} || variables.passesOn`,
      message: 'a ServiceAccount may not release a kill switch; a person does',
    },
    {
      expression: `!variables.breaks || (${annotationOf('object', breakGlass)}.trim() != '' && variables.isAsked)`,
      message: `breaking the glass needs a reason, and comes with the release: set ${breakGlass} and ${release} in one request (kubectl guardrails release NAME --break-glass --reason TEXT)`,
    },
    {
      expression: `!variables.breaks || ${mayOnThis('break-glass')}`,
      message: 'you may not break the glass',
      messageExpression: `${user} + ' may not break the glass: it takes the verb break-glass on ' + request.resource.resource + ' (ClusterRole automation-guardrails-' + ${clusterPart} + 'break-glass)'`,
    },
    {
      expression: `variables.breaks || !${changesAnnotation(breakGlass)} || variables.withdraws`,
      message: 'break-glass stays as long as the release that it belongs to',
    },
    {
      expression: `!variables.withdraws || !${hasLabel('oldObject', label.releasing)} || ${mayOnThis('lift')}`,
      message:
        'too late to withdraw the release: the fence is lifted; engage again by the annotation',
    },
    {
      expression: `!variables.withdraws || ${annotationOf('oldObject', releasedBy)} == ${user} || ${mayOnThis('lift')}`,
      message: 'only who asked for the release may withdraw it',
      messageExpression: `'only ' + ${annotationOf('oldObject', releasedBy)} + ', who asked for the release, may withdraw it'`,
    },
    {
      expression: `variables.asks ? (${annotationOf('object', releasedBy)} == ${user} || variables.passesOn) : variables.withdraws ? !${hasAnnotation('object', releasedBy)} : !${changesAnnotation(releasedBy)}`,
      message: `${unstamped.releasedBy}; leave it alone`,
      messageExpression: `'${unstamped.releasedBy} or, where admission writes nothing, set by who asks in the same request: ' + (${byHand})`,
    },
  ];
  const lifts: Validation[] = [
    {
      expression: `!variables.lifts || (${hasAnnotation('object', breakGlass)} && ${mayOnThis('break-glass')}) || ${mayOnThis('lift')}`,
      message: 'the label releasing is written by the operator, or by who breaks the glass, alone',
    },
    {
      expression: `!variables.lifts || ${labelOf('object', label.releasing, 'true')} == 'true'`,
      message: "the label releasing has no other value than 'true'",
    },
    {
      expression: `!variables.lifts || !${hasLabel('object', label.releasing)} || ${hasAnnotation('object', release)}`,
      message: `nobody asked for the release: the annotation ${release} comes before the label releasing`,
    },
  ];
  return validating({
    name: 'kill-switch-release',
    description:
      'A KillSwitch is released by a second person with the right to, and with a reason; the operator alone lifts its fence.',
    rules: killSwitches('UPDATE'),
    everywhere: true,
    variables: {
      asks: asksRelease,
      isAsked: hasAnnotation('object', annotation.release),
      breaks: breaksGlass,
      withdraws: withdrawsRelease,
      passesOn,
      lifts: `object.metadata.?labels[?'${label.releasing}'] != oldObject.metadata.?labels[?'${label.releasing}']`,
    },
    validations: [
      ...asks,
      ...lifts,
      {
        expression: `object.metadata.?finalizers.orValue([]).all(f, f in oldObject.metadata.?finalizers.orValue([])) || ${mayOnThis('lift')}`,
        message: 'a kill switch has no finalizers: one would keep it in the way of the next kill',
      },
      {
        expression:
          'object.metadata.?ownerReferences.orValue([]) == oldObject.metadata.?ownerReferences.orValue([])',
        message:
          'a kill switch has no owners: the garbage collector would try to delete it with them',
      },
      {
        expression: `object.metadata.?labels[?'${label.clusterKillSwitch}'] == oldObject.metadata.?labels[?'${label.clusterKillSwitch}'] || ${mayOnThis('lift')}`,
        message: ofClusterLabel,
      },
      {
        expression: `!${changesAnnotation(annotation.restoreServiceAccount)} || ${mayOnThis('lift')}`,
        message: `${annotation.restoreServiceAccount} is written by the operator alone: what it holds comes back on ServiceAccounts`,
      },
      {
        // What already stands there must not lock the object.
        expression: (['annotations', 'labels'] as const)
          .map((field) => {
            const [after, before] = [weight('object')[field], weight('oldObject')[field]];
            return `(${after} <= ${{ annotations: maxAnnotations, labels: maxLabels }[field]} || ${after} <= ${before})`;
          })
          .join(' && '),
        message: noRoom,
      },
      {
        // Stored, it would make the fence refuse every later write.
        expression: `!${isProbe} || ${isDryRun}`,
        message: 'the annotation probe is for dry runs only',
      },
    ],
  });
}

/** What carries the annotation that engages, as a parameter. */
const annotated = [
  { suffix: '-by-workflow', kind: 'Workflow', shortName: 'awf' },
  { suffix: '-by-identity', kind: 'AutomationIdentity', shortName: 'aid' },
] as const;

/** No release while what engaged still carries the annotation that engages. */
function blockReleaseByAnnotation(): AdmissionObject[] {
  const refuse = (carrier: string, of: string, command: string): Validation => ({
    expression: 'false',
    message: `the ${carrier} still carries the annotation ${annotation.killSwitch}; remove it first, in Git too if it is there`,
    messageExpression: `'the ${carrier} still carries the annotation ${annotation.killSwitch}, set by ' + ${annotationOf(of, annotation.killSwitchEngagedBy)} + '; remove it first, in Git too if it is there: kubectl annotate ' + ${command} + ' ${annotation.killSwitch}-'`,
  });
  const description = 'No release while what engaged carries the annotation that engages.';
  const byObject = annotated.map(({ suffix, kind, shortName }) =>
    validating({
      name: `kill-switch-release-blocked${suffix}`,
      description,
      rules: [rule(resources.killSwitches, ['UPDATE'])],
      parameter: { kind, matchLabels: { [label.engaged]: 'true' } },
      conditions: { asks: asksRelease, mine: 'params.metadata.name == object.metadata.name' },
      validations: [
        refuse(
          kind,
          'params',
          `'${shortName} ' + params.metadata.name + ' -n ' + params.metadata.namespace`,
        ),
      ],
    }),
  );
  const byNamespace = validating({
    name: 'kill-switch-release-blocked-by-namespace',
    description,
    rules: [rule(resources.killSwitches, ['UPDATE'])],
    namespaceLabel: label.engaged,
    conditions: {
      asks: asksRelease,
      mine: `object.metadata.name == '${wholeNamespaceName}'`,
    },
    validations: [refuse('Namespace', 'namespaceObject', `'namespace ' + request.namespace`)],
  });
  const isMember = `${labelOf('object', label.clusterKillSwitch)} == params.metadata.name`;
  const byCluster = validating({
    name: 'kill-switch-release-blocked-by-cluster',
    description:
      'No release of a namespace or a Workflow alone while a ClusterKillSwitch stops it.',
    rules: [rule(resources.killSwitches, ['UPDATE'])],
    parameter: { kind: 'ClusterKillSwitch', matchLabels: {} },
    conditions: {
      asks: asksRelease,
      engaged: `!${isReleasing}`,
      mine: `object.metadata.name == '${wholeNamespaceName}' || ${isMember}`,
    },
    validations: [
      {
        expression: `!(${isMember}) && !(object.metadata.name == '${wholeNamespaceName}' && ${selectedByCluster('namespaceObject')})`,
        message: 'a ClusterKillSwitch stops this; release that first',
        messageExpression: `'the ClusterKillSwitch ' + params.metadata.name + ' stops this ' + (object.metadata.name == '${wholeNamespaceName}' ? 'namespace' : 'Workflow') + '; release that first: kubectl guardrails release --cluster ' + params.metadata.name + ' --reason TEXT'`,
      },
    ],
  });
  return [...byObject.flat(), ...byNamespace, ...byCluster];
}

/** Of what needs approval: whose change was stopped doesn't say that it may go on. */
function refuseOwnRelease(): AdmissionObject[] {
  const changer = annotationOf('params', annotation.changedBy);
  return validating({
    name: 'kill-switch-release-own',
    description: 'Who asked for what runs does not release the kill of it.',
    rules: [rule(resources.killSwitches, ['UPDATE'])],
    parameter: { kind: 'Workflow', matchLabels: {}, hasLabel: label.approval },
    conditions: {
      asks: asksRelease,
      person: isPerson,
      mine: 'params.metadata.name == object.metadata.name',
    },
    validations: [
      {
        expression: `${changer}.lowerAscii() != ${user}.lowerAscii() || ${hasAnnotation('object', annotation.breakGlass)}`,
        message: 'you changed this Workflow last; somebody else has to release the kill of it',
        messageExpression: `${user} + ' changed the Workflow ' + params.metadata.name + ' last; somebody else has to release the kill of it, or break the glass'`,
      },
    ],
  });
}

/**
 * What release puts back is found by the KillSwitch, and in part held by it: whoever deleted one
 * half-way through its release would leave the rest stopped for good.
 */
function protectFromDeletion(): AdmissionObject[] {
  const isReleased = hasLabel('oldObject', label.releasing);
  const isGoing = '(namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp))';
  return validating({
    name: 'kill-switch-delete',
    description: 'A KillSwitch is deleted by its release, or together with its namespace.',
    rules: killSwitches('DELETE'),
    everywhere: true,
    validations: [
      {
        expression: `${isReleased} || ${isGoing}`,
        message: 'an engaged kill switch is not deleted but released',
        // A request to delete a collection has no name of its own.
        messageExpression: `'an engaged kill switch is not deleted but released: kubectl guardrails release ' + ${named('oldObject').guardrails} + ' --reason TEXT'`,
      },
      {
        expression: `!${isReleased} || ${isGoing} || ${mayOnThis('lift', 'oldObject.metadata.name')}`,
        message:
          'this kill switch is being released: the operator deletes it once everything is back; leave it alone',
      },
    ],
  });
}

/**
 * The policies are bound to guarded namespaces by their label, so that label is part of the fence;
 * and a namespace that is deleted and made anew has no KillSwitch. Matched by the label too, on the
 * old object or the new one: other namespaces are never touched. The request of a Namespace has its
 * own name as namespace, so the parameters are those inside it.
 */
function protectGuardedNamespace(): AdmissionObject[] {
  const engaged = [
    // A release puts back by the policies that the label binds.
    {
      suffix: '',
      kind: 'KillSwitch',
      matchLabels: {},
      isEngaged: `${isUpdate} || !${isReleasing}`,
    },
    ...annotated.map(({ suffix, kind }) => ({
      suffix,
      kind,
      matchLabels: { [label.engaged]: 'true' },
      isEngaged: 'true',
    })),
  ] as const;
  const isGuarded = (of: string): string => hasLabel(of, label.environment);
  return engaged.flatMap(({ suffix, kind, matchLabels, isEngaged }) =>
    validating({
      name: `kill-switch-namespace${suffix}`,
      description: 'A namespace in which a kill switch is engaged stays, and stays guarded.',
      rules: [rule(resources.namespaces, ['UPDATE', 'DELETE'])],
      parameter: { kind, matchLabels },
      everywhere: true,
      objectSelector: { matchExpressions: [{ key: label.environment, operator: 'Exists' }] },
      conditions: {
        engaged: isEngaged,
        // One that is going already isn't kept half-way.
        stands: '!has(oldObject.metadata.deletionTimestamp)',
        // A kill switch is engaged there for good, and it goes when everything is uninstalled.
        'not-probe': `oldObject.metadata.name != '${PROBE_NAMESPACE}'`,
        ends: `request.operation == 'DELETE' || (${isGuarded('oldObject')} && !${isGuarded('object')})`,
      },
      validations: [
        {
          expression: 'false',
          message:
            'a kill switch is engaged in this namespace; the namespace and its label environment stay',
          messageExpression: `'the kill switch of ' + params.metadata.name + ' is engaged in this namespace: neither the namespace nor its label ${label.environment} goes before that is released'`,
        },
      ],
    }),
  );
}

/** By its labels a namespace is stopped, also while no operator runs. */
function protectSelectedNamespace(): AdmissionObject[] {
  return validating({
    name: 'kill-switch-namespace-by-cluster',
    description: 'A namespace that a ClusterKillSwitch stops stays, and keeps the labels by which.',
    rules: [
      rule(resources.namespaces, ['UPDATE', 'DELETE']),
      // The API server takes labels from requests of these as well.
      ...['status', 'finalize'].map((name) => rule(resources.namespaces, ['UPDATE'], name)),
    ],
    parameter: { kind: 'ClusterKillSwitch', matchLabels: {} },
    everywhere: true,
    objectSelector: { matchExpressions: [{ key: label.environment, operator: 'Exists' }] },
    conditions: {
      engaged: `!${isReleasing}`,
      stands: '!has(oldObject.metadata.deletionTimestamp)',
      mine: selectedByCluster('oldObject'),
      ends: `request.operation == 'DELETE' || !${hasLabel('object', label.environment)} || !(${selectedByCluster('object')})`,
    },
    validations: [
      {
        expression: 'false',
        message: 'a ClusterKillSwitch stops this namespace; it stays, and keeps its labels',
        messageExpression: `'the ClusterKillSwitch ' + params.metadata.name + ' stops this namespace: neither the namespace nor the labels by which it is selected go before that is released'`,
      },
    ],
  });
}

/**
 * People read from a status how far a kill is, and the operator which rungs it has proven, which
 * Secrets it made, and which revision was approved.
 */
function protectStatus(): AdmissionObject[] {
  const {
    killSwitches: ofKill,
    clusterKillSwitches: ofCluster,
    automationIdentities: ofIdentity,
    workflows,
  } = resources;
  return validating({
    name: 'kill-switch-status',
    description:
      'How far a kill is, what an identity has, and what of a Workflow is approved, is said by the operator alone.',
    rules: [ofKill, ofCluster, ofIdentity, workflows].map((resource) =>
      rule(resource, ['UPDATE'], 'status'),
    ),
    everywhere: true,
    validations: [
      {
        expression: mayOnThis('report'),
        message: 'the status is written by the operator alone; leave it alone',
      },
    ],
  });
}
