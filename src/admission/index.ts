import type { KubeObject } from '../api/objects.ts';
import { fencePolicies } from './fence.ts';
import { killSwitchPolicies } from './kill-switch.ts';

export { probePolicyName } from './fence.ts';

/** Every admission policy with its binding, in the order in which they are installed. */
export function admissionPolicies(): KubeObject[] {
  return [...killSwitchPolicies(), ...fencePolicies()];
}
