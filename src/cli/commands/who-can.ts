import { GROUP } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import { holdersOf, type Access, type Holder } from '../access.ts';
import {
  exit,
  isForbidden,
  outputOptions,
  UsageError,
  type Command,
  type Session,
} from '../command.ts';
import { print, type Columns } from '../print.ts';

const form = 'who-can ACTION NAME';

const { accessReviews, approvals, automationIdentities, killSwitches, workflows } = resources;
const on = (verb: string, resource: string) => ({ verb, group: GROUP, resource });

/** What somebody must be allowed for each action. One that creates an object has no name yet. */
const actions: Readonly<Record<string, readonly (Omit<Access, 'name'> & { isNamed: boolean })[]>> =
  {
    kill: [{ ...on('create', killSwitches.plural), isNamed: false }],
    release: [
      { ...on('release', killSwitches.plural), isNamed: true },
      { ...on('patch', killSwitches.plural), isNamed: true },
    ],
    'break-glass': [
      { ...on('break-glass', killSwitches.plural), isNamed: true },
      { ...on('patch', killSwitches.plural), isNamed: true },
    ],
    approve: [
      { ...on('create', approvals.plural), isNamed: false },
      { ...on('approve', workflows.plural), isNamed: true },
    ],
    'waive-approval': [
      { ...on('waive-approval', workflows.plural), isNamed: true },
      { ...on('patch', workflows.plural), isNamed: true },
    ],
    widen: [{ ...on('widen', workflows.plural), isNamed: true }],
    review: [
      { ...on('create', accessReviews.plural), isNamed: false },
      { ...on('review', automationIdentities.plural), isNamed: true },
    ],
    edit: [{ ...on('patch', workflows.plural), isNamed: true }],
    view: [{ ...on('get', workflows.plural), isNamed: true }],
  };

/** Names of the actions. */
export const whoCanActions = Object.keys(actions);

/** Who may kill, release or edit, by RBAC. */
export const whoCanCommand: Command = {
  name: 'who-can',
  usage: [[form, `whom RBAC lets do it to Workflow NAME; ACTION is ${whoCanActions.join(', ')}`]],
  options: outputOptions,
  maxNames: 2,
  run: async (session) => whoCan(session),
};

async function whoCan(session: Session): Promise<number> {
  const { client, namespace, stderr } = session;
  const [action = '', name] = session.names;
  const needed = actions[action];
  if (needed === undefined) {
    throw new UsageError(
      `ACTION is one of ${whoCanActions.join(', ')}: kubectl guardrails ${form}`,
    );
  }
  if (name === undefined) throw new UsageError(`a name is missing: kubectl guardrails ${form}`);
  const unread: string[] = [];
  const listed = async <T>(what: string, list: Promise<T[]>): Promise<T[]> =>
    list.catch((error: unknown) => {
      if (!isForbidden(error)) throw error;
      unread.push(what);
      return [];
    });
  const [roleBindings, roles, clusterRoleBindings, clusterRoles] = await Promise.all([
    listed('RoleBindings', client.list(resources.roleBindings, { namespace })),
    listed('Roles', client.list(resources.roles, { namespace })),
    listed('ClusterRoleBindings', client.list(resources.clusterRoleBindings)),
    listed('ClusterRoles', client.list(resources.clusterRoles)),
  ]);
  const rules = new Map(
    [...roles, ...clusterRoles].map((role) => [
      `${role.metadata.namespace === undefined ? 'ClusterRole' : 'Role'}/${role.metadata.name}`,
      role.rules ?? [],
    ]),
  );
  const holders = holdersOf(
    needed.map(({ isNamed, ...access }) => (isNamed ? { ...access, name } : access)),
    [...roleBindings, ...clusterRoleBindings],
    ({ roleRef }) => rules.get(`${roleRef.kind}/${roleRef.name}`) ?? [],
  );
  print(
    session,
    holders,
    columns,
    `RBAC lets nobody ${action} ${namespace}/${name}, as far as you may see.`,
    wideColumns,
  );
  if (session.output === 'table' || session.output === 'wide') {
    stderr(
      'Beside these: members of the group system:masters, and whoever may impersonate one of them.',
    );
  }
  if (unread.length === 0) return exit.ok;
  stderr(`Error: you may not list ${unread.join(', ')}, so others may be able to, too.`);
  return exit.failed;
}

const columns: Columns<Holder> = {
  KIND: ({ kind }) => kind,
  SUBJECT: ({ subject }) => subject,
  ROLE: ({ role }) => role,
};

const wideColumns: Columns<Holder> = { BINDING: ({ binding }) => binding };
