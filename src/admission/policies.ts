import type { KubeObject } from '../api/objects.ts';
import { API_VERSION, GROUP, label } from '../api/names.ts';

/** A rule of `matchConstraints.resourceRules`. */
export interface ResourceRule {
  apiGroups: string[];
  apiVersions: string[];
  operations: ('CREATE' | 'UPDATE' | 'DELETE')[];
  resources: string[];
}

/** Which objects of ours a policy is evaluated with: once for each, in the request's namespace. */
export interface Parameter {
  kind: 'KillSwitch' | 'Workflow';
  /** Selected by label, so that the cost grows with what is engaged, not with what exists. */
  matchLabels: Record<string, string>;
}

interface PolicyBase {
  /** Without the prefix. */
  name: string;
  description: string;
  rules: ResourceRule[];
  parameter?: Parameter;
  /** All must hold, or the policy doesn't apply. */
  conditions?: Record<string, string>;
  variables?: Record<string, string>;
  /** Binds everywhere instead of in guarded namespaces: for policies about our own kinds only. */
  everywhere?: boolean;
}

export interface Validation {
  /** Must hold. */
  expression: string;
  message?: string;
  messageExpression?: string;
}

export interface ValidatingPolicy extends PolicyBase {
  validations: Validation[];
  /** Default `Deny`. */
  action?: 'Deny' | 'Warn';
}

export interface MutatingPolicy extends PolicyBase {
  /** `ApplyConfiguration`: an `Object{…}`; `JSONPatch`: a list of `JSONPatch{…}`. */
  patchType: 'ApplyConfiguration' | 'JSONPatch';
  expression: string;
  /** Default `IfNeeded`. */
  reinvocation?: 'Never' | 'IfNeeded';
}

const prefix = 'automation-guardrails';

export function policyName(name: string): string {
  return `${prefix}-${name}`;
}

/** Namespaces in which the guardrails are in force: labelled ones, and never the system's own. */
const guardedNamespaces = {
  matchExpressions: [
    { key: label.environment, operator: 'Exists' },
    { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['kube-system'] },
  ],
};

/** A policy and its binding, as the API server takes them. */
export function validating(policy: ValidatingPolicy): KubeObject[] {
  const action = policy.action ?? 'Deny';
  return [
    object('ValidatingAdmissionPolicy', policy, {
      // A warning must never stand in the way.
      ...spec(policy, action === 'Deny' ? 'Fail' : 'Ignore'),
      validations: policy.validations.map((validation) => ({ reason: 'Forbidden', ...validation })),
    }),
    object('ValidatingAdmissionPolicyBinding', policy, {
      ...bindingSpec(policy),
      validationActions: [action],
    }),
  ];
}

export function mutating(policy: MutatingPolicy): KubeObject[] {
  const field = policy.patchType === 'JSONPatch' ? 'jsonPatch' : 'applyConfiguration';
  return [
    object('MutatingAdmissionPolicy', policy, {
      ...spec(policy, 'Fail'),
      reinvocationPolicy: policy.reinvocation ?? 'IfNeeded',
      mutations: [{ patchType: policy.patchType, [field]: { expression: policy.expression } }],
    }),
    object('MutatingAdmissionPolicyBinding', policy, bindingSpec(policy)),
  ];
}

function object(kind: string, { name, description }: PolicyBase, content: object): KubeObject {
  return {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind,
    metadata: {
      name: policyName(name),
      labels: { 'app.kubernetes.io/name': prefix },
      annotations: { [`${GROUP}/description`]: description },
    },
    spec: content,
  } as KubeObject;
}

function spec(policy: PolicyBase, failurePolicy: 'Fail' | 'Ignore'): object {
  const { parameter, rules, conditions = {}, variables = {} } = policy;
  return {
    failurePolicy,
    ...(parameter !== undefined && {
      paramKind: { apiVersion: API_VERSION, kind: parameter.kind },
    }),
    matchConstraints: { resourceRules: rules },
    ...(Object.keys(conditions).length > 0 && { matchConditions: named(conditions) }),
    ...(Object.keys(variables).length > 0 && { variables: named(variables) }),
  };
}

function bindingSpec({ name, parameter, everywhere = false }: PolicyBase): object {
  return {
    policyName: policyName(name),
    ...(parameter !== undefined && {
      // Nothing is engaged in most namespaces: that allows. An informer that isn't synced is
      // another path in the API server, and refuses.
      paramRef: {
        selector: { matchLabels: parameter.matchLabels },
        parameterNotFoundAction: 'Allow',
      },
    }),
    ...(!everywhere && { matchResources: { namespaceSelector: guardedNamespaces } }),
  };
}

function named(expressions: Record<string, string>): { name: string; expression: string }[] {
  return Object.entries(expressions).map(([name, expression]) => ({ name, expression }));
}
