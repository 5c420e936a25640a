import { hostname } from 'node:os';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { parseDuration } from './api/duration.ts';
import { logLevels } from './observability/logger.ts';

/** The command line or the environment says something that can't be meant. */
export class ConfigError extends Error {
  readonly code = 'INVALID_CONFIG';
  override readonly name = 'ConfigError';
}

const text = z.string().min(1);
const port = z.coerce.number().int().min(0).max(65_535);
const count = z.coerce.number().int().min(1).max(256);
const seconds = z.coerce.number().int().min(1).max(3_600);
const flag = z
  .enum(['true', 'false'])
  .or(z.boolean())
  .transform((value) => value === true || value === 'true');
const duration = z.string().transform((value, context) => {
  const milliseconds = parseDuration(value);
  if (milliseconds !== undefined && milliseconds > 0) return milliseconds;
  context.addIssue({ code: 'custom', message: 'must be a duration above 0, such as 30s or 5m' });
  return z.NEVER;
});

interface Option {
  schema: z.ZodType;
  /** As it would be written; `undefined` where there is none. */
  default?: string;
  description: string;
  /** Variables that say it too, besides the one made of the flag's name. */
  environment?: string;
}

/** Every option once: flag, environment variable, default, check and documentation. */
const options = {
  kubeconfig: {
    schema: text.optional(),
    description:
      'Kubeconfig file. Default: `KUBECONFIG`, the pod’s ServiceAccount, `~/.kube/config`.',
  },
  context: { schema: text.optional(), description: 'Context of the kubeconfig.' },
  'log-level': {
    schema: z.enum(logLevels),
    default: 'info',
    description: `One of ${logLevels.join(', ')}.`,
  },
  'bind-address': {
    schema: text,
    default: '0.0.0.0',
    description: 'Address on which metrics and health are served.',
  },
  'metrics-port': {
    schema: port,
    default: '8080',
    description: 'Port of `/metrics`; 0 takes a free one.',
  },
  'health-port': {
    schema: port,
    default: '8081',
    description: 'Port of `/healthz` and `/readyz`; 0 takes a free one.',
  },
  'leader-elect': {
    schema: flag,
    default: 'true',
    description: 'Elect a leader among the replicas. Kill switches need none.',
  },
  'lease-name': {
    schema: text,
    default: 'automation-guardrails',
    description: 'Name of the Lease.',
  },
  'operator-namespace': {
    schema: text,
    default: 'automation-guardrails',
    description: 'Namespace of the operator and its Lease.',
    environment: 'POD_NAMESPACE',
  },
  instance: {
    schema: text.optional(),
    description: 'Name of this replica. Default: the host’s name.',
    environment: 'POD_NAME',
  },
  workers: {
    schema: count,
    default: '8',
    description: 'Workers of each of the controllers of Workflows and AutomationIdentities.',
  },
  'kill-switch-workers': {
    schema: count,
    default: '16',
    description: 'Workers of the kill-switch controller.',
  },
  'kill-switch-parallelism': {
    schema: count,
    default: '64',
    description: 'Requests in flight at a time for one kill, and connections for kills.',
  },
  'pod-grace-seconds': {
    schema: seconds,
    default: '30',
    description: 'Longest grace period in seconds that a pod gets when its automation is stopped.',
  },
  'watch-stale-after': {
    schema: duration,
    default: '5m',
    description:
      'Silence of a watch after which `/healthz` fails. The API server sends a sign of life each minute.',
  },
  'shutdown-timeout': {
    schema: duration,
    default: '5s',
    description: 'Time that work in flight gets at SIGTERM.',
  },
} as const satisfies Record<string, Option>;

type OptionName = keyof typeof options;

export interface Config {
  kubeconfig: string | undefined;
  context: string | undefined;
  logLevel: (typeof logLevels)[number];
  bindAddress: string;
  metricsPort: number;
  healthPort: number;
  leaderElect: boolean;
  leaseName: string;
  operatorNamespace: string;
  instance: string;
  workers: number;
  killSwitchWorkers: number;
  killSwitchParallelism: number;
  podGraceSeconds: number;
  watchStaleAfterMs: number;
  shutdownTimeoutMs: number;
}

