import { API_VERSION, GROUP, label, MANAGED_BY } from '../api/names.ts';
import type { KubeObject, LabelSelector } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';

/** A rule of `matchConstraints.resourceRules`. */
export interface ResourceRule {
  apiGroups: string[];
  apiVersions: string[];
  operations: Operation[];
  /** `pods`, `pods/ephemeralcontainers`, … */
  resources: string[];
}

export type Operation = 'CREATE' | 'UPDATE' | 'DELETE';

/** Which objects of ours a policy is evaluated with: once for each, in the request's namespace. */
export interface SelectedParameter {
  kind: 'KillSwitch' | 'ClusterKillSwitch' | 'Workflow' | 'AutomationIdentity';
  /**
   * Selected by label, so that the cost grows with what is engaged, not with what exists. An empty
   * one selects all: for what is seldom written.
   */
  matchLabels: Record<string, string>;
  /** Label that they carry, whatever its value is. */
  hasLabel?: string;
}

/** The one of a name, of a kind of the whole cluster. While there is none, the policy says nothing. */
export interface NamedParameter {
  kind: 'GuardrailPolicy';
  name: string;
}

/** What a policy is asked with, once for each. */
export type Parameter = SelectedParameter | NamedParameter;

export interface MatchCondition {
  name: string;
  expression: string;
}

interface PolicyBase {
  /** Without the prefix. */
  name: string;
  /** One sentence: what it does, for people. */
  description: string;
  rules: ResourceRule[];
  parameter?: Parameter;
  /** By name; all must hold, or the policy doesn't apply. */
  conditions?: Record<string, string>;
  /** By name; `variables.NAME` in validations, messages and mutations. */
  variables?: Record<string, string>;
  /** Binds everywhere instead of in guarded namespaces: for our own kinds, or with an objectSelector. */
  everywhere?: boolean;
  /** Only objects that match, before the write or after it. */
  objectSelector?: LabelSelector;
  /** Narrows the guarded namespaces to those that carry this label. */
  namespaceLabel?: string;
}

export interface Validation {
  /** Must hold. */
  expression: string;
  /** What is said where `messageExpression` isn't there or fails. */
  message: string;
  messageExpression?: string;
}

export interface ValidatingPolicy extends PolicyBase {
  validations: Validation[];
  /**
   * Of a resource that is written often: a condition passes over what all validations admit. The
   * API server converts the objects anew for conditions, for validations, for messages and for
   * audit annotations, and that is most of what a policy costs; so this takes a quarter. What is
   * refused, and how, stays the same.
   */
  isHot?: boolean;
  /** Default `Deny`. */
  action?: 'Deny' | 'Warn';
}

export interface MutatingPolicy extends PolicyBase {
  /** `ApplyConfiguration`: an `Object{…}`; `JSONPatch`: a list of `JSONPatch{…}`. */
  patchType: 'ApplyConfiguration' | 'JSONPatch';
  expression: string;
}

/** A policy or a binding, as the API server takes it. */
export interface AdmissionObject extends KubeObject {
  apiVersion: 'admissionregistration.k8s.io/v1';
  kind:
    | 'ValidatingAdmissionPolicy'
    | 'ValidatingAdmissionPolicyBinding'
    | 'MutatingAdmissionPolicy'
    | 'MutatingAdmissionPolicyBinding';
  spec: AdmissionSpec;
}

/** Of all four kinds; each has some of these fields. */
export interface AdmissionSpec {
  failurePolicy?: 'Fail' | 'Ignore';
  reinvocationPolicy?: 'Never' | 'IfNeeded';
  paramKind?: { apiVersion: string; kind: string };
  matchConstraints?: Matched & { resourceRules: (ResourceRule & { scope: '*' })[] };
  matchConditions?: MatchCondition[];
  variables?: { name: string; expression: string }[];
  validations?: (Validation & { reason: string })[];
  mutations?: { patchType: string; [patch: string]: string | { expression: string } }[];
  policyName?: string;
  validationActions?: ('Deny' | 'Warn')[];
  paramRef?: { selector?: LabelSelector; name?: string; parameterNotFoundAction: 'Allow' };
  matchResources?: Matched;
}

/**
 * With the defaults of the API server: what is written is what is stored. A GitOps tool that doesn't
 * know them of a kind so young as the mutating policies would see a difference for ever.
 */
interface Matched {
  matchPolicy: 'Equivalent';
  namespaceSelector: LabelSelector;
  objectSelector: LabelSelector;
}

/** Name of a policy and of its binding. */
export function policyName(name: string): string {
  return `${MANAGED_BY}-${name}`;
}

/** Whether a message of the API server says that this policy refused the request. */
export function isRefusedBy(message: string, policy: string): boolean {
  return message.includes(`ValidatingAdmissionPolicy '${policy}'`);
}

/**
 * Rule for a resource or one of its subresources. It names the version that the expressions are
 * written for: requests through another version are converted to it (`matchPolicy: Equivalent`,
 * the default), and the API server checks the types of the expressions against its schema.
 */
