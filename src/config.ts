import { hostname } from 'node:os';
import { z } from 'zod';
import { vaultConfigOf, vaultOptions, type VaultConfig } from './config-vault.ts';
import { formatDuration, parseDuration } from './api/duration.ts';
import type { Port } from './observability/health.ts';
import { logLevels, type LogLevel } from './observability/logger.ts';

/** The command line or the environment says something that can't be meant. */
export class ConfigError extends Error {
  readonly code = 'INVALID_CONFIG';
  override readonly name = 'ConfigError';
  /** One sentence each. */
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}

/** The configuration as the operator uses it: checked, with all defaults, times in milliseconds. */
export interface Config {
  kubeconfig: string | undefined;
  context: string | undefined;
  logLevel: LogLevel;
  bindAddress: string;
  metricsPort: Port;
  healthPort: Port;
  leaderElect: boolean;
  leaseName: string;
  operatorNamespace: string;
  /** Name of this replica. */
  instance: string;
  workers: number;
  killSwitchWorkers: number;
  killSwitchParallelism: number;
  podGraceSeconds: number;
  catalogue: string | undefined;
  /** Where the operator acts, beside its own namespaces; `undefined`: everywhere. */
  namespaces: readonly string[] | undefined;
  /** The Service of the cluster's DNS. */
  clusterDns: { namespace: string; name: string };
  hubblePrometheus: string | undefined;
  watchStaleAfterMs: number;
  shutdownTimeoutMs: number;
  /** Revisions of each Workflow that are kept. */
  revisionHistoryLimit: number;
  evidence: boolean;
  evidenceSegments: number;
  evidenceRetentionMs: number;
  evidenceRequireExport: boolean;
  evidenceKeyRotationMs: number;
  /** Base URL of an OTLP/HTTP receiver. */
  evidenceOtlpEndpoint: string | undefined;
  /** Where secrets with `store: Vault` are copied to. */
  vault: VaultConfig | undefined;
}

/** What the command line asks for: to run, or to print a text and end. */
export type Command = { kind: 'run'; config: Config } | { kind: 'help' } | { kind: 'version' };

/** What the documentation says of an option, beside its name. */
export interface OptionDocs {
  description: string;
  /** What the value is, in one word. */
  value: string;
  /** As it would be written. */
  default?: string;
  /** A variable that sets it too. */
  variable?: string;
}

const text = z.string().max(4_096, 'is too long');

function objectName(maxLength: number): z.ZodType<string, string> {
  return z
    .string()
    .max(maxLength, `must have at most ${maxLength} characters`)
    .regex(
      /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/,
      'must consist of lower-case letters, digits, - and .',
    );
}

const port = z.string().transform((value, context): Port => {
  if (value === 'off') return value;
  if (/^\d{1,5}$/.test(value) && Number(value) <= 65_535) return Number(value);
  context.addIssue('must be a port from 0 to 65535, or off');
  return z.NEVER;
});

