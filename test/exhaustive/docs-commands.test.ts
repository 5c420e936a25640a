import { appendFileSync } from 'node:fs';
import { mkdtemp, rm, symlink } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { commandsOf, pages, textOf } from '../../src/docs.testing.ts';
import { waitFor } from '../control-plane/wait.ts';
import {
  closing,
  installed,
  kustomized,
  kustomizedAway,
  notRun,
  opening,
  pages as prepared,
  placeholders,
  populated,
  prometheusKinds,
  type Step,
} from '../docs/steps.ts';
import { runLine, startCluster, type Cluster } from '../e2e/cluster.ts';
import { commands as gettingStarted } from '../e2e/getting-started.ts';

const root = path.dirname(path.dirname(import.meta.dirname));

/** For people who use it, rather than for those who change it. */
const forUsers = (page: string): boolean =>
  page === 'README.md' || (page.startsWith('docs/') && !page.startsWith('docs/decisions/'));

const commandsByPage = new Map(
  pages.filter(forUsers).map((page) => [page, commandsOf(textOf(page))]),
);
const isListed = (command: string): boolean =>
  notRun.some(({ begins }) => command.startsWith(begins));

let cluster: Cluster;
let folder: string;
let stopOperator: (() => Promise<number | string>) | undefined;
/** What ran as the documentation says, with nothing around it: it needn't run again. */
const ran = new Set<string>();

/** A machine may be slow: what waits does so for minutes where the line doesn't say how long. */
function patient(line: string): string {
  return line
    .replaceAll(/\bkubectl guardrails (kill|release|rotate)\b(?!.*--timeout)/g, '$& --timeout=300')
    .replaceAll(/\bkubectl wait\b(?!.*--timeout)/g, '$& --timeout=300s');
}

const shell = (line: string, env: NodeJS.ProcessEnv = {}): ReturnType<typeof runLine> =>
  runLine(cluster, patient(line), { cwd: folder, env: { KUBE_EDITOR: 'true', ...env } });

/** Runs lines that have to work. */
async function prepare(lines: readonly string[] = []): Promise<void> {
  for (const line of lines) {
    const { code, output } = await shell(line);
    if (code !== 0) throw new Error(`${line}\n${output}`);
  }
}

/** Runs lines that stand on pages as well. */
async function make(lines: readonly string[]): Promise<void> {
  await prepare(lines);
  for (const line of lines) ran.add(line);
}

/** A kill waits for the tokens to be dead, which takes 13 s each time; the README's shows it. */
const isWaited = (command: string): boolean =>
  !command.startsWith('kubectl guardrails kill ') ||
  command.includes('--wait=') ||
  (commandsByPage.get('README.md') ?? []).includes(command);

function filled(command: string, { with: own = {}, add }: Step): string {
  let text = isWaited(command) ? command : `${command} --wait=false`;
  for (const [name, value] of Object.entries({ ...placeholders, ...own })) {
    // `NAME:.metadata.name` is a column.
    const pattern = /^\w+$/.test(name) ? new RegExp(`\\b${name}\\b(?!:\\.)`, 'g') : name;
    text = text.replaceAll(pattern, () => value);
  }
  return add === undefined ? text : `${text} ${add}`;
}

/** What only looks may be early: the operator comes a moment after what was done. */
const looks =
  /^kubectl (-n \S+ )?(get|describe|events|wait|guardrails (status|explain|tree|doctor|approvals|history|diff|review \S+ -n \S+$|egress|timeline|who-|runs|what))/;

/** A command of a page, as it is run. */
interface Run {
  readonly command: string;
  readonly line: string;
  /** `undefined` where nothing has to be around it. */
  readonly step: Step | undefined;
}

/** @returns what is wrong with it */
async function problemOf({ line, step = {} }: Run): Promise<string | undefined> {
  const env: NodeJS.ProcessEnv = {};
  for (const [name, source] of Object.entries(step.env ?? {})) {
    env[name] = (await shell(source)).output.trim();
  }
  let outcome = { code: 1, output: '' };
  const isRight = async (): Promise<boolean> => {
    outcome = await shell(line, env);
    return outcome.code === (step.exit ?? 0) && outcome.output.includes(step.says ?? '');
  };
  if (await isRight()) return undefined;
  if (looks.test(line)) {
    const isLate = waitFor(line, isRight, { timeoutMs: 240_000, intervalMs: 500 });
    if (await isLate.catch(() => false)) return undefined;
  }
  return `${line}\nexit code ${outcome.code}\n${outcome.output.slice(-2000)}`;
}

