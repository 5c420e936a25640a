import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import { wholeNamespaceName, type KillSwitch } from '../api/kill-switch.ts';
import { annotation } from '../api/names.ts';
import { resources, type Resource } from '../api/resources.ts';
import { risks } from '../api/workflow.ts';
import { required, UsageError, type Session } from './command.ts';

/** What `kill` and `release` take instead of a name. */
export const scopeOptions = {
  'whole-namespace': { type: 'boolean' },
  environment: { type: 'string' },
  everything: { type: 'boolean' },
  team: { type: 'string' },
  risk: { type: 'string' },
} as const;

/** By name, one that stands: also of a selection that no option expresses. */
export const clusterOption = { cluster: { type: 'string' } } as const;

/** What is stopped or released. */
export interface KillTarget {
  resource: Resource<KillSwitch | ClusterKillSwitch>;
  at: { name: string; namespace?: string };
  /** For people: `finance/invoice-posting`, `environment prod`. */
  title: string;
  /** The arguments that mean it. */
  args: string;
  /** All of the spec but who and why; `undefined` where only what stands is meant. */
  spec?: Partial<KillSwitch['spec'] & ClusterKillSwitch['spec']>;
  /** A command that engages also while a release is under way; none where there is none. */
  engageAgain?: (reason: string) => string;
}

/**
 * @param form of the command, for the error
 * @throws UsageError for none, two, or the reserved name written as a Workflow's
 */
export function killTarget(session: Session, form: string): KillTarget {
  const [name] = session.names;
  const environment = session.option('environment');
  const cluster = session.option('cluster');
  const team = session.option('team');
  const risk = session.option('risk');
  const isWhole = session.flag('whole-namespace');
  const isEverything = session.flag('everything');
  const given = [
    name !== undefined && 'NAME',
    isWhole && '--whole-namespace',
    environment !== undefined && '--environment',
    isEverything && '--everything',
    team !== undefined && '--team',
    risk !== undefined && '--risk',
    cluster !== undefined && '--cluster',
  ].filter((one) => one !== false);
  if (given.length > 1) throw new UsageError(`write one of ${given.join(' and ')}`);
  if (environment !== undefined) {
    return clusterTarget(
      environment,
      `environment ${environment}`,
      `--environment ${environment}`,
      {
        environments: [environment],
      },
    );
  }
  if (isEverything) {
    return clusterTarget('everything', 'all guarded namespaces', '--everything', {
      everything: true,
    });
  }
  if (team !== undefined) {
    const objectName = `team-${team.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')}`;
    const atMost = objectName.slice(0, 63).replace(/-+$/, '');
    return clusterTarget(atMost, `team ${team}`, `--team ${team}`, { teams: [team] });
  }
  if (risk !== undefined) {
    const known = risks.find((one) => one.toLowerCase() === risk.toLowerCase());
    if (known === undefined) throw new UsageError(`--risk is one of ${risks.join(', ')}`);
    const objectName = `risk-${known.toLowerCase()}`;
    return clusterTarget(objectName, `risk ${known}`, `--risk ${known}`, { risks: [known] });
  }
  if (cluster !== undefined) {
    return clusterTarget(cluster, `ClusterKillSwitch ${cluster}`, `--cluster ${cluster}`);
  }
  if (!isWhole && name === wholeNamespaceName) {
    throw new UsageError('to mean everything in the namespace, write --whole-namespace');
  }
  return isWhole
    ? inNamespace(session, wholeNamespaceName, '--whole-namespace', { wholeNamespace: true })
    : ofWorkflow(session, required(name, form));
}

function ofWorkflow(session: Session, name: string): KillTarget {
  return inNamespace(session, name, name, { workflow: name });
}

function inNamespace(
  { namespace }: Session,
  name: string,
  args: string,
  spec: NonNullable<KillTarget['spec']>,
): KillTarget {
  const carrier =
    spec.workflow === undefined ? `namespace ${namespace}` : `awf ${name} -n ${namespace}`;
  return {
    resource: resources.killSwitches,
    at: { namespace, name },
    title: `${namespace}/${name}`,
    args: `${args} -n ${namespace}`,
    spec,
    engageAgain: (reason) => `kubectl annotate ${carrier} ${annotation.killSwitch}="${reason}"`,
  };
}

function clusterTarget(
  name: string,
  title: string,
  args: string,
  spec?: KillTarget['spec'],
): KillTarget {
  return {
    resource: resources.clusterKillSwitches,
    at: { name },
    title,
    args,
    ...(spec !== undefined && { spec }),
  };
}
