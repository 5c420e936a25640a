import { engagingAnnotationPolicies } from './engaging-annotation.ts';
import { fencePolicies } from './fence.ts';
import { freezePolicies } from './freeze.ts';
import { killSwitchPolicies } from './kill-switch.ts';
import type { AdmissionObject } from './policies.ts';

export { annotationProbePolicyName, isDeniedBy, probePolicyName } from './fence.ts';
export type { AdmissionObject } from './policies.ts';

/** Every admission policy with its binding, always in the same order. */
export function admissionPolicies(): AdmissionObject[] {
  return [
    ...killSwitchPolicies(),
    ...engagingAnnotationPolicies(),
    ...fencePolicies(),
    ...freezePolicies(),
  ];
}
