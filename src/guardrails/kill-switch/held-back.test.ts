import { describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../../api/automation-identity.ts';
import type { ObjectMeta } from '../../api/objects.ts';
import type { Workflow } from '../../api/workflow.ts';
import { heldBack } from './held-back.ts';

const metadata: ObjectMeta = { name: 'poster', namespace: 'billing' };

function held(status: 'True' | 'False') {
  const lastTransitionTime = '2026-05-01T00:00:00Z';
  const condition = { type: 'Held', reason: 'OwnerMissing', message: 'why', lastTransitionTime };
  return { conditions: [{ ...condition, status }] };
}

const permission = { apiGroups: [''], resources: ['configmaps'], verbs: ['get'], reason: 'x' };
const identity: AutomationIdentity = {
  metadata,
  spec: { permissions: [permission], secrets: [{ name: 'erp', type: 'Password' }], tokens: [] },
  status: held('True'),
};
const workflow: Workflow = {
  metadata,
  spec: { targets: [], egress: [{ host: 'erp.example', reason: 'ERP' }] },
  status: held('True'),
};

describe('what a release leaves with what holds it', () => {
  it('is what the spec asks for', () => {
    const why = { reason: 'OwnerMissing', message: 'why' };
    expect(heldBack([workflow], [identity])).toEqual([
      { name: 'AutomationIdentity poster', lacks: 'RoleBinding, credentials', ...why },
      { name: 'Workflow poster', lacks: 'egress', ...why },
    ]);
  });

  it.each<[string, Workflow]>([
    ['is not held', { ...workflow, status: held('False') }],
    ['was never looked at', { metadata, spec: workflow.spec }],
    ['asks for nothing', { ...workflow, spec: { targets: [], egress: [] } }],
    ['goes', { ...workflow, metadata: { ...metadata, deletionTimestamp: '2026-05-01T00:00:00Z' } }],
  ])('is nothing of what %s', (_, one) => {
    expect(heldBack([one], [])).toEqual([]);
  });
});
