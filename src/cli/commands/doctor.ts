import { admissionParts, canary } from '../../admission/index.ts';
import { conditionOf } from '../../api/conditions.ts';
import { kinds } from '../../api/kinds.ts';
import { GROUP, label, MANAGED_BY, PROBE_NAMESPACE } from '../../api/names.ts';
import type { KubeObject, Lease } from '../../api/objects.ts';
import { defineResource, resources, type Resource } from '../../api/resources.ts';
import { isNotFound, messageOf } from '../../runtime/errors.ts';
import { exit, isForbidden, outputOptions, type Command, type Session } from '../command.ts';
import { print, type Columns } from '../print.ts';
import type { ServerInfo } from '../server.ts';

/** Checks the installation. */
export const doctorCommand: Command = {
  name: 'doctor',
  usage: [['doctor', 'check the installation; -n is the namespace of the operator']],
  options: outputOptions,
  maxNames: 0,
  run: async (session) => doctor(session),
};

/** What came of one check. A `note` is nothing wrong; `unknown` could not be checked. */
export interface Check {
  check: string;
  result: 'ok' | 'note' | 'failed' | 'unknown';
  /** What was found, and what to do about it. */
  message: string;
}

async function doctor(session: Session): Promise<number> {
  const operatorNamespace = session.option('namespace') ?? MANAGED_BY;
  const server = await checked('API server', async () => {
    const info = await session.server();
    return { info, ...serverCheck(info) };
  });
  const info = 'info' in server ? server.info : undefined;
  const checks = [
    rowOf(server),
    ...(await Promise.all([
      checked('kinds', () => kindsCheck(session)),
      checked('admission policies', () => policiesCheck(session, info)),
      checked('policies in force', () => canaryCheck(session)),
      checked('operator', () => leaseCheck(session, operatorNamespace, info)),
      checked('guarded namespaces', () => namespacesCheck(session)),
      checked('your rights', () => rightsCheck(session)),
    ])),
    clockCheck(info),
    {
      check: 'network plug-in',
      result: 'note',
      message:
        "Whether NetworkPolicies are enforced is the network plug-in's to say; nobody can see it from here.",
    } satisfies Check,
  ].map(rowOf);
  print(session, checks, columns, '');
  return checks.some(({ result }) => result === 'failed' || result === 'unknown')
    ? exit.failed
    : exit.ok;
}

const columns: Columns<Check> = {
  CHECK: ({ check }) => check,
  RESULT: ({ result }) => result,
  MESSAGE: ({ message }) => message,
};

type Finding = Omit<Check, 'check'>;

/** What can't be looked at isn't known; nobody is told that it is well. */
async function checked<T extends Finding>(
  check: string,
  look: () => Promise<T>,
): Promise<Check | (T & Check)> {
  try {
    return { check, ...(await look()) };
  } catch (error) {
    const message = isForbidden(error)
      ? `You may not look: ${messageOf(error)}`
      : `It can't be looked at: ${messageOf(error)}`;
    return { check, result: 'unknown', message };
  }
}

function rowOf({ check, result, message }: Check): Check {
  return { check, result, message };
}

/** Of Kubernetes 1.x. */
const oldestMinor = 30;
const mutationMinor = 36;

export function serverCheck({ gitVersion, major, minor }: ServerInfo): Finding {
  if (major === 1 && minor < oldestMinor) {
    return {
      result: 'failed',
      message: `Kubernetes ${gitVersion} serves no ValidatingAdmissionPolicy v1; 1.${oldestMinor} and later do.`,
    };
  }
  if (major === 1 && minor < mutationMinor) {
    return {
      result: 'note',
      message: `Kubernetes ${gitVersion}: admission refuses what it would rewrite from 1.${mutationMinor} on.`,
    };
  }
  return { result: 'ok', message: `Kubernetes ${gitVersion}` };
}

async function kindsCheck({ client }: Session): Promise<Finding> {
  const missing: string[] = [];
  for (const { resource } of kinds) {
    try {
      await client.list(resource, resource.namespaced ? { namespace: PROBE_NAMESPACE } : {});
    } catch (error) {
      if (!isNotFound(error)) throw error;
      missing.push(resource.plural);
    }
  }
  if (missing.length === 0) return { result: 'ok', message: `${kinds.length} kinds are served.` };
  return {
    result: 'failed',
    message: `Not served: ${missing.join(', ')}. Install them: kubectl apply --server-side -k crds`,
  };
}

async function policiesCheck(
  { client }: Session,
  info: Pick<ServerInfo, 'major' | 'minor'> | undefined,
): Promise<Finding> {
  const { validating, mutating } = admissionParts();
  const servesMutation = info === undefined || info.major > 1 || info.minor >= mutationMinor;
  const wanted = [...validating, ...(servesMutation ? mutating : [])];
  const listed: Resource[] = [resources.validatingPolicies, resources.validatingBindings];
  if (servesMutation) listed.push(resources.mutatingPolicies, resources.mutatingBindings);
  const labelSelector = `app.kubernetes.io/name=${MANAGED_BY}`;
  const lists = await Promise.all(
    listed.map(async (resource) => ({
      kind: resource.kind,
      objects: await client.list(resource, { labelSelector }),
    })),
  );
  return policiesFinding(
    lists.flatMap(({ kind, objects }) => objects.map(({ metadata }) => `${kind}/${metadata.name}`)),
    wanted.map(({ kind, metadata }) => `${kind}/${metadata.name}`),
  );
}

