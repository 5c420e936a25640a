import { approvalPolicies } from './approval.ts';
import { approvalRunPolicies } from './approval-runs.ts';
import { accessReviewPolicies } from './access-review.ts';
import { changedByPolicies } from './changed-by.ts';
import { childrenPolicies } from './children.ts';
import { credentialPolicies } from './credentials.ts';
import { egressPolicies } from './egress.ts';
import { engagingAnnotationPolicies } from './engaging-annotation.ts';
import { evidencePolicies } from './evidence.ts';
import { fencePolicies } from './fence.ts';
import { foreignCredentialPolicies } from './foreign-credentials.ts';
import { freezePolicies } from './freeze.ts';
import { holdPolicies } from './holds.ts';
import { guardrailPolicyPolicies } from './guardrail-policy.ts';
import { killSwitchPolicies } from './kill-switch.ts';
import { limitPolicies } from './limits.ts';
import { operatorReachPolicies } from './operator-reach.ts';
import { podPolicies } from './pods.ts';
import type { AdmissionObject } from './policies.ts';
import { revisionPolicies } from './revisions.ts';
import { roleBindingPolicies } from './role-bindings.ts';
import { secretInSpecPolicies } from './secrets-in-specs.ts';
import { resources } from '../api/resources.ts';

export { approvalByPolicy, approvalCreationPolicyName, approvalRequired } from './approval.ts';
export { accessReviewCreationPolicyName } from './access-review.ts';
export { acknowledgementPolicyName } from './limits.ts';
export { holdAcknowledgementPolicyName } from './holds.ts';
export {
  annotationProbePolicyName,
  clusterProbePolicyName,
  isDeniedBy,
  probePolicyName,
} from './fence.ts';
export {
  isUnstamped,
  killSwitchCreationPolicyName,
  releaseStampPolicyName,
} from './kill-switch.ts';
export { isRefusedBy, policyName } from './policies.ts';
export type { AdmissionObject } from './policies.ts';
export {
  canary,
  canaryServiceAccounts,
  policyProbes,
  type Denial,
  type Mutation,
  type PolicyProbe,
  type ProbeRequest,
} from './probes.ts';

/** Every admission policy with its binding, always in the same order. */
export function admissionPolicies(): AdmissionObject[] {
  return [
    ...killSwitchPolicies(),
    ...engagingAnnotationPolicies(),
    ...fencePolicies(),
    ...freezePolicies(),
    ...credentialPolicies(),
    ...podPolicies(),
    ...childrenPolicies(),
    ...operatorReachPolicies(),
    ...roleBindingPolicies(),
    ...changedByPolicies([
      resources.workflows,
      resources.automationIdentities,
      resources.guardrailPolicies,
    ]),
    ...egressPolicies(),
    ...approvalPolicies(),
    ...approvalRunPolicies(),
    ...guardrailPolicyPolicies(),
    ...revisionPolicies(),
    ...accessReviewPolicies(),
    ...evidencePolicies(),
    ...limitPolicies(),
    ...holdPolicies(),
    ...secretInSpecPolicies(),
    ...foreignCredentialPolicies(),
  ];
}

/**
 * The same in two parts, which are installed separately: `mutating` needs a Kubernetes that serves
 * MutatingAdmissionPolicy v1 (1.36 and later); `validating` refuses all by itself what the other
 * part would have rewritten.
 */
export function admissionParts(): { validating: AdmissionObject[]; mutating: AdmissionObject[] } {
  const all = admissionPolicies();
  const isMutating = ({ kind }: AdmissionObject): boolean => kind.startsWith('Mutating');
  return {
    validating: all.filter((object) => !isMutating(object)),
    mutating: all.filter(isMutating),
  };
}
