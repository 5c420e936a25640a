/**
 * Who may do what with a Workflow of high risk, as data: docs/reference/who-may-what.md is made from
 * it, and test/integration/approval.test.ts tries every cell on a real API server.
 */

/** Who asks, with which rights. Each has those alone. */
export const people = [
  { name: 'requester', who: 'role `requester` and ClusterRole `edit`; changed the Workflow last' },
  { name: 'colleague', who: 'the same rights; changed nothing' },
  { name: 'approver', who: 'role `approver`; changed nothing' },
  {
    name: 'self-approver',
    who: 'roles `requester`, `approver` and `releaser`; changed the identity last, and the Workflow that is killed',
  },
  { name: 'waiver', who: 'role `approval-waiver`' },
  { name: 'killer', who: 'role `killer`' },
  { name: 'releaser', who: "role `releaser`; didn't engage" },
  { name: 'editor', who: 'ClusterRole `edit`' },
  { name: 'reader', who: 'ClusterRole `view` and role `viewer`' },
  { name: 'automation', who: 'the ServiceAccount of the automation' },
  { name: 'gitops', who: "a ServiceAccount with all of the roles above but the operator's" },
  { name: 'operator', who: 'the ServiceAccount of the operator' },
] as const;

export type Person = (typeof people)[number]['name'];

export interface Action {
  readonly id: string;
  readonly what: string;
  /** Everybody else is refused. */
  readonly by: readonly Person[];
}

const writers = ['requester', 'colleague', 'self-approver', 'gitops'] as const;

export const actions = [
  {
    id: 'read',
    what: 'See Workflows and decisions',
    by: people.map(({ name }) => name).filter((name) => name !== 'editor' && name !== 'automation'),
  },
  {
    id: 'change',
    what: 'Change the Workflow; it waits for approval again',
    by: [...writers, 'waiver', 'operator'],
  },
  { id: 'lower', what: 'Lower its risk', by: ['waiver'] },
  { id: 'delete', what: 'Delete it while its identity stands', by: ['waiver'] },
  { id: 'restamp', what: 'Say that somebody else changed it', by: [] },
  { id: 'approve', what: 'Approve it', by: ['approver'] },
  { id: 'reject', what: 'Reject it', by: ['approver', 'self-approver'] },
  { id: 'approve-as', what: "Approve it in another's name", by: [] },
  { id: 'edit-decision', what: 'Change a decision', by: [] },
  { id: 'withdraw', what: 'Withdraw an approval', by: ['approver', 'self-approver', 'operator'] },
  { id: 'withdraw-rejection', what: "Delete another's rejection", by: ['operator'] },
  { id: 'forge-status', what: 'Write into its status that it is approved', by: ['operator'] },
  { id: 'start', what: 'Create a pod of it that starts at once', by: [] },
  { id: 'lift', what: 'Start a pod that waits', by: ['operator'] },
  { id: 'inject', what: 'Change the image of a pod of it', by: [] },
  { id: 'debug', what: 'Add a container to a pod of it', by: [] },
  { id: 'kill', what: 'Engage its kill switch', by: ['killer', 'gitops', 'operator'] },
  { id: 'release', what: 'Release a kill that somebody else engaged', by: ['releaser'] },
] as const satisfies readonly Action[];

export type ActionId = (typeof actions)[number]['id'];

/** A pair of duties that are different people's, and what sees to it. */
export interface Separation {
  readonly duties: string;
  readonly how: string;
  /** Who tries it in the test: an action that is refused to this one, and why. */
  readonly tried?: { readonly id: ActionId; readonly as: Person };
}

/** Each pair of duties, and what keeps them apart. */
export const separations = [
  {
    duties: 'requester and approver',
    how: 'refused: who changed the Workflow, its identity or a pod template last, or is named in `change.requestedBy`; the operator counts nobody who changed one since the last approval',
    tried: { id: 'approve', as: 'requester' },
  },
  {
    duties: 'requester and executor',
    how: 'refused: the ServiceAccount of an automation changes neither its Workflow nor its identity; a pod template that it changed is reported (`DutiesOverlap`)',
    tried: { id: 'change', as: 'automation' },
  },
  {
    duties: 'requester and releaser',
    how: 'refused, of a Workflow that needs approval: who changed it last, unless he breaks the glass',
    tried: { id: 'release', as: 'self-approver' },
  },
  {
    duties: 'approver and executor',
    how: 'refused: no ServiceAccount approves',
    tried: { id: 'approve', as: 'automation' },
  },
  {
    duties: 'approver and releaser',
    how: 'reported (`DutiesOverlap`): a kill often comes at night, and one of two leads is left',
  },
  {
    duties: 'releaser and executor',
    how: 'refused: no ServiceAccount releases',
    tried: { id: 'release', as: 'gitops' },
  },
  {
    duties: 'who engages and who releases',
    how: 'refused, unless he breaks the glass',
  },
] as const satisfies readonly Separation[];
