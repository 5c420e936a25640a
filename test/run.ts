/**
 * Runs everything that `npm test` promises, one step after another, and ends with the line
 * `N passed, N failed`. A step that isn't a test run (lint, types, drift) counts as one test.
 *
 * Usage: node test/run.ts [--project NAME]...   (default: checks, unit, integration)
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findBinaries, findBinariesOf } from './control-plane/binaries.ts';
import { findHelm } from './install/helm.ts';
import { findChromium } from './install/chromium.ts';
import { findPrometheus } from './install/prometheus.ts';
import { fetchSchemas } from './install/schemas.ts';
import { findTools } from './install/tools.ts';
import { findArgoCd, findFlux } from './peers/programs.ts';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const bin = path.join(root, 'node_modules', '.bin');

interface Totals {
  passed: number;
  failed: number;
  /** What failed and how, a line each. */
  failures: string[];
}

/** The part of vitest's JSON report that is read here. */
interface Report {
  numPassedTests: number;
  numFailedTests: number;
  testResults: {
    name: string;
    status: string;
    message: string;
    assertionResults: { fullName: string; status: string; failureMessages: string[] }[];
  }[];
}

interface Check {
  name: string;
  command: string[];
}

const checks: Check[] = [
  { name: 'types', command: ['tsc', '--noEmit'] },
  { name: 'lint', command: ['oxlint', '--type-aware', 'src', 'test'] },
  { name: 'format', command: ['oxfmt', '--check', 'src', 'test'] },
  { name: 'generated files', command: ['node', 'src/generate.ts', '--check'] },
];

function run(command: string[], env: NodeJS.ProcessEnv = {}): Promise<number> {
  const [program = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: root,
      stdio: 'inherit',
      env: { ...process.env, ...env, PATH: `${bin}${path.delimiter}${process.env['PATH'] ?? ''}` },
    });
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

async function runCheck({ name, command }: Check): Promise<Totals> {
  console.log(`\n── ${name}: ${command.join(' ')}`);
  const ok = (await run(command)) === 0;
  console.log(ok ? `── ${name}: ok` : `── ${name}: FAILED`);
  return ok ? passed(1) : failed(name);
}

function passed(count: number): Totals {
  return { passed: count, failed: 0, failures: [] };
}

function failed(what: string, error?: unknown): Totals {
  const why = error instanceof Error ? `: ${error.message}` : '';
  return { passed: 0, failed: 1, failures: [`${what}${why}`] };
}

/** @param folder what a file's name is relative to */
function failuresOf({ testResults }: Report, folder: string): string[] {
  return testResults.flatMap(({ name, status, message, assertionResults }) => {
    const file = path.relative(folder, name);
    const failing = assertionResults.filter((result) => result.status === 'failed');
    // A file that doesn't load, or a hook that fails, fails no single test.
    if (failing.length === 0) return status === 'failed' ? [`${file}: ${firstLine(message)}`] : [];
    return failing.map(
      ({ fullName, failureMessages: [why = ''] }) => `${file} ${fullName}: ${firstLine(why)}`,
    );
  });
}

function firstLine(text: string): string {
  return text.trim().split('\n', 1)[0]?.slice(0, 300) ?? '';
}

/** What takes minutes on a new machine is built here, and not within the time of a test. */
async function buildPrograms(projects: readonly string[]): Promise<Totals> {
  const needsPeers = projects.includes('peers');
  const needsOther = projects.includes('exhaustive');
  const more = `${needsOther ? ', Kubernetes 1.35' : ''}${needsPeers ? ', Flux and Argo CD' : ''}`;
  console.log(`\n── programs: control plane, Helm, Prometheus, Chromium and checkers${more}`);
  const log = (line: string): void => console.log(line);
  try {
    await findBinaries({ log });
    if (needsOther) await findBinariesOf('1.35', { log });
    await findHelm(log);
    await findPrometheus(log);
    await findChromium(log);
    await findTools(log);
    await fetchSchemas(log);
    if (needsPeers) {
      await findFlux(log);
      await findArgoCd(log);
    }
    console.log('── programs: ok');
    return passed(1);
  } catch (error) {
    console.error(error);
    return failed('programs', error);
  }
}

/** The integration tests, and whether the operator used in them what it may do. */
async function runIntegration(): Promise<Totals[]> {
  const recordings = await mkdtemp(path.join(tmpdir(), 'automation-guardrails-recordings-'));
  try {
    const tests = await runProject('integration', recordings);
    const command = ['node', 'test/operator/rights-check.ts', recordings];
    return [tests, await runCheck({ name: 'rights of the operator', command })];
  } finally {
    await rm(recordings, { recursive: true, force: true });
  }
}

/** @param recordings folder for the audit logs of what the operator did; none by default */
async function runProject(project: string, recordings?: string): Promise<Totals> {
  console.log(`\n── tests: ${project}`);
  const folder = await mkdtemp(path.join(tmpdir(), 'automation-guardrails-test-'));
  const report = path.join(folder, 'report.json');
  try {
    const code = await run(
      [
        'vitest',
        'run',
        `--project=${project}`,
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${report}`,
      ],
      recordings === undefined ? {} : { TEST_RECORDINGS: recordings },
    );
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by the program above
    const result = JSON.parse(await readFile(report, 'utf8')) as Report;
    const failures = failuresOf(result, root);
    // An unhandled error fails no test and no file.
    if (code !== 0 && failures.length === 0) failures.push(`${project}: vitest ended with ${code}`);
    return { passed: result.numPassedTests, failed: failures.length, failures };
  } catch (error) {
    console.error(error);
    return failed(project, error);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const { values } = parseArgs({ options: { project: { type: 'string', multiple: true } } });
const results: Totals[] = [];

if (values.project === undefined) {
  for (const check of checks) results.push(await runCheck(check));
}
const projects = values.project ?? ['unit', 'integration'];
if (projects.some((project) => project !== 'unit')) results.push(await buildPrograms(projects));
for (const project of projects) {
  if (project === 'integration') results.push(...(await runIntegration()));
  else results.push(await runProject(project));
}

const sum = (of: 'passed' | 'failed'): number =>
  results.reduce((total, result) => total + result[of], 0);
for (const failure of results.flatMap(({ failures }) => failures)) console.log(`FAILED ${failure}`);
process.exitCode = sum('failed') > 0 || sum('passed') === 0 ? 1 : 0;
console.log(`\n${sum('passed')} passed, ${sum('failed')} failed`);
