import { parseArgs, type ParseArgsOptionDescriptor } from 'node:util';
import { ApiServerClient } from '../runtime/client.ts';
import { messageOf } from '../runtime/errors.ts';
import { PooledKubeConfig } from '../runtime/kube-config.ts';
import { resources } from '../api/resources.ts';
import { exit, UsageError, type Command, type Session } from './command.ts';
import { acknowledgeCommand } from './commands/acknowledge.ts';
import { approvalsCommand } from './commands/approvals.ts';
import { approveCommand, rejectCommand } from './commands/approve.ts';
import { complete } from './complete.ts';
import { completionCommand } from './commands/completion.ts';
import { doctorCommand } from './commands/doctor.ts';
import { explainCommand } from './commands/explain.ts';
import { egressCommand } from './commands/egress.ts';
import { evidenceCommand } from './commands/evidence.ts';
import { diffCommand, historyCommand } from './commands/history.ts';
import { killCommand } from './commands/kill.ts';
import { probeCommand } from './commands/probe.ts';
import { releaseCommand } from './commands/release.ts';
import { promoteCommand } from './commands/promote.ts';
import { rollbackCommand } from './commands/rollback.ts';
import { rotateCommand } from './commands/rotate.ts';
import { pruneCommand, uninstallCommand } from './commands/retirement.ts';
import { reviewCommand } from './commands/review.ts';
import { statusCommand } from './commands/status.ts';
import { treeCommand } from './commands/tree.ts';
import { whoCanCommand } from './commands/who-can.ts';
import { objectNameIn } from './object-name.ts';
import { serverInfo } from './server.ts';
import {
  runsCommand,
  timelineCommand,
  whatChangedCommand,
  whoApprovedCommand,
} from './commands/questions.ts';

export interface RunOptions {
  argv: string[];
  stdout: (line: string) => void;
  stderr: (line: string) => void;
}

const commands: readonly Command[] = [
  killCommand,
  releaseCommand,
  rotateCommand,
  statusCommand,
  explainCommand,
  treeCommand,
  whoCanCommand,
  doctorCommand,
  approveCommand,
  rejectCommand,
  approvalsCommand,
  acknowledgeCommand,
  historyCommand,
  diffCommand,
  rollbackCommand,
  promoteCommand,
  reviewCommand,
  egressCommand,
  probeCommand,
  timelineCommand,
  whatChangedCommand,
  whoApprovedCommand,
  runsCommand,
  evidenceCommand,
  pruneCommand,
  uninstallCommand,
  completionCommand,
];

