import { maxFenced, type ClusterKillSwitchStatus } from '../../api/cluster-kill-switch.ts';
import { wholeNamespaceName, type KillSwitch } from '../../api/kill-switch.ts';
import type { Selected } from './cluster.ts';

/** Workflows that the fence of a ClusterKillSwitch stops by its status: their names, by namespace. */
export type FencedWorkflows = NonNullable<ClusterKillSwitchStatus['fenced']>;

/**
 * What is to stand in the status of a ClusterKillSwitch that stops Workflows: those that it selects,
 * and those whose KillSwitch ends with it, though they were given to somebody else meanwhile. Beyond
 * a bound, their KillSwitches alone are the fence.
 *
 * @param members KillSwitches that end with it
 */
export function fencedWorkflows(
  selected: readonly Pick<Selected, 'namespace' | 'name'>[],
  members: readonly KillSwitch[],
): FencedWorkflows {
  const standing = members.map(({ metadata: { namespace = '', name } }) => ({ namespace, name }));
  const fenced = new Map<string, Set<string>>();
  let count = 0;
  for (const { namespace, name } of [...selected, ...standing]) {
    if (name === wholeNamespaceName) continue;
    const names = fenced.get(namespace) ?? new Set<string>();
    if (names.has(name)) continue;
    if (count === maxFenced) break;
    count++;
    fenced.set(namespace, names.add(name));
  }
  return Object.fromEntries(
    [...fenced].map(([namespace, names]) => [namespace, [...names].toSorted()]),
  );
}

/** Whether one is among them. */
export function isFencedIn(
  fenced: FencedWorkflows | undefined,
  { namespace, name }: Pick<Selected, 'namespace' | 'name'>,
): boolean {
  return fenced?.[namespace]?.includes(name) === true;
}