/** @param present policies and bindings that are installed, each as `Kind/name` */
export function policiesFinding(present: readonly string[], wanted: readonly string[]): Finding {
  const installed = new Set(present);
  const missing = wanted.filter((id) => !installed.has(id));
  if (missing.length === 0) {
    return { result: 'ok', message: `${wanted.length} policies and bindings are installed.` };
  }
  const isMutating = (id: string): boolean => id.startsWith('Mutating');
  if (missing.every(isMutating) && !present.some(isMutating)) {
    return {
      result: 'note',
      message:
        'Policies that rewrite are not installed, so the others refuse what these would rewrite. Where you want them: kubectl apply --server-side -k config/admission/mutating',
    };
  }
  return {
    result: 'failed',
    message: `${missing.length} are missing, ${missing.slice(0, 3).join(', ')} among them: a kill may not hold. Install them: kubectl apply --server-side -k config/admission`,
  };
}

async function canaryCheck({ client }: Session): Promise<Finding> {
  const standing = await client.get(resources.killSwitches, {
    namespace: PROBE_NAMESPACE,
    name: canary.killSwitch,
  });
  if (standing === undefined) {
    return {
      result: 'failed',
      message: `Nobody asks: there is no KillSwitch ${canary.killSwitch} in ${PROBE_NAMESPACE}. See that an operator leads.`,
    };
  }
  const ready = conditionOf(standing.status?.conditions, 'Ready');
  if (ready?.status === 'True') return { result: 'ok', message: ready.message };
  return {
    result: 'failed',
    message: `${ready?.message ?? 'The standing probe has no answer yet.'} See docs/runbooks/fence-not-in-force.md`,
  };
}

/** What the default lease duration is; the leader renews it every two seconds. */
const leaseSeconds = 15;

async function leaseCheck(
  { client }: Session,
  namespace: string,
  info: ServerInfo | undefined,
): Promise<Finding> {
  const lease = await client.get(resources.leases, { namespace, name: MANAGED_BY });
  return leaseFinding(lease, namespace, info?.date ?? Date.now());
}

/** @param now milliseconds since the epoch, by the API server's clock */
export function leaseFinding(lease: Lease | undefined, namespace: string, now: number): Finding {
  const { holderIdentity = '', renewTime = '' } = lease?.spec ?? {};
  if (holderIdentity === '') {
    return {
      result: 'failed',
      message: `No operator leads in namespace ${namespace}: kubectl get pods -n ${namespace}. Is it another namespace? Name it with -n.`,
    };
  }
  const age = (now - Date.parse(renewTime)) / 1000;
  if (age > leaseSeconds) {
    return {
      result: 'failed',
      message: `${holderIdentity} led, and renewed its Lease ${Math.round(age)} s ago for the last time: kubectl get pods -n ${namespace}`,
    };
  }
  if (age < -maxSkewSeconds) {
    return {
      result: 'failed',
      message: `The clock of ${holderIdentity} is ${Math.round(-age)} s before that of the API server: times in conditions and rotations are wrong. Look at the clock of its node.`,
    };
  }
  return { result: 'ok', message: `${holderIdentity} leads.` };
}

async function namespacesCheck({ client }: Session): Promise<Finding> {
  const guarded = await client.list(resources.namespaces, { labelSelector: label.environment });
  const count = guarded.filter(({ metadata }) => metadata.name !== PROBE_NAMESPACE).length;
  if (count > 0) return { result: 'ok', message: `${count} namespaces are guarded.` };
  return {
    result: 'note',
    message: `No namespace is guarded, so nothing is enforced yet: kubectl label namespace NAME ${label.environment}=prod`,
  };
}

/** Asks the API server what the asker may do. */
interface SelfSubjectAccessReview extends KubeObject {
  spec: {
    resourceAttributes: { namespace: string; verb: string; group: string; resource: string };
  };
  status?: { allowed?: boolean };
}

const selfSubjectAccessReviews = defineResource<SelfSubjectAccessReview>(
  'authorization.k8s.io',
  'v1',
  'SelfSubjectAccessReview',
  'selfsubjectaccessreviews',
  false,
);

async function rightsCheck({ client, namespace }: Session): Promise<Finding> {
  const { killSwitches, workflows } = resources;
  const questions = [
    ['kill', 'create', killSwitches],
    ['release', 'release', killSwitches],
    ['break the glass', 'break-glass', killSwitches],
    ['edit', 'patch', workflows],
    ['view', 'list', workflows],
  ] as const;
  const answers = await Promise.all(
    questions.map(async ([action, verb, { plural }]) => {
      const review = await client.create(selfSubjectAccessReviews, {
        metadata: { name: '' },
        spec: { resourceAttributes: { namespace, verb, group: GROUP, resource: plural } },
      });
      return { action, allowed: review.status?.allowed === true };
    }),
  );
  const allowed = answers.filter((answer) => answer.allowed).map(({ action }) => action);
  return {
    result: 'note',
    message: `In namespace ${namespace} you may ${allowed.length === 0 ? 'do nothing' : allowed.join(', ')}.`,
  };
}

const maxSkewSeconds = 5;

export function clockCheck(info: Pick<ServerInfo, 'date' | 'localDate'> | undefined): Check {
  const check = 'clock';
  if (info === undefined) {
    return { check, result: 'unknown', message: 'The API server has not told its time.' };
  }
  const seconds = Math.round((info.localDate - info.date) / 1000);
  if (Math.abs(seconds) <= maxSkewSeconds) {
    return { check, result: 'ok', message: 'This machine and the API server agree on the time.' };
  }
  return {
    check,
    result: 'failed',
    message: `This machine is ${Math.abs(seconds)} s ${seconds > 0 ? 'before' : 'behind'} the API server: one of the two clocks is wrong.`,
  };
}