export function rule(
  { group, version, plural }: Resource,
  operations: Operation[],
  subresource?: string,
): ResourceRule {
  return {
    apiGroups: [group],
    apiVersions: [version],
    operations,
    resources: [subresource === undefined ? plural : `${plural}/${subresource}`],
  };
}

/** Namespaces in which the guardrails are in force: labelled ones, and never the system's own. */
const guardedNamespaces: LabelSelector = {
  matchExpressions: [
    { key: label.environment, operator: 'Exists' },
    { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['kube-system'] },
  ],
};

/** A policy that refuses or warns, and its binding. */
export function validating(policy: ValidatingPolicy): AdmissionObject[] {
  const action = policy.action ?? 'Deny';
  const { conditions, validations, isHot = false } = policy;
  const admits = validations.map(({ expression }) => `(${expression})`).join(' && ');
  return [
    admissionObject('ValidatingAdmissionPolicy', policy, {
      ...matching(
        { ...policy, ...(isHot && { conditions: { ...conditions, refused: `!(${admits})` } }) },
        // A warning must never stand in the way.
        action === 'Deny' ? 'Fail' : 'Ignore',
      ),
      validations: validations.map((validation) => ({ ...validation, reason: 'Forbidden' })),
    }),
    admissionObject('ValidatingAdmissionPolicyBinding', policy, {
      ...bound(policy),
      validationActions: [action],
    }),
  ];
}

/** A policy that changes the object in the request, and its binding. */
export function mutating(policy: MutatingPolicy): AdmissionObject[] {
  const field = policy.patchType === 'JSONPatch' ? 'jsonPatch' : 'applyConfiguration';
  return [
    admissionObject('MutatingAdmissionPolicy', policy, {
      ...matching(policy, 'Fail'),
      // Once more after others have changed the object: the order of policies is undefined.
      reinvocationPolicy: 'IfNeeded',
      mutations: [{ patchType: policy.patchType, [field]: { expression: policy.expression } }],
    }),
    admissionObject('MutatingAdmissionPolicyBinding', policy, bound(policy)),
  ];
}

function admissionObject(
  kind: AdmissionObject['kind'],
  { name, description }: PolicyBase,
  spec: AdmissionSpec,
): AdmissionObject {
  return {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind,
    metadata: {
      name: policyName(name),
      labels: { 'app.kubernetes.io/name': MANAGED_BY },
      annotations: { [`${GROUP}/description`]: description },
    },
    spec,
  };
}

function matching(policy: PolicyBase, failurePolicy: 'Fail' | 'Ignore'): AdmissionSpec {
  const { parameter, rules, objectSelector = {} } = policy;
  const { conditions = {}, variables = {} } = policy;
  return {
    failurePolicy,
    ...(parameter !== undefined && {
      paramKind: { apiVersion: API_VERSION, kind: parameter.kind },
    }),
    matchConstraints: {
      resourceRules: rules.map((one) => ({ ...one, scope: '*' })),
      matchPolicy: 'Equivalent',
      // Here as well as in the binding: a policy whose parameters the API server can't find (yet)
      // refuses whatever this matches, and looks at no binding before.
      namespaceSelector: namespacesOf(policy) ?? {},
      objectSelector,
    },
    ...(Object.keys(conditions).length > 0 && { matchConditions: named(conditions) }),
    ...(Object.keys(variables).length > 0 && { variables: named(variables) }),
  };
}

function bound(policy: PolicyBase): AdmissionSpec {
  const { name, parameter } = policy;
  const namespaceSelector = namespacesOf(policy);
  return {
    policyName: policyName(name),
    ...(parameter !== undefined && {
      // Nothing is engaged in most namespaces: that allows. Parameters that the API server hasn't
      // read yet are another case for it, and refuse.
      paramRef: {
        ...('name' in parameter ? { name: parameter.name } : { selector: selectorOf(parameter) }),
        parameterNotFoundAction: 'Allow',
      },
    }),
    ...(namespaceSelector !== undefined && {
      matchResources: { matchPolicy: 'Equivalent', namespaceSelector, objectSelector: {} },
    }),
  };
}

function selectorOf({ matchLabels, hasLabel }: SelectedParameter): LabelSelector {
  if (hasLabel !== undefined) return { matchExpressions: [{ key: hasLabel, operator: 'Exists' }] };
  return Object.keys(matchLabels).length === 0 ? {} : { matchLabels };
}

function namespacesOf({
  everywhere = false,
  namespaceLabel,
}: PolicyBase): LabelSelector | undefined {
  if (everywhere) return undefined;
  if (namespaceLabel === undefined) return guardedNamespaces;
  const matchExpressions = [
    ...(guardedNamespaces.matchExpressions ?? []),
    { key: namespaceLabel, operator: 'Exists' },
  ];
  return { matchExpressions };
}

function named(expressions: Record<string, string>): MatchCondition[] {
  return Object.entries(expressions).map(([name, expression]) => ({ name, expression }));
}
