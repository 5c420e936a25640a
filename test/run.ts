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
import { findArgoCd, findFlux } from './peers/programs.ts';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const bin = path.join(root, 'node_modules', '.bin');

interface Totals {
  passed: number;
  failed: number;
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

function run(command: string[]): Promise<number> {
  const [program = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: root,
      stdio: 'inherit',
      env: { ...process.env, PATH: `${bin}${path.delimiter}${process.env['PATH'] ?? ''}` },
    });
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

async function runCheck({ name, command }: Check): Promise<Totals> {
  console.log(`\n── ${name}: ${command.join(' ')}`);
  const ok = (await run(command)) === 0;
  console.log(ok ? `── ${name}: ok` : `── ${name}: FAILED`);
  return { passed: ok ? 1 : 0, failed: ok ? 0 : 1 };
}

/** What takes minutes on a new machine is built here, and not within the time of a test. */
async function buildPrograms(projects: readonly string[]): Promise<Totals> {
  const needsPeers = projects.includes('peers');
  console.log(`\n── programs: control plane and Helm${needsPeers ? ', Flux and Argo CD' : ''}`);
  const log = (line: string): void => console.log(line);
  try {
    await findBinaries({ log });
    await findBinariesOf('1.35', { log });
    await findHelm(log);
    if (needsPeers) {
      await findFlux(log);
      await findArgoCd(log);
    }
    console.log('── programs: ok');
    return { passed: 1, failed: 0 };
  } catch (error) {
    console.error(error);
    return { passed: 0, failed: 1 };
  }
}

async function runProject(project: string): Promise<Totals> {
  console.log(`\n── tests: ${project}`);
  const folder = await mkdtemp(path.join(tmpdir(), 'automation-guardrails-test-'));
  const report = path.join(folder, 'report.json');
  try {
    const code = await run([
      'vitest',
      'run',
      `--project=${project}`,
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
    ]);
    const { numPassedTests, numFailedTests, numFailedTestSuites } = JSON.parse(
      await readFile(report, 'utf8'),
    ) as { numPassedTests: number; numFailedTests: number; numFailedTestSuites: number };
    // A file that doesn't load, or an unhandled error, fails no single test: count it all the same.
    const failed =
      numFailedTests > 0 ? numFailedTests : Math.max(numFailedTestSuites, code === 0 ? 0 : 1);
    return { passed: numPassedTests, failed };
  } catch (error) {
    console.error(error);
    return { passed: 0, failed: 1 };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const { values } = parseArgs({ options: { project: { type: 'string', multiple: true } } });
const totals: Totals = { passed: 0, failed: 0 };
const add = ({ passed, failed }: Totals): void => {
  totals.passed += passed;
  totals.failed += failed;
};

if (values.project === undefined) {
  for (const check of checks) add(await runCheck(check));
}
const projects = values.project ?? ['unit', 'integration'];
if (projects.some((project) => project !== 'unit')) add(await buildPrograms(projects));
for (const project of projects) add(await runProject(project));

process.exitCode = totals.failed > 0 || totals.passed === 0 ? 1 : 0;
console.log(`\n${totals.passed} passed, ${totals.failed} failed`);
