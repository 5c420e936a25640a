import { maxFenced, type ClusterKillSwitchStatus } from '../../api/cluster-kill-switch.ts';
import { wholeNamespaceName, type KillSwitch } from '../../api/kill-switch.ts';
import type { Selected } from './cluster.ts';

/** Workflows that the fence of a ClusterKillSwitch stops by its status: their names, by namespace. */
export type FencedWorkflows = NonNullable<ClusterKillSwitchStatus['fenced']>;

/**
 * What is to stand in the status of a ClusterKillSwitch that stops Workflows: all that stand there,
 * those that it selects, and those whose KillSwitch ends with it. While it is engaged, nothing leaves
 * the list: who is stopped could give the Workflow to somebody else, delete it, or push it out by
 * others, and a replica whose caches lag knows less than the one that wrote. Beyond a bound, the
 * KillSwitches of those that come later are the fence.
 *
 * @param before what the API server has
 * @param members KillSwitches that end with it
 */
export function fencedWorkflows(
  before: FencedWorkflows | undefined,
  selected: readonly Pick<Selected, 'namespace' | 'name'>[],
  members: readonly KillSwitch[],
): FencedWorkflows {
  const standing = members.map(({ metadata: { namespace = '', name } }) => ({ namespace, name }));
  const fenced = new Map(
    Object.entries(before ?? {}).map(([namespace, names]) => [namespace, new Set(names)]),
  );
  let count = [...fenced.values()].reduce((sum, { size }) => sum + size, 0);
  for (const { namespace, name } of [...selected, ...standing]) {
    if (name === wholeNamespaceName) continue;
    const names = fenced.get(namespace) ?? new Set<string>();
    if (names.has(name)) continue;
    if (count >= maxFenced) break;
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
