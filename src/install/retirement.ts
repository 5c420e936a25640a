import { setTimeout as delay } from 'node:timers/promises';
import { admissionParts, isRefusedBy, policyName } from '../admission/index.ts';
import { label, MANAGED_BY, PROBE_NAMESPACE } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { KubeClient } from '../runtime/client.ts';
import { ApiError, isAlreadyExists, isNotFound } from '../runtime/errors.ts';

export interface RetirementOptions {
  client: KubeClient;
  /** One line of progress. */
  log: (line: string) => void;
  /** Milliseconds to wait for the API server to follow. */
  timeoutMs: number;
}

/** Policies can't go now; the message says why, and what to do. */
export class RetirementError extends Error {
  readonly code = 'POLICIES_NEEDED';
  override readonly name = 'RetirementError';
}

/**
 * Takes away all admission policies, in the order in which no API server refuses unrelated writes:
 * bindings, policies, and it waits until the API server has let go of them. The CRDs may go only
 * then: a policy whose parameters aren't served refuses whatever it matches.
 *
 * @param force also while a kill switch is engaged, which opens it
 * @throws RetirementError where a kill switch is engaged, or the API server doesn't follow in time
 */
export async function uninstallPolicies(
  options: RetirementOptions,
  { force }: { force: boolean },
): Promise<void> {
  const { client, log } = options;
  const engaged = await listEngaged(client);
  if (engaged.length > 0 && !force) {
    throw new RetirementError(
      `without the policies nothing stops what is engaged: ${engaged.join(', ')}. Release it first, or open it with --force.`,
    );
  }
  await remove(options, await listInstalled(client));
  await waitFor(
    options,
    'the API server to let go of the policies',
    async () => !(await isGuarding(client)),
  );
  log('The admission policies are gone: nothing is enforced any more.');
  log(
    engaged.length === 0
      ? 'Workloads are left as they are: what runs goes on, and nothing is started.'
      : `Workloads are left as they are: those of ${engaged.join(', ')} paused, by nothing but their own fields, and the others as they run.`,
  );
}

/**
 * Takes away policies that an earlier version left, once this version's are in force: new ones in,
 * proven, old ones out, so that no kill opens in between.
 *
 * @throws RetirementError where this version's policies aren't all installed, or not in force in time
 */
export async function prunePolicies(options: RetirementOptions): Promise<void> {
  const { client, log } = options;
  const installed = await listInstalled(client);
  const { validating, mutating } = admissionParts();
  const hasMutating = installed.some(({ kind }) => kind.startsWith('Mutating'));
  const wanted = (hasMutating ? [...validating, ...mutating] : validating).map(idOf);
  const present = new Set(installed.map(idOf));
  const missing = wanted.filter((id) => !present.has(id));
  if (missing.length > 0) {
    throw new RetirementError(
      `this version's policies aren't all installed, so the old ones stay; missing: ${missing.slice(0, 5).join(', ')}. Install them first.`,
    );
  }
  const current = new Set(wanted);
  const stale = installed.filter((object) => !current.has(idOf(object)));
  if (stale.length === 0) {
    log('No policy of another version is left.');
    return;
  }
  await proveInForce(options, hasMutating);
  await remove(options, stale);
  log(`${stale.length} policies and bindings of another version are gone.`);
}

/** A policy or a binding. */
interface Installed {
  kind: string;
  metadata: { name: string };
}

function idOf({ kind, metadata }: Installed): string {
  return `${kind} ${metadata.name}`;
}

const kinds = [
  resources.validatingBindings,
  resources.mutatingBindings,
  resources.validatingPolicies,
  resources.mutatingPolicies,
] as const;

async function listInstalled(client: KubeClient): Promise<Installed[]> {
  const lists = await Promise.all(
    kinds.map(async (resource): Promise<Installed[]> => {
      try {
        const labelSelector = `app.kubernetes.io/name=${MANAGED_BY}`;
        const items = await client.list(resource, { labelSelector });
        return items.map(({ metadata }) => ({ kind: resource.kind, metadata }));
      } catch (error) {
        // Kubernetes before 1.36 serves no MutatingAdmissionPolicy.
        if (isNotFound(error)) return [];
        throw error;
      }
    }),
  );
  return lists.flat();
}

/** Bindings first: a policy without one does nothing. */
async function remove(
  { client, log }: RetirementOptions,
  installed: readonly Installed[],
): Promise<void> {
  for (const resource of kinds) {
    const due = installed.filter(({ kind }) => kind === resource.kind);
    if (due.length === 0) continue;
    for (const { metadata } of due) await client.delete(resource, { name: metadata.name });
    log(`Deleted ${due.length} ${resource.plural}.`);
  }
}

/** What would be stopped no more: by KillSwitch, or by an annotation that nobody has latched. */
async function listEngaged(client: KubeClient): Promise<string[]> {
  const { killSwitches, clusterKillSwitches, workflows, automationIdentities, namespaces } =
    resources;
  const engaged = { labelSelector: label.engaged };
  const lists = await Promise.all([
    listed(client, killSwitches, {}),
    listed(client, clusterKillSwitches, {}),
    listed(client, workflows, engaged),
    listed(client, automationIdentities, engaged),
    listed(client, namespaces, engaged),
  ]);
  return lists.flat();
}

