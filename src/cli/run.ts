import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { dump } from 'js-yaml';
import {
  isUnstamped,
  killSwitchCreationPolicyName,
  policyName,
  releaseStampPolicyName,
} from '../admission/index.ts';
import { conditionOf } from '../api/conditions.ts';
import { annotation, label, PROBE_NAMESPACE } from '../api/names.ts';
import { wholeNamespaceName, type KillSwitch, type Remaining } from '../api/kill-switch.ts';
import { resources } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import { isEngaging, killSwitchOver } from '../guardrails/kill-switch/plan.ts';
import { prunePolicies, uninstallPolicies, type RetirementOptions } from '../install/retirement.ts';
import { ApiServerClient, type KubeClient } from '../runtime/client.ts';
import { ApiError, isAlreadyExists, messageOf } from '../runtime/errors.ts';
import { PooledKubeConfig } from '../runtime/kube-config.ts';

export interface RunOptions {
  argv: string[];
  stdout: (line: string) => void;
  stderr: (line: string) => void;
}

/** Exit codes: done; the cluster said no or isn't there yet; the command line is wrong. */
const exit = { ok: 0, failed: 1, usage: 2 } as const;

const usage = `Stop and release automations.

Usage:
  kubectl guardrails kill NAME --reason TEXT      engage the kill switch of Workflow NAME
  kubectl guardrails release NAME --reason TEXT   ask for its release (not by who engaged it)
  kubectl guardrails status [NAME]                what is engaged, and how far
  kubectl guardrails prune                        after an upgrade: take away the admission
                                                  policies that an earlier version left
  kubectl guardrails uninstall                    take away all admission policies, which comes
                                                  before everything else of an uninstallation

With --whole-namespace instead of NAME, kill and release mean everything in the namespace.

Options:
  -n, --namespace NAME   namespace; default: the context's
  -A, --all-namespaces   status of all namespaces
      --reason TEXT      why; kept in the KillSwitch and in the events
      --wait=false       don't wait until it is done
      --force            kill: also where there is no Workflow of that name;
                         uninstall: also while a kill switch is engaged, which opens it
      --whole-namespace  everything that runs in the namespace
      --break-glass      release: alone, and without an operator; takes the verb break-glass
      --timeout 60       seconds to wait
  -o, --output FORMAT    status as table, json or yaml
      --kubeconfig FILE  --context NAME  --as USER   as in kubectl
  -h, --help             this text

Exit codes: 0 done, 1 refused or not done in time, 2 wrong command line.`;

class UsageError extends Error {
  readonly code = 'USAGE';
}

interface Flags {
  namespace: string;
  allNamespaces: boolean;
  reason: string | undefined;
  wait: boolean;
  force: boolean;
  breakGlass: boolean;
  timeoutMs: number;
  output: string;
}

interface Session extends RunOptions {
  client: KubeClient;
  flags: Flags;
}

/** Runs one command line. @returns the exit code */
export async function run(options: RunOptions): Promise<number> {
  let kubeConfig: PooledKubeConfig | undefined;
  try {
    const { values, positionals } = parse(options.argv);
    const [command, given, ...rest] = positionals;
    const name = nameOf(values, given);
    if (values.help === true || command === undefined) {
      options.stdout(usage);
      return command === undefined && values.help !== true ? exit.usage : exit.ok;
    }
    if (rest.length > 0) throw new UsageError(`unexpected argument: ${rest.join(' ')}`);
    kubeConfig = new PooledKubeConfig({ connections: 4 }).load({
      kubeconfig: values.kubeconfig,
      context: values.context,
    });
    if (values.as !== undefined) impersonate(kubeConfig, values.as);
    const session: Session = {
      ...options,
      client: new ApiServerClient({ kubeConfig, userAgent: 'kubectl-guardrails' }),
      flags: flagsOf(values, kubeConfig),
    };
    switch (command) {
      case 'kill':
        return await kill(session, required(name, 'kill NAME --reason TEXT'));
      case 'release':
        return await release(session, required(name, 'release NAME --reason TEXT'));
      case 'status':
        return await status(session, name);
      case 'prune':
        await prunePolicies(retirement(session, name));
        return exit.ok;
      case 'uninstall':
        await uninstallPolicies(retirement(session, name), session.flags);
        return exit.ok;
      default:
        throw new UsageError(`unknown command: ${command}`);
    }
  } catch (error) {
    options.stderr(`Error: ${messageOf(error)}`);
    if (!isUsage(error)) return exit.failed;
    options.stderr('Run kubectl guardrails --help for the commands.');
    return exit.usage;
  } finally {
    await kubeConfig?.closeConnections();
  }
}