const commonOptions = {
  namespace: { type: 'string', short: 'n' },
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  as: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies Record<string, ParseArgsOptionDescriptor>;

/** What `--help` says of each option, in its order. */
const optionTexts = [
  ['-n, --namespace NAME', "namespace; default: the context's"],
  ['-A, --all-namespaces', 'status, approvals and review: of all namespaces'],
  ['    --reason TEXT', 'why; kept in what is created, and in the events'],
  ['    --ticket TEXT', 'approve and reject: where it was discussed'],
  ['    --hold REASON', 'acknowledge: which of several holds, as in status.holds'],
  ['    --run job/JOB', 'approve and reject: one run, of a Workflow that asks for each'],
  ['    --expires-in 8h', 'approve: how long the approval counts'],
  ['    --decision DECISION', 'review: Keep, Reduce or Revoke'],
  ['    --wait=false', "don't wait until it is done"],
  [
    '    --force',
    'kill: also where there is no Workflow of that name; uninstall: also while a kill switch is engaged, which opens it; rollback and promote: also what is applied from Git',
  ],
  [
    '    --whole-namespace',
    'kill and release: everything that runs in the namespace, instead of NAME',
  ],
  ['    --environment ENV', 'kill and release: all guarded namespaces of an environment'],
  ['    --everything', 'kill and release: all guarded namespaces'],
  ['    --cluster NAME', 'release: the ClusterKillSwitch of that name'],
  ['    --break-glass', 'release: alone, and without an operator; takes the verb break-glass'],
  ['    --emergency', 'rotate: withdraw the values before at once'],
  ['    --image IMAGE', 'probe: an image whose entry point is node; default: a distroless one'],
  [
    '    --denied ADDRESS:PORT  --allowed ADDRESS:PORT',
    "probe: destinations to try; default: the API server's Service, and the cluster's DNS",
  ],
  [
    '    --from N  --to N',
    'diff: revisions; default: what was approved last, and the newest; rollback: --to alone; promote: namespaces',
  ],
  ['    --timeout 60', 'seconds to wait'],
  ['-o, --output FORMAT', 'table, wide, json or yaml; evidence export: the file'],
  ['    --since TIME', 'a duration before now (24h), or RFC 3339'],
  ['    --between TIME,TIME', 'what-changed: from and to'],
  ['    --trusted-keys KEY,…', 'evidence verify: keys that may have signed, as in the ConfigMap'],
  [
    '    --anchors FILE',
    "evidence verify: lines of the operator's log, with heads to compare with",
  ],
  ['    --operator-namespace NAME', 'evidence export: where anchors and keys stand'],
  ['    --prometheus URL', 'evidence export: a Prometheus whose metrics of the period go in, too'],
  ['    --mark-exported', 'evidence export: say so on the segments, so that they may go'],
  ['    --kubeconfig FILE  --context NAME  --as USER', 'as in kubectl'],
  ['-h, --help', 'this text'],
] as const;

/** What `--help` prints. */
export const usage = `Keep automations inside their guardrails, and stop them.

Usage:
${columns(commands.flatMap(({ usage: lines }) => lines.map(([form, text]) => [`kubectl guardrails ${form}`, text] as const)))}

NAME is that of a Workflow and its AutomationIdentity; awf/NAME means the same.

Options:
${columns(optionTexts)}

Exit codes: 0 done, 1 refused or not done in time, 2 wrong command line.`;

/** Runs one command line. @returns the exit code */
export async function run(options: RunOptions): Promise<number> {
  const [first, ...words] = options.argv;
  if (first === '__complete') return completeLine(words, options);
  let kubeConfig: PooledKubeConfig | undefined;
  try {
    const { values, positionals } = parse(options.argv);
    const [commandName, ...names] = positionals;
    if (values['help'] === true || commandName === undefined) {
      options.stdout(usage);
      return commandName === undefined && values['help'] !== true ? exit.usage : exit.ok;
    }
    const command = commandOf(commandName);
    refuseWhatItDoesNotTake(command, values, names);
    kubeConfig = new PooledKubeConfig({ connections: 4 });
    if (command.isOffline?.(names) !== true) {
      kubeConfig.load({
        kubeconfig: textOf(values, 'kubeconfig'),
        context: textOf(values, 'context'),
      });
    }
    const userName = textOf(values, 'as');
    if (userName !== undefined) impersonate(kubeConfig, userName);
    const plain = plainNames(command, names);
    return await command.run(sessionOf(options, values, { command, names: plain, kubeConfig }));
  } catch (error) {
    options.stderr(`Error: ${messageOf(error)}`);
    if (!isUsage(error)) return exit.failed;
    options.stderr('Run kubectl guardrails --help for the commands.');
    return exit.usage;
  } finally {
    await kubeConfig?.closeConnections();
  }
}

/** Somebody waits for the key that he pressed. */
const completionTimeoutMs = 2_000;

/** What shells ask; says nothing of errors, which would end up on the command line. */
async function completeLine(words: readonly string[], { stdout }: RunOptions): Promise<number> {
  const kubeConfig = new PooledKubeConfig({ connections: 1 });
  try {
    const lines = await complete(words, {
      commands,
      commonOptions,
      workflowNames: async (namespace) => {
        kubeConfig.load({ kubeconfig: undefined, context: undefined });
        const context = kubeConfig.getContextObject(kubeConfig.getCurrentContext());
        const client = new ApiServerClient({
          kubeConfig,
          userAgent: 'kubectl-guardrails',
          timeoutMs: completionTimeoutMs,
        });
        const found = await client.list(resources.workflows, {
          namespace: namespace ?? context?.namespace ?? 'default',
        });
        return found.map(({ metadata }) => metadata.name);
      },
    });
    for (const line of lines) stdout(line);
    return exit.ok;
  } finally {
    await kubeConfig.closeConnections();
  }
}

type Values = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

function parse(argv: readonly string[]): { values: Values; positionals: string[] } {
  // parseArgs knows no --flag=false for booleans, and no -n=NAME, which kubectl takes.
  const args = argv.map((arg) =>
    arg === '--wait=false' ? '--no-wait' : arg.replace(/^(-[a-z])=/i, '$1'),
  );
  return parseArgs({
    args: args.filter((arg) => arg !== '--wait=true'),
    allowPositionals: true,
    allowNegative: true,
    options: Object.assign({}, ...commands.map(({ options }) => options), commonOptions),
  });
}

function commandOf(name: string): Command {
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) throw new UsageError(`unknown command: ${name}`);
  return command;
}