async function listed(
  client: KubeClient,
  resource: Resource,
  options: { labelSelector?: string },
): Promise<string[]> {
  try {
    const items = await client.list(resource, options);
    return items
      .filter(
        ({ metadata }) =>
          metadata.labels?.[label.releasing] === undefined &&
          metadata.namespace !== PROBE_NAMESPACE,
      )
      .map(({ metadata: { namespace, name } }) =>
        namespace === undefined
          ? `${resource.kind} ${name}`
          : `${resource.kind} ${namespace}/${name}`,
      );
  } catch (error) {
    if (isNotFound(error)) return [];
    throw error;
  }
}

/** Whether any of our policies on KillSwitches still answers. */
async function isGuarding(client: KubeClient): Promise<boolean> {
  const name = 'does-anybody-guard';
  try {
    const answer = await client.create(
      resources.killSwitches,
      {
        metadata: { namespace: 'default', name },
        spec: { workflow: name, reason: 'Asks whether the policies are gone; never stored.' },
      },
      { dryRun: true },
    );
    return (answer.spec.engagedBy ?? '') !== '';
  } catch (error) {
    if (isNotFound(error)) return false;
    if (error instanceof ApiError) return true;
    throw error;
  }
}

/**
 * An API server takes up all the policies that it has seen at once, and it sees them in the order in
 * which they were written. So one more policy of each kind is written, and when that answers, all
 * that came before are in force.
 */
async function proveInForce(options: RetirementOptions, mutating: boolean): Promise<void> {
  const { client } = options;
  const sentinels = mutating ? [refusing, rewriting] : [refusing];
  const objects = sentinels.flatMap((sentinel) => sentinel.objects);
  try {
    for (const { resource, object } of objects) {
      await client.create(resource, object).catch((error: unknown) => {
        // Left by a run that was cut off; it serves as well.
        if (!isAlreadyExists(error)) throw error;
      });
    }
    let answers = 0;
    await waitFor(options, "this version's policies to be in force", async () => {
      const answered = await Promise.all(sentinels.map((sentinel) => sentinel.answers(client)));
      answers = answered.every(Boolean) ? answers + 1 : 0;
      // Several times in a row, since there may be several API servers.
      return answers === 5;
    });
  } finally {
    for (const { resource, object } of objects) {
      await client.delete(resource, { name: object.metadata.name });
    }
  }
}

/** A policy with its binding that answers one request, which is only ever sent as a dry run. */
interface Sentinel {
  objects: { resource: Resource; object: KubeObject }[];
  answers(client: KubeClient): Promise<boolean>;
}

/** Matches a Namespace of the sentinel's own name; if it fails, it stands in nobody's way. */
function matching(name: string): object {
  return {
    failurePolicy: 'Ignore',
    matchConstraints: {
      resourceRules: [
        { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['namespaces'] },
      ],
    },
    matchConditions: [{ name: 'asked', expression: `object.metadata.name == '${name}'` }],
  };
}

function objectOf(name: string, spec: object): KubeObject & { spec: object } {
  return { metadata: { name }, spec };
}

const refusingName = policyName('sentinel');
const refusing: Sentinel = {
  objects: [
    {
      resource: resources.validatingPolicies,
      object: objectOf(refusingName, {
        ...matching(refusingName),
        validations: [{ expression: 'false', message: 'in force' }],
      }),
    },
    {
      resource: resources.validatingBindings,
      object: objectOf(refusingName, { policyName: refusingName, validationActions: ['Deny'] }),
    },
  ],
  async answers(client) {
    try {
      await client.create(
        resources.namespaces,
        { metadata: { name: refusingName } },
        { dryRun: true },
      );
      return false;
    } catch (error) {
      if (error instanceof ApiError) return isRefusedBy(error.message, refusingName);
      throw error;
    }
  },
};

const rewritingName = policyName('sentinel-rewriting');
const rewriting: Sentinel = {
  objects: [
    {
      resource: resources.mutatingPolicies,
      object: objectOf(rewritingName, {
        ...matching(rewritingName),
        reinvocationPolicy: 'Never',
        mutations: [
          {
            patchType: 'ApplyConfiguration',
            applyConfiguration: {
              expression: `Object{metadata: Object.metadata{labels: {'${MANAGED_BY}': 'in-force'}}}`,
            },
          },
        ],
      }),
    },
    {
      resource: resources.mutatingBindings,
      object: objectOf(rewritingName, { policyName: rewritingName }),
    },
  ],
  async answers(client) {
    const answer = await client.create(
      resources.namespaces,
      { metadata: { name: rewritingName } },
      { dryRun: true },
    );
    return answer.metadata.labels?.[MANAGED_BY] === 'in-force';
  },
};

async function waitFor(
  { timeoutMs }: RetirementOptions,
  what: string,
  isDone: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isDone())) {
    if (performance.now() > deadline) {
      throw new RetirementError(
        `waited in vain for ${what}; try again, or with a longer --timeout`,
      );
    }
    await delay(250);
  }
}