/** What the command line asks for: to run, or to print a text and end. */
export type Command = { kind: 'run'; config: Config } | { kind: 'help' } | { kind: 'version' };

/**
 * Flags win over environment variables, those over defaults.
 *
 * @param argv without the program's own name
 * @throws ConfigError that lists all that is wrong
 */
export function parseConfig(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Command {
  const flags = readFlags(argv);
  if (flags['help'] !== undefined) return { kind: 'help' };
  if (flags['version'] !== undefined) return { kind: 'version' };
  const problems: string[] = [];
  const values: Partial<Record<OptionName, unknown>> = {};
  for (const [name, option] of Object.entries(options) as [OptionName, Option][]) {
    const extra = option.environment === undefined ? undefined : env[option.environment];
    const given = flags[name] ?? env[variableOf(name)] ?? extra ?? option.default;
    const result = option.schema.safeParse(given === '' ? option.default : given);
    if (result.success) values[name] = result.data;
    else
      problems.push(
        `--${name} (${variableOf(name)}): ${result.error.issues.map(({ message }) => message).join('; ')}`,
      );
  }
  if (problems.length > 0) throw new ConfigError(problems.join('\n'));
  return { kind: 'run', config: compile(values) };
}

function readFlags(argv: readonly string[]): Record<string, string | boolean | undefined> {
  const known = Object.fromEntries(
    Object.keys(options).map((name) => [name, { type: 'string' as const }]),
  );
  try {
    return parseArgs({
      // A switch may stand alone: --leader-elect is --leader-elect=true.
      args: argv.map((arg) => (arg === '--leader-elect' ? '--leader-elect=true' : arg)),
      options: { ...known, help: { type: 'boolean', short: 'h' }, version: { type: 'boolean' } },
    }).values;
  } catch (error) {
    throw new ConfigError(
      `${error instanceof Error ? error.message : String(error)}\nRun with --help for the flags.`,
    );
  }
}

function compile(values: Partial<Record<OptionName, unknown>>): Config {
  const value = <T>(name: OptionName): T => values[name] as T;
  return {
    kubeconfig: value('kubeconfig'),
    context: value('context'),
    logLevel: value('log-level'),
    bindAddress: value('bind-address'),
    metricsPort: value('metrics-port'),
    healthPort: value('health-port'),
    leaderElect: value('leader-elect'),
    leaseName: value('lease-name'),
    operatorNamespace: value('operator-namespace'),
    instance: value<string | undefined>('instance') ?? hostname(),
    workers: value('workers'),
    killSwitchWorkers: value('kill-switch-workers'),
    killSwitchParallelism: value('kill-switch-parallelism'),
    podGraceSeconds: value('pod-grace-seconds'),
    watchStaleAfterMs: value('watch-stale-after'),
    shutdownTimeoutMs: value('shutdown-timeout'),
  };
}

function variableOf(name: string): string {
  return `AUTOMATION_GUARDRAILS_${name.toUpperCase().replaceAll('-', '_')}`;
}

/** The text of `--help`. */
export function helpText(): string {
  const lines = (Object.entries(options) as [OptionName, Option][]).map(
    ([name, { description, default: standard }]) =>
      `  --${name.padEnd(26)} ${description}${standard === undefined ? '' : ` (default ${standard})`}`,
  );
  return `Automation Guardrails, the operator.

Usage: automation-guardrails [flags]

${lines.join('\n')}
  --version                    Print the version.
  --help                       Print this text.

Each flag can be set by an environment variable: --log-level by ${variableOf('log-level')}.`;
}

/** docs/reference/configuration.md */
export function configurationReference(): string {
  const rows = (Object.entries(options) as [OptionName, Option][]).map(
    ([name, { description, default: standard, environment }]) => {
      const variables = [variableOf(name), ...(environment === undefined ? [] : [environment])];
      return `| \`--${name}\` | ${variables.map((variable) => `\`${variable}\``).join(', ')} | ${standard === undefined ? '' : `\`${standard}\``} | ${description} |`;
    },
  );
  return `<!-- Generated by \`npm run generate\`. Do not edit. -->

# Configuration

Flags win over environment variables, those over defaults. Durations are Go-style: \`30s\`, \`5m\`, \`1h30m\`.

| flag | environment | default | meaning |
|---|---|---|---|
${rows.join('\n')}
`;
}