function refuseWhatItDoesNotTake(
  { name, options, maxNames = 1 }: Command,
  values: Values,
  names: readonly string[],
): void {
  const [unexpected] = names.slice(maxNames);
  if (unexpected !== undefined) throw new UsageError(`unexpected argument: ${unexpected}`);
  const unknown = Object.keys(values).find((key) => !(key in options) && !(key in commonOptions));
  if (unknown !== undefined) throw new UsageError(`${name} takes no --${unknown}`);
}

function plainNames({ readsNames = false }: Command, names: readonly string[]): readonly string[] {
  return readsNames ? names : names.map((name) => objectNameIn(name).name);
}

function textOf(values: Values, name: string): string | undefined {
  const value = values[name];
  return typeof value === 'string' ? value : undefined;
}

function sessionOf(
  { stdout, stderr }: RunOptions,
  values: Values,
  {
    command,
    names,
    kubeConfig,
  }: { command: Command; names: readonly string[]; kubeConfig: PooledKubeConfig },
): Session {
  const seconds = Number(textOf(values, 'timeout') ?? '60');
  if (!Number.isFinite(seconds) || seconds <= 0) {
    throw new UsageError('--timeout takes a number of seconds above 0');
  }
  const output = textOf(values, 'output') ?? 'table';
  const formats = ['table', 'wide', 'json', 'yaml'];
  if (command.outputIsFile !== true && !formats.includes(output)) {
    throw new UsageError('--output takes table, wide, json or yaml');
  }
  const context = kubeConfig.getContextObject(kubeConfig.getCurrentContext());
  return {
    client: new ApiServerClient({ kubeConfig, userAgent: 'kubectl-guardrails' }),
    stdout,
    stderr,
    namespace: textOf(values, 'namespace') ?? context?.namespace ?? 'default',
    names,
    option: (name) => textOf(values, name),
    flag: (name, otherwise = false) => {
      const value = values[name];
      return typeof value === 'boolean' ? value : otherwise;
    },
    timeoutMs: seconds * 1000,
    output,
    server: () => serverInfo(kubeConfig),
  };
}

function isUsage(error: unknown): boolean {
  if (error instanceof UsageError) return true;
  return (
    error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')
  );
}

function impersonate(kubeConfig: PooledKubeConfig, userName: string): void {
  const current = kubeConfig.getCurrentUser();
  kubeConfig.users = kubeConfig.users.map((user) =>
    user.name === current?.name ? { ...user, impersonateUser: userName } : user,
  );
}

/**
 * Reads a command line without running it.
 *
 * @returns the name of its command
 * @throws UsageError, or an error of `parseArgs`, that says what is wrong with it
 */
export function checkCommandLine(argv: readonly string[]): string {
  const { values, positionals } = parse(argv);
  const [name = '', ...names] = positionals;
  const command = commandOf(name);
  refuseWhatItDoesNotTake(command, values, names);
  plainNames(command, names);
  return command.name;
}

/** The page docs/reference/cli.md. */
export function cliReference(): string {
  return `<!-- Generated by \`npm run generate\` from src/cli/run.ts. Do not edit. -->

# kubectl guardrails

A plugin of kubectl that works with your kubeconfig and your rights alone. Where it finds something wrong, the exit code is 1, so that scripts can rely on it.

\`\`\`text
${usage}
\`\`\`

Completion: \`source <(kubectl guardrails completion bash)\` completes \`kubectl-guardrails\`; for \`kubectl guardrails\` itself, put the output of \`kubectl guardrails completion kubectl\` on the PATH as \`kubectl_complete-guardrails\`, executable.
`;
}

/** Two columns, the second one broken at 60 characters. */
function columns(lines: readonly (readonly [left: string, right: string])[]): string {
  const width = Math.max(...lines.map(([left]) => left.length)) + 2;
  return lines
    .map(([left, right]) => {
      const broken = right.replaceAll(/(.{1,60})(?:\s+|$)/g, '$1\n').trimEnd();
      return `  ${left.padEnd(width)}${broken.replaceAll('\n', `\n${' '.repeat(width + 2)}`)}`;
    })
    .join('\n');
}