const service = z.string().transform((value, context) => {
  const [, namespace, name] =
    /^([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\/([a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)$/.exec(value) ??
    [];
  if (namespace !== undefined && name !== undefined) return { namespace, name };
  context.addIssue('must be a namespace and a Service, such as kube-system/kube-dns');
  return z.NEVER;
});

/** Namespaces that may be listed. */
const maxNamespaces = 100;

const namespaceList = z.string().transform((value, context): readonly string[] => {
  const names = [...new Set(value.split(',').map((name) => name.trim()))];
  const isName = (name: string): boolean => /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(name);
  if (names.length <= maxNamespaces && names.every(isName)) return names;
  context.addIssue(
    `must be names of namespaces, separated by commas, at most ${maxNamespaces}, such as finance,sales`,
  );
  return z.NEVER;
});

function count(least: number, most: number): z.ZodType<number, string> {
  return z.string().transform((value, context) => {
    const parsed = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
    if (parsed >= least && parsed <= most) return parsed;
    context.addIssue(`must be a whole number from ${least} to ${most}`);
    return z.NEVER;
  });
}

function duration(leastMs: number, mostMs: number): z.ZodType<number, string> {
  return z.string().transform((value, context) => {
    const parsed = parseDuration(value);
    if (parsed !== undefined && parsed >= leastMs && parsed <= mostMs) return parsed;
    const range = `${formatDuration(leastMs)} to ${formatDuration(mostMs)}`;
    context.addIssue(`must be a duration from ${range}, such as 30s or 1m30s`);
    return z.NEVER;
  });
}

const httpUrl = text.refine((value) => {
  const url = URL.parse(value);
  const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:';
  return isHttp && url.username === '' && url.password === '';
}, 'must be an http or https URL without a password');

const boolean = z
  .enum(['true', 'false'], 'must be true or false')
  .transform((value) => value === 'true');

function option<S extends z.ZodType>(schema: S, docs: OptionDocs): S {
  return schema.meta({ ...docs });
}

/** Every option once: its check, its default and its documentation. Flags and variables follow. */
const ownSchema = z.object({
  kubeconfig: option(text.optional(), {
    value: 'FILE',
    description:
      'Kubeconfig file. Without it: the files of `KUBECONFIG`, the pod’s ServiceAccount, `~/.kube/config`, whichever comes first.',
  }),
  context: option(text.optional(), {
    value: 'NAME',
    description: 'Context of the kubeconfig; without it, its current one.',
  }),
  logLevel: option(z.enum(logLevels, `must be one of ${logLevels.join(', ')}`), {
    value: 'LEVEL',
    default: 'info',
    description: `Least level that is logged: ${logLevels.join(', ')}.`,
  }),
  bindAddress: option(text, {
    value: 'ADDRESS',
    default: '0.0.0.0',
    description: 'Address on which metrics and health are served.',
  }),
  metricsPort: option(port, {
    value: 'PORT',
    default: '8080',
    description: 'Port of `/metrics`. 0 takes a free one, `off` serves none.',
  }),
  healthPort: option(port, {
    value: 'PORT',
    default: '8081',
    description: 'Port of `/healthz` and `/readyz`. 0 takes a free one, `off` serves none.',
  }),
  leaderElect: option(boolean, {
    value: 'BOOLEAN',
    default: 'true',
    description:
      'Elect a leader among the replicas. Switch it off only where there is one. Kill switches need no leader.',
  }),
  leaseName: option(objectName(253), {
    value: 'NAME',
    default: 'automation-guardrails',
    description: 'Name of the Lease by which the leader is elected.',
  }),
  operatorNamespace: option(objectName(63), {
    value: 'NAME',
    default: 'automation-guardrails',
    variable: 'POD_NAMESPACE',
    description: 'Namespace of the operator and of its Lease.',
  }),
  instance: option(
    z
      .string()
      .regex(
        /^[A-Za-z0-9]([-_.A-Za-z0-9]{0,126}[A-Za-z0-9])?$/,
        'must be the name of a pod or host',
      )
      .optional(),
    {
      value: 'NAME',
      variable: 'POD_NAME',
      description: 'Name of this replica in events, logs and the Lease; without it, the host’s.',
    },
  ),
  workers: option(count(1, 256), {
    value: 'NUMBER',
    default: '8',
    description: 'Workflows that are worked on at a time, and AutomationIdentities.',
  }),
  killSwitchWorkers: option(count(1, 256), {
    value: 'NUMBER',
    default: '16',
    description: 'Kill switches that are worked on at a time.',
  }),
  killSwitchParallelism: option(count(1, 1_024), {
    value: 'NUMBER',
    default: '64',
    description: 'Requests in flight at a time for one kill, and connections for all kills.',
  }),
  podGraceSeconds: option(count(1, 3_600), {
    value: 'SECONDS',
    default: '30',
    description:
      'Longest grace period that a pod gets when its automation is stopped, whatever it asks for itself.',
  }),
  catalogue: option(text.optional(), {
    value: 'FILE',
    description:
      'YAML file with a list of further kinds that a kill switch pauses, each with `group`, `version`, `kind`, `plural`, `serviceAccountPath`, `path` and `pausedValue`.',
  }),
  namespaces: option(namespaceList.optional(), {
    value: 'LIST',
    description:
      'Namespaces in which the operator acts, separated by commas, for an installation that has its rights in those alone. Elsewhere it says on each object that it doesn’t. Without it, it acts in every guarded namespace.',
  }),
  clusterDns: option(service, {
    value: 'NAMESPACE/NAME',
    default: 'kube-system/kube-dns',
    description:
      "Service of the cluster's DNS, which every automation may reach; `openshift-dns/dns-default` on OpenShift.",
  }),
  hubblePrometheus: option(httpUrl.optional(), {
    value: 'URL',
    description:
      "Prometheus that has Hubble's metric `hubble_drop_total` with the labels `source_namespace` and `source_workload`: Workflows say by it whether their pods try to reach what isn't listed. Without it, that is unknown.",
  }),
  watchStaleAfter: option(duration(1_000, 86_400_000), {
    value: 'DURATION',
    default: '5m',
    description:
      'Silence of a watch after which `/healthz` fails. The API server sends a sign of life about once a minute.',
  }),
  shutdownTimeout: option(duration(100, 600_000), {
    value: 'DURATION',
    default: '5s',
    description:
      'Time that work in flight gets at SIGTERM. Keep it well below the pod’s `terminationGracePeriodSeconds`.',
  }),
  revisionHistoryLimit: option(count(2, 100), {
    value: 'NUMBER',
    default: '10',
    description:
      'Revisions of each Workflow that are kept. What is in force, what was approved last and what waits for approval stay beyond that.',
  }),
  evidence: option(boolean, {
    value: 'BOOLEAN',
    default: 'true',
    description: 'Record what is done by and to each automation, in EvidenceSegments.',
  }),
  evidenceSegments: option(count(2, 1_000), {
    value: 'NUMBER',
    default: '16',
    description:
      'Segments of evidence that are kept of one automation, of at most 96 KiB each. Older ones go, and a record says so.',
  }),
  evidenceRetention: option(duration(3_600_000, 10 * 365 * 86_400_000), {
    value: 'DURATION',
    default: '2160h',
    description: 'Age at which a complete segment of evidence goes.',
  }),
  evidenceRequireExport: option(boolean, {
    value: 'BOOLEAN',
    default: 'false',
    description:
      'Keep each segment of evidence until somebody has marked it as exported, whatever its age and number.',
  }),
  evidenceKeyRotation: option(duration(3_600_000, 10 * 365 * 86_400_000), {
    value: 'DURATION',
    default: '2160h',
    description: 'Age at which the key that signs evidence is replaced. Old public keys are kept.',
  }),
  evidenceOtlpEndpoint: option(httpUrl.optional(), {
    value: 'URL',
    variable: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    description:
      'OTLP receiver to which each record of evidence is sent, too, by HTTP with JSON; `/v1/logs` is appended. Without it, none. Headers, certificates and compression come from the other variables of the OpenTelemetry specification, such as `OTEL_EXPORTER_OTLP_HEADERS`.',
  }),
});

const schema = ownSchema.extend(vaultOptions);

type OptionName = keyof typeof schema.shape;

const prefix = 'AUTOMATION_GUARDRAILS_';

const options = schema
  .keyof()
  .options.map((key) => ({ key, flag: flagOf(key), variable: variableOf(key), ...docsOf(key) }));

/**
 * Flags win over environment variables, those over defaults. An empty variable counts as not set.
 *
 * @param argv without the program's own name
 * @param env of the process
 * @throws ConfigError that lists all that is wrong
 */
export function parseConfig(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Command {
  const { values: flags, problems, command } = readFlags(argv);
  if (command !== undefined) return { kind: command };
  problems.push(...unknownVariables(env));

  const given: Partial<Record<OptionName, string>> = {};
  const sources: Partial<Record<OptionName, string>> = {};
  for (const { key, flag: flagName, variable, variables, default: standard } of options) {
    const setBy = [variable, ...variables].find((candidate) => isSet(candidate, env));
    const [value, source] =
      flags[key] !== undefined
        ? [flags[key], `--${flagName}`]
        : [setBy === undefined ? standard : env[setBy], setBy];
    if (value !== undefined) given[key] = value;
    if (source !== undefined) sources[key] = source;
  }
  const parsed = schema.safeParse(given);
  for (const { path, message } of parsed.error?.issues ?? []) {
    const key = schema.keyof().parse(path[0]);
    problems.push(
      `${sources[key] ?? key} ${message}, not ${JSON.stringify(given[key]?.slice(0, 64))}.`,
    );
  }
  if (!parsed.success || problems.length > 0) throw new ConfigError(problems);

  const { evidenceRetention, evidenceKeyRotation, ...parts } = ownSchema.parse(given);
  const { watchStaleAfter, shutdownTimeout, instance = hostname(), ...rest } = parts;
  const { kubeconfig, context, catalogue, namespaces, hubblePrometheus, evidenceOtlpEndpoint } =
    rest;
  const vault = vaultConfigOf(parsed.data);
  if (typeof vault === 'string') throw new ConfigError([vault]);
  const config: Config = {
    ...rest,
    kubeconfig,
    context,
    catalogue,
    namespaces,
    hubblePrometheus,
    evidenceOtlpEndpoint,
    instance,
    watchStaleAfterMs: watchStaleAfter,
    shutdownTimeoutMs: shutdownTimeout,
    evidenceRetentionMs: evidenceRetention,
    evidenceKeyRotationMs: evidenceKeyRotation,
    vault,
  };
  if (config.metricsPort === config.healthPort && Number(config.metricsPort) > 0) {
    throw new ConfigError(['--metrics-port and --health-port must differ.']);
  }
  return { kind: 'run', config };
}

interface Flags {
  values: Partial<Record<OptionName, string>>;
  problems: string[];
  command: 'help' | 'version' | undefined;
}

function readFlags(argv: readonly string[]): Flags {
  const read: Flags = { values: {}, problems: [], command: undefined };
  const rest = [...argv];
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    if (argument === '--help' || argument === '-h') return { ...read, command: 'help' };
    if (argument === '--version') return { ...read, command: 'version' };
    const [, name = '', inline] = /^--([^=]+)(?:=(.*))?$/s.exec(argument) ?? [];
    const known = options.find((candidate) => candidate.flag === name);
    if (known === undefined) {
      read.problems.push(unknown(argument, name));
      continue;
    }
    // A switch may stand alone, and takes no value but after `=`.
    const value = inline ?? (known.value === 'BOOLEAN' ? 'true' : valueFrom(rest));
    if (value === undefined) read.problems.push(`--${name} needs a value: ${known.value}.`);
    else if (read.values[known.key] !== undefined) read.problems.push(`--${name} is given twice.`);
    else read.values[known.key] = value;
  }
  return read;
}

/** Takes the next argument, unless it is a flag. */
function valueFrom(rest: string[]): string | undefined {
  return rest[0]?.startsWith('--') === true ? undefined : rest.shift();
}

function unknown(argument: string, name: string): string {
  if (name === '') return `Unexpected argument: ${JSON.stringify(argument)}.`;
  const near = nearest(
    name,
    options.map(({ flag: candidate }) => candidate),
  );
  return `Unknown flag: --${name}.${near === undefined ? ' See --help.' : ` Did you mean --${near}?`}`;
}

/** A typing error in a variable's name must not leave a default in force. */
function unknownVariables(env: Readonly<Record<string, string | undefined>>): string[] {
  const known = options.map(({ variable }) => variable);
  return Object.keys(env)
    .filter((key) => key.startsWith(prefix) && !known.includes(key) && !isServiceLink(key))
    .map((key) => {
      const near = nearest(key, known);
      return `Unknown environment variable: ${key}.${near === undefined ? '' : ` Did you mean ${near}?`}`;
    });
}

/** Kubernetes puts such variables into each pod for each Service of its namespace. */
function isServiceLink(key: string): boolean {
  return /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/.test(
    key,
  );
}

/**
 * A Service named `automation-guardrails-metrics` makes `AUTOMATION_GUARDRAILS_METRICS_PORT` an
 * address, which nobody wrote: it counts as not set.
 */
function isSet(variable: string, env: Readonly<Record<string, string | undefined>>): boolean {
  const value = env[variable];
  if (value === undefined || value === '') return false;
  return !(isServiceLink(variable) && /^(tcp|udp|sctp):\/\//.test(value));
}

/** The candidate that differs in the fewest letters; `undefined` where that are more than a third. */
function nearest(name: string, candidates: readonly string[]): string | undefined {
  const [best] = candidates
    .map((candidate) => ({ candidate, distance: distance(name.slice(0, 128), candidate) }))
    .toSorted((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= name.length / 3 ? best.candidate : undefined;
}

/** Of Levenshtein: letters to insert, delete or replace. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function flagOf(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function variableOf(key: string): string {
  return prefix + flagOf(key).toUpperCase().replaceAll('-', '_');
}

function docsOf(key: OptionName): {
  description: string;
  value: string;
  default: string | undefined;
  variables: string[];
} {
  const { description = '', value, default: standard, variable } = schema.shape[key].meta() ?? {};
  return {
    description,
    value: String(value),
    default: typeof standard === 'string' ? standard : undefined,
    variables: typeof variable === 'string' ? [variable] : [],
  };
}

/** The text of `--help`. */
export function helpText(): string {
  const lines = options.map(({ flag: name, value, description, default: standard }) => {
    const usage = `--${name}${value === 'BOOLEAN' ? '[=false]' : `=${value}`}`;
    const meaning = wrap(description.replaceAll('`', ''), 64);
    const ending = standard === undefined ? '' : ` Default: ${standard}.`;
    return `  ${usage}\n${wrap(meaning + ending, 72)
      .split('\n')
      .map((line) => `      ${line}`)
      .join('\n')}`;
  });
  return `Automation Guardrails, the operator.

Usage: automation-guardrails [flags]

Flags:
${lines.join('\n')}
  --version
      Print the version, and end.
  --help, -h
      Print this text, and end.

An environment variable stands in for each flag: ${variableOf('logLevel')} for --log-level.
Flags win over variables. Durations are written as 30s, 5m or 1h30m.`;
}

function wrap(sentence: string, width: number): string {
  const lines = [''];
  for (const word of sentence.split(/\s+/)) {
    const line = lines.at(-1) ?? '';
    if (line === '') lines[lines.length - 1] = word;
    else if (line.length + word.length < width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines.join('\n');
}

/** `docs/reference/configuration.md`. */
export function configurationReference(): string {
  const rows = options.map(
    ({ flag: name, variable, variables, value, default: standard, description }) => {
      const names = [variable, ...variables].map((candidate) => `\`${candidate}\``).join(', ');
      const shown = standard === undefined ? '' : `\`${standard}\``;
      return `| \`--${name}\` | ${names} | ${value.toLowerCase()} | ${shown} | ${description} |`;
    },
  );
  return `<!-- Generated by \`npm run generate\` from src/config.ts. Do not edit. -->

# Configuration

The operator takes flags and environment variables. A flag wins over its variable, and that over the default; where two variables are named, the first wins. An empty variable counts as not set.

Durations are written as in Go: \`30s\`, \`5m\`, \`1h30m\`. A switch may stand alone: \`--leader-elect\` is \`--leader-elect=true\`.

| flag | environment | value | default | meaning |
|---|---|---|---|---|
${rows.join('\n')}

\`--version\` and \`--help\` print their text and end.

An unknown flag, an unknown variable that begins with \`${prefix}\`, and a value out of its range are errors: the operator lists all of them and ends with exit code 2. The variables that Kubernetes sets for Services (\`…_SERVICE_HOST\`, \`…_PORT=tcp://…\`) are passed over, also where one has the name of an option.
`;
}
