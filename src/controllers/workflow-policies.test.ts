import { beforeEach, describe, expect, it } from 'vitest';
import { annotation, label, MANAGED_BY } from '../api/names.ts';
import type { NetworkPolicy, Pod } from '../api/objects.ts';
import { othersOfPlugIn, plugInKeys } from '../guardrails/egress/plug-in-policies.ts';
import { clusterNetworkPolicy, type PlugInPolicy } from '../guardrails/egress/plug-in.ts';
import { ObjectStore } from '../runtime/store.ts';
import { policyIndexes } from './workflow-indexes.ts';
import { keysOfLeft, policiesOf, type PolicyCaches } from './workflow-policies.ts';
import { keysFor } from './workflow.ts';

const metadata = { namespace: 'billing', name: 'poster', uid: 'uid-1' };
const pod: Pod = {
  metadata: {
    namespace: 'billing',
    name: 'poster-1',
    labels: { [label.identity]: 'poster' },
  },
  spec: { serviceAccountName: 'poster' },
};

let networkPolicies: ObjectStore<NetworkPolicy>;
let plugIn: ObjectStore<PlugInPolicy>;
let caches: PolicyCaches;

function networkPolicy(name: string, fields: Partial<NetworkPolicy['metadata']>): NetworkPolicy {
  return {
    metadata: { namespace: 'billing', name, ...fields },
    spec: { podSelector: {}, policyTypes: ['Egress'] },
  };
}

beforeEach(() => {
  networkPolicies = new ObjectStore(policyIndexes);
  plugIn = new ObjectStore({ workflow: plugInKeys, others: othersOfPlugIn });
  caches = { networkPolicies: { store: networkPolicies }, plugIn: [plugIn] };
});

describe('policies that a Workflow left behind', () => {
  it("are found by a policy of the cluster's scope alone, as after the end of a namespace", () => {
    expect(keysOfLeft(caches)).toEqual([]);
    plugIn.set(clusterNetworkPolicy.deny({ metadata }));
    expect(keysOfLeft(caches)).toEqual(['billing/poster']);
  });

  it('are found by a NetworkPolicy, and none of somebody else is', () => {
    const labels = { [label.managedBy]: MANAGED_BY, [label.workflow]: 'reader' };
    networkPolicies.set(networkPolicy('unmarked', { labels }));
    const made = clusterNetworkPolicy.deny({ metadata });
    plugIn.set({ ...made, metadata: { ...made.metadata, labels: {} } });
    expect(keysOfLeft(caches)).toEqual([]);
    const annotations = { [annotation.ownerUid]: 'uid-2' };
    networkPolicies.set(networkPolicy('reader-egress', { labels, annotations }));
    expect(keysOfLeft(caches)).toEqual(['billing/reader']);
  });

  it('are looked at when its last pod ends, of whatever kind they are', () => {
    const keys = (): string[] =>
      keysFor.pod({ type: 'deleted', object: pod }, new ObjectStore(), policiesOf(caches));
    expect(keys()).toEqual([]);
    plugIn.set(clusterNetworkPolicy.deny({ metadata }));
    expect(keys()).toEqual(['billing/poster']);
  });
});
