import { isTrue } from '../../api/conditions.ts';
import { wholeNamespaceName } from '../../api/kill-switch.ts';
import { label, secretNameOf } from '../../api/names.ts';
import type { Condition, KubeObject } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import {
  isFollower,
  projectWorkload,
  workloadKinds,
  workloadResources,
} from '../../api/workload.ts';
import {
  exit,
  isForbidden,
  outputOptions,
  required,
  type Command,
  type Session,
} from '../command.ts';
import { print, type Columns } from '../print.ts';

/** What belongs to an automation. */
export const treeCommand: Command = {
  name: 'tree',
  usage: [['tree NAME', 'what belongs to an automation: workloads, pods, rights, credentials']],
  options: outputOptions,
  run: async (session) => tree(session, required(session.names[0], 'tree NAME')),
};

interface TreeRow {
  /** 0 for the automation itself. */
  depth: number;
  kind: string;
  name: string;
  state: string;
}

async function tree(session: Session, name: string): Promise<number> {
  const { client, namespace, stderr } = session;
  const unread: string[] = [];
  const list = async <T extends KubeObject>(
    resource: Resource<T>,
    labelSelector?: string,
  ): Promise<T[]> => {
    try {
      const options = { namespace, ...(labelSelector !== undefined && { labelSelector }) };
      return await client.list(resource, options);
    } catch (error) {
      if (!isForbidden(error)) throw error;
      unread.push(resource.plural);
      return [];
    }
  };
  const get = <T extends KubeObject>(
    resource: Resource<T>,
    called = name,
  ): Promise<T | undefined> => client.get(resource, { namespace, name: called });
  const [workflow, identity, own, whole] = await Promise.all([
    get(resources.workflows),
    get(resources.automationIdentities),
    get(resources.killSwitches),
    get(resources.killSwitches, wholeNamespaceName),
  ]);
  if (workflow === undefined && identity === undefined && own === undefined) {
    stderr(
      `Error: there is neither a Workflow, an AutomationIdentity nor a KillSwitch ${name} in namespace ${namespace}.`,
    );
    return exit.failed;
  }
  const [workloads, pods, policies, accounts, roles, bindings] = await Promise.all([
    Promise.all(
      workloadKinds.map(async (kind) =>
        (await list(workloadResources[kind])).map((object) => projectWorkload(kind, object)),
      ),
    ),
    list(resources.pods),
    list(resources.networkPolicies, `${label.workflow}=${name}`),
    list(resources.serviceAccounts, `${label.identity}=${name}`),
    list(resources.roles, `${label.identity}=${name}`),
    list(resources.roleBindings, `${label.identity}=${name}`),
  ]);
  const runsAsIt = workloads
    .flat()
    .filter((workload) => workload.serviceAccountName === name && !isFollower(workload));
  const podsOfIt = pods.filter(({ spec }) => (spec?.serviceAccountName ?? 'default') === name);
  const row = (depth: number, kind: string, called: string, state = ''): TreeRow => ({
    depth,
    kind,
    name: called,
    state,
  });
  const rows = [
    row(0, 'Workflow', name, stateOf(workflow)),
    ...[own, whole].flatMap((killSwitch) =>
      killSwitch === undefined
        ? []
        : [row(1, 'KillSwitch', killSwitch.metadata.name, killSwitch.spec.reason)],
    ),
    ...runsAsIt.map(({ kind, metadata, isPaused }) =>
      row(1, kind, metadata.name, isPaused ? 'paused' : ''),
    ),
    ...podsOfIt.map(({ metadata, status }) => row(1, 'Pod', metadata.name, status?.phase)),
    ...policies.map(({ metadata }) => row(1, 'NetworkPolicy', metadata.name)),
    row(1, 'AutomationIdentity', name, stateOf(identity)),
    ...accounts.map(({ metadata }) => row(2, 'ServiceAccount', metadata.name)),
    ...roles.map(({ metadata }) => row(2, 'Role', metadata.name)),
    ...bindings.map(({ metadata }) => row(2, 'RoleBinding', metadata.name)),
    // By their names alone: nobody needs to read a Secret for this.
    ...(identity?.spec.secrets ?? []).map((secret) =>
      row(2, 'Secret', secret.secretName ?? secretNameOf(name, secret.name), secret.type),
    ),
    ...(identity?.spec.tokens ?? []).map((token) =>
      row(2, 'Secret', secretNameOf(name, token.name), `token for ${token.audience}`),
    ),
  ];
  print(session, rows, columns, '');
  if (unread.length === 0) return exit.ok;
  stderr(`Error: you may not list ${unread.join(', ')} in namespace ${namespace}.`);
  return exit.failed;
}

const columns: Columns<TreeRow> = {
  OBJECT: ({ depth, kind, name }) => `${'  '.repeat(depth)}${kind}/${name}`,
  STATE: ({ state }) => state,
};

function stateOf(object: { status?: { conditions?: Condition[] } } | undefined): string {
  if (object === undefined) return 'missing';
  const conditions = object.status?.conditions;
  if (isTrue(conditions, 'Stopped')) return 'Stopped';
  if (isTrue(conditions, 'Held')) return 'Held';
  return isTrue(conditions, 'Ready') ? 'Ready' : 'not ready';
}