/** What is left to run of a page, in its order. */
function runsOf(page: string): Run[] {
  const { steps = {} } = prepared[page] ?? {};
  return (commandsByPage.get(page) ?? []).flatMap((command) => {
    if (isListed(command)) return [];
    // test/e2e/getting-started.ts runs those, on two versions of Kubernetes.
    if (page === 'docs/getting-started.md' && gettingStarted.includes(command)) return [];
    const step = steps[command];
    const line = filled(command, step ?? {});
    if (ran.has(line)) return [];
    ran.add(line);
    return [{ command, line, step }];
  });
}

/** Commands that follow one another and only look are run at once, four at most. */
function together(runs: readonly Run[]): Run[][] {
  const groups: Run[][] = [];
  const isFree = ({ line, step }: Run): boolean => step === undefined && looks.test(line);
  for (const run of runs) {
    const last = groups.at(-1);
    if (last !== undefined && last.length < 4 && [...last, run].every(isFree)) last.push(run);
    else groups.push([run]);
  }
  return groups;
}

async function runPage(page: string): Promise<void> {
  const { before, after } = prepared[page] ?? {};
  await prepare(before);
  const problems: (string | undefined)[] = [];
  for (const group of together(runsOf(page))) {
    for (const { step } of group) await prepare(step?.before);
    problems.push(...(await Promise.all(group.map(problemOf))));
    for (const { command, step } of group) {
      await prepare(step?.after);
      await afterCommand(command);
    }
  }
  await prepare(after);
  expect(problems.filter((problem) => problem !== undefined)).toEqual([]);
}

/** The operator goes when what it works with goes. */
async function afterCommand(command: string): Promise<void> {
  if (command !== 'kubectl guardrails uninstall') return;
  await stopOperator?.();
  stopOperator = undefined;
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-docs-'));
  cluster = await startCluster('1.36', (line) => console.log(line));
  for (const name of ['charts', 'config', 'crds']) {
    await symlink(path.join(root, name), path.join(folder, name));
  }
}, 900_000);

afterAll(async () => {
  await stopOperator?.();
  await cluster?.stop();
  await rm(folder, { recursive: true, force: true });
});

it('what is prepared, and what is not run, stands on a page', () => {
  const all = [...commandsByPage.values()].flat();
  expect(notRun.filter(({ begins }) => !all.some((one) => one.startsWith(begins)))).toEqual([]);
  for (const [page, { steps = {} }] of Object.entries(prepared)) {
    const there = commandsByPage.get(page) ?? [];
    expect(
      Object.keys(steps).filter((command) => !there.includes(command)),
      page,
    ).toEqual([]);
  }
  const made = [...kustomized, ...kustomizedAway, ...installed];
  expect(made.filter((command) => !all.includes(command))).toEqual([]);
});

it.each(opening)('%s', runPage);

it('an installation by Helm follows one by kustomize', async () => {
  await prepare(prometheusKinds);
  await make(kustomized);
  await prepare(['kubectl guardrails uninstall']);
  await make(kustomizedAway);
  await prepare([
    // A namespace goes late when kinds of what is in it have gone before.
    'kubectl delete -k config/probe --ignore-not-found',
    'kubectl delete -k config/with-monitoring --ignore-not-found',
  ]);
  await make(installed);
  const logFile = path.join(folder, 'operator.log');
  stopOperator = await cluster.runOperator((line) => appendFileSync(logFile, `${line}\n`));
  await waitFor('the first answer of the policies', async () => {
    const canary = 'ksw/canary -n automation-guardrails-probe --for=condition=Ready';
    return (await shell(`kubectl wait ${canary} --timeout=10s`)).code === 0;
  });
  await prepare(['kubectl config set-context --current --namespace=finance']);
  await make(populated);
});

const rest = [...commandsByPage.keys()].filter(
  (page) => !opening.includes(page) && !closing.includes(page),
);
it.each(rest)('%s', runPage);

it.each(closing)('%s', runPage);