function parse(argv: readonly string[]) {
  // parseArgs knows no --flag=false for booleans.
  const args = argv.map((arg) => (arg === '--wait=false' ? '--no-wait' : arg));
  return parseArgs({
    args: args.filter((arg) => arg !== '--wait=true'),
    allowPositionals: true,
    allowNegative: true,
    options: {
      namespace: { type: 'string', short: 'n' },
      'all-namespaces': { type: 'boolean', short: 'A' },
      reason: { type: 'string' },
      wait: { type: 'boolean' },
      force: { type: 'boolean' },
      'whole-namespace': { type: 'boolean' },
      'break-glass': { type: 'boolean' },
      timeout: { type: 'string' },
      output: { type: 'string', short: 'o' },
      kubeconfig: { type: 'string' },
      context: { type: 'string' },
      as: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
}

function nameOf(
  values: ReturnType<typeof parse>['values'],
  given: string | undefined,
): string | undefined {
  if (values['whole-namespace'] !== true) {
    if (given !== wholeNamespaceName) return given;
    throw new UsageError('to mean everything in the namespace, write --whole-namespace');
  }
  if (given !== undefined) throw new UsageError('either NAME or --whole-namespace, not both');
  return wholeNamespaceName;
}

function isUsage(error: unknown): boolean {
  if (error instanceof UsageError) return true;
  return (
    error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')
  );
}

function flagsOf(values: ReturnType<typeof parse>['values'], kubeConfig: PooledKubeConfig): Flags {
  const seconds = Number(values.timeout ?? '60');
  if (!Number.isFinite(seconds) || seconds <= 0) {
    throw new UsageError('--timeout takes a number of seconds above 0');
  }
  const output = values.output ?? 'table';
  if (!['table', 'json', 'yaml'].includes(output)) {
    throw new UsageError('--output takes table, json or yaml');
  }
  const context = kubeConfig.getContextObject(kubeConfig.getCurrentContext());
  return {
    namespace: values.namespace ?? context?.namespace ?? 'default',
    allNamespaces: values['all-namespaces'] === true,
    reason: values.reason,
    wait: values.wait !== false,
    force: values.force === true,
    breakGlass: values['break-glass'] === true,
    timeoutMs: seconds * 1000,
    output,
  };
}

function impersonate(kubeConfig: PooledKubeConfig, userName: string): void {
  const current = kubeConfig.getCurrentUser();
  kubeConfig.users = kubeConfig.users.map((user) =>
    user.name === current?.name ? { ...user, impersonateUser: userName } : user,
  );
}

function required(value: string | undefined, form: string): string {
  if (value === undefined) throw new UsageError(`a name is missing: kubectl guardrails ${form}`);
  return value;
}

function reasonOf({ reason }: Flags, form: string): string {
  if (reason === undefined || reason.trim() === '') {
    throw new UsageError(`a reason is missing: kubectl guardrails ${form}`);
  }
  return reason;
}

function retirement(
  { client, stdout, flags }: Session,
  name: string | undefined,
): RetirementOptions {
  if (name !== undefined) throw new UsageError(`unexpected argument: ${name}`);
  return { client, log: stdout, timeoutMs: flags.timeoutMs };
}

async function kill(session: Session, name: string): Promise<number> {
  const { client, flags, stdout } = session;
  const { namespace } = flags;
  const reason = reasonOf(flags, `kill ${name} --reason TEXT`);
  const isWhole = name === wholeNamespaceName;
  if (!isWhole && !flags.force && !(await mayExist(client, namespace, name))) {
    session.stderr(
      `Error: there is no Workflow ${name} in namespace ${namespace}. To stop whatever runs as ServiceAccount ${name} all the same, add --force.`,
    );
    return exit.failed;
  }
  try {
    const spec = { ...(isWhole ? { wholeNamespace: true } : { workflow: name }), reason };
    await stamped(client, killSwitchCreationPolicyName, (engagedBy) =>
      client.create(resources.killSwitches, {
        metadata: { namespace, name },
        spec: { ...spec, ...(engagedBy !== undefined && { engagedBy }) },
      }),
    );
    stdout(`Kill switch engaged for ${namespace}/${name}.`);
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    const standing = await client.get(resources.killSwitches, { namespace, name });
    if (standing === undefined || isBeingReleased(standing)) {
      session.stderr(
        `Error: the kill switch of ${namespace}/${name} is being released. To engage it again: kubectl annotate ${isWhole ? `namespace ${namespace}` : `awf ${name} -n ${namespace}`} ${annotation.killSwitch}="${reason}"`,
      );
      return exit.failed;
    }
    stdout(`The kill switch of ${namespace}/${name} is engaged already.`);
  }
  if (!flags.wait) return exit.ok;
  let missing = ['No operator has worked on it yet.'];
  const reached = new Set<string>();
  let remaining: readonly Remaining[] | undefined;
  const done = await follow(session, async () => {
    const killSwitch = await client.get(resources.killSwitches, { namespace, name });
    if (killSwitch === undefined) throw new Error('The KillSwitch is gone: it was released.');
    const conditions = killSwitch.status?.conditions ?? [];
    if (conditions.length > 0) {
      missing = conditions
        .filter(({ type, status: is }) => is !== 'True' && !['Effective', 'Ready'].includes(type))
        .map(({ type, message }) => `${type.padEnd(rungWidth)} ${message}`);
    }
    for (const condition of conditions) {
      if (condition.status !== 'True' || reached.has(condition.type)) continue;
      reached.add(condition.type);
      stdout(`  ${condition.type.padEnd(rungWidth)} ${condition.message}`);
    }
    remaining = conditions.some(({ reason: why }) => why === 'SomethingRemains')
      ? (killSwitch.status?.remaining ?? [])
      : undefined;
    return reached.has('Ready') || remaining !== undefined;
  });
  if (done && remaining === undefined) return exit.ok;
  if (done) {
    session.stderr('Stopped, as far as the operator can. What stays valid:');
    for (const { what, until } of remaining ?? []) {
      session.stderr(`  ${what}${until === undefined ? '' : `, until ${until}`}`);
    }
  } else {
    session.stderr('Not stopped in time. What is missing:');
  }
  for (const line of missing) session.stderr(`  ${line}`);
  return exit.failed;
}

/** Of the longest name of a rung. */
const rungWidth = 'PermissionsRevoked'.length;

/**
 * A write that admission stamps with who makes it. Where admission rewrites nothing it is refused
 * without the stamp, and made again with the name that the API server knows the user by.
 */
async function stamped(
  client: KubeClient,
  policy: string,
  write: (userName: string | undefined) => Promise<unknown>,
): Promise<void> {
  try {
    await write(undefined);
  } catch (error) {
    if (!(error instanceof ApiError && isUnstamped(error.message, policy))) throw error;
    const review = await client.create(resources.selfSubjectReviews, { metadata: { name: '' } });
    await write(review.status?.userInfo?.username);
  }
}

/** A user who may not look, but engage, isn't kept from engaging. */
async function mayExist(client: KubeClient, namespace: string, name: string): Promise<boolean> {
  try {
    return (await client.get(resources.workflows, { namespace, name })) !== undefined;
  } catch (error) {
    if (isForbidden(error)) return true;
    throw error;
  }
}

function isForbidden(error: unknown): boolean {
  return error instanceof ApiError && error.status === 403;
}

function isBeingReleased({ metadata }: KillSwitch): boolean {
  return (
    metadata.labels?.[label.releasing] !== undefined ||
    metadata.annotations?.[annotation.release] !== undefined ||
    metadata.deletionTimestamp !== undefined
  );
}

async function release(session: Session, name: string): Promise<number> {
  const { client, flags, stdout } = session;
  const { namespace } = flags;
  const reason = reasonOf(flags, `release ${name} --reason TEXT`);
  const engaged = await client.get(resources.killSwitches, { namespace, name });
  if (engaged === undefined) throw new Error(`No kill switch is engaged for ${namespace}/${name}.`);
  await askForRelease(session, engaged, reason);
  stdout(`Release of ${namespace}/${name} asked for.`);
  if (!flags.wait) return exit.ok;
  const done = await follow(session, async () => {
    const killSwitch = await client.get(resources.killSwitches, { namespace, name });
    return killSwitch === undefined || killSwitch.metadata.uid !== engaged.metadata.uid;
  });
  if (done) {
    stdout('Released: everything is as its owners want it.');
    return exit.ok;
  }
  session.stderr(
    `Not released in time; see what it waits for: kubectl guardrails status ${name} -n ${namespace}`,
  );
  return exit.failed;
}

/**
 * An API server may still see the annotation that engaged for a moment after it was removed, or not
 * yet know our kinds after a restart: then it refuses what it will accept shortly.
 */
async function askForRelease(
  { client, flags }: Session,
  { metadata: { namespace = '', name, uid } }: KillSwitch,
  reason: string,
): Promise<void> {
  const annotations = {
    [annotation.release]: reason,
    ...(flags.breakGlass && { [annotation.breakGlass]: reason }),
  };
  // Without an operator nobody else would lift the fence.
  const labels = flags.breakGlass ? { [label.releasing]: 'true' } : {};
  const deadline = performance.now() + Math.min(flags.timeoutMs, 10_000);
  for (;;) {
    try {
      await stamped(client, releaseStampPolicyName, (releasedBy) =>
        client.mergePatch(
          resources.killSwitches,
          { namespace, name },
          {
            metadata: {
              uid,
              annotations: {
                ...annotations,
                ...(releasedBy !== undefined && { [annotation.releasedBy]: releasedBy }),
              },
              labels,
            },
          },
        ),
      );
      return;
    } catch (error) {
      if (performance.now() > deadline || !(await isPassing(error))) throw error;
      await delay(250);
    }
  }

  async function isPassing(error: unknown): Promise<boolean> {
    if (!(error instanceof ApiError)) return false;
    if (error.message.includes('paramKind')) return true;
    if (!error.message.includes(policyName('kill-switch-release-blocked'))) return false;
    if (name === wholeNamespaceName) {
      return !isEngaging(await client.get(resources.namespaces, { name: namespace }));
    }
    const workflow = await client.get(resources.workflows, { namespace, name });
    const identity = await client.get(resources.automationIdentities, { namespace, name });
    return !isEngaging(workflow) && !isEngaging(identity);
  }
}

async function follow({ flags }: Session, isDone: () => Promise<boolean>): Promise<boolean> {
  const deadline = performance.now() + flags.timeoutMs;
  while (!(await isDone())) {
    if (performance.now() > deadline) return false;
    await delay(200);
  }
  return true;
}

interface StatusRow {
  namespace: string;
  name: string;
  /** Of the Workflow: Running, Held, Stopped, Stopping, Releasing, or Unknown. */
  state: string;
  reason: string;
  engagedBy: string;
  since: string;
  message: string;
}

async function status(
  { client, flags, stdout }: Session,
  name: string | undefined,
): Promise<number> {
  const scope = flags.allNamespaces ? {} : { namespace: flags.namespace };
  const [workflows, killSwitches] = await Promise.all([
    client.list(resources.workflows, scope),
    client.list(resources.killSwitches, scope),
  ]);
  const rows = statusRows(workflows, killSwitches).filter(
    (row) =>
      (name === undefined || row.name === name) &&
      // What stands there is the standing probe's, and concerns nobody in an incident.
      (!flags.allNamespaces || row.namespace !== PROBE_NAMESPACE),
  );
  if (flags.output === 'json') stdout(JSON.stringify(rows, undefined, 2));
  else if (flags.output === 'yaml') stdout(dump(rows).trimEnd());
  else if (rows.length === 0) stdout('No Workflow and no KillSwitch found.');
  else stdout(table(rows));
  return name !== undefined && rows.length === 0 ? exit.failed : exit.ok;
}

/** One row for each Workflow or KillSwitch, engaged ones first. */
export function statusRows(
  workflows: readonly Workflow[],
  killSwitches: readonly KillSwitch[],
): StatusRow[] {
  const keyOf = ({ metadata }: Workflow | KillSwitch): string =>
    `${metadata.namespace ?? ''}/${metadata.name}`;
  const engaged = new Map(killSwitches.map((killSwitch) => [keyOf(killSwitch), killSwitch]));
  const known = new Set(workflows.map(keyOf));
  const alone = killSwitches.filter((killSwitch) => !known.has(keyOf(killSwitch)));
  const rows = [...workflows, ...alone].map((object): StatusRow => {
    const killSwitch = killSwitchOver(engaged, keyOf(object));
    const { namespace = '', name } = object.metadata;
    const ready = conditionOf((killSwitch ?? object).status?.conditions, 'Ready');
    if (killSwitch === undefined) {
      const held = conditionOf(object.status?.conditions, 'Held');
      const state =
        held?.status === 'True' ? 'Held' : ready?.status === 'True' ? 'Running' : 'Unknown';
      const message = state === 'Held' ? held?.message : ready?.message;
      return {
        namespace,
        name,
        state,
        reason: '',
        engagedBy: '',
        since: '',
        message: message ?? '',
      };
    }
    return {
      namespace,
      name,
      state: ready?.reason ?? 'Engaged',
      reason: killSwitch.spec.reason,
      engagedBy: killSwitch.spec.engagedBy ?? '',
      since: killSwitch.metadata.creationTimestamp ?? '',
      message: ready?.message ?? 'No operator has worked on it yet.',
    };
  });
  const rank = ({ engagedBy }: StatusRow): number => (engagedBy === '' ? 1 : 0);
  return rows.toSorted(
    (a, b) =>
      rank(a) - rank(b) || `${a.namespace}/${a.name}`.localeCompare(`${b.namespace}/${b.name}`),
  );
}

function table(rows: readonly StatusRow[]): string {
  const header = ['NAMESPACE', 'NAME', 'STATE', 'REASON', 'ENGAGED-BY', 'SINCE', 'MESSAGE'];
  const cells = rows.map(({ namespace, name, state, reason, engagedBy, since, message }) => [
    namespace,
    name,
    state,
    reason,
    engagedBy,
    since,
    message,
  ]);
  const widths = header.map((title, column) =>
    Math.max(title.length, ...cells.map((row) => row[column]?.length ?? 0)),
  );
  return [header, ...cells]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
