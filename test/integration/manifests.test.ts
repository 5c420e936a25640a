import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { loadAll } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findBinaries } from '../control-plane/binaries.ts';
import { findHelm } from '../install/helm.ts';
import { minors, writeSchemas, type Minor } from '../install/schemas.ts';
import { findTools } from '../install/tools.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const chart = path.join(root, 'charts/automation-guardrails');
const everything =
  '--set=prometheusRule.enabled=true,serviceMonitor.enabled=true,dashboard.enabled=true';

let helm: string;
let kubectl: string;
let kubeconform: string;
let actionlint: string;
let folder: string;

beforeAll(async () => {
  const log = (line: string): void => console.log(line);
  helm = await findHelm(log);
  ({ kubectl } = await findBinaries({ log }));
  ({ kubeconform, actionlint } = await findTools(log));
  folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-schemas-'));
}, 600_000);

afterAll(() => rm(folder, { recursive: true, force: true }));

function run(
  program: string,
  args: readonly string[],
  input = '',
): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
    }
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? 1, output }));
    child.stdin.end(input);
  });
}

async function render(program: string, args: readonly string[]): Promise<string> {
  const { code, output } = await run(program, args);
  expect(code, output).toBe(0);
  return output;
}

/** What kubeconform finds wrong with these manifests on that Kubernetes, a line each. */
async function faults(minor: Minor, manifests: string): Promise<string[]> {
  const kinds = new Set(
    loadAll(manifests).flatMap((object) => (object as { kind?: string } | null)?.kind ?? []),
  );
  const target = await mkdtemp(path.join(folder, `${minor}-`));
  const location = await writeSchemas(minor, { kinds, folder: target, crds: 'crds' });
  const { code, output } = await run(
    kubeconform,
    ['-strict', '-summary', `-schema-location=${location}`],
    manifests,
  );
  const lines = output.trim().split('\n');
  const summary = lines.pop() ?? '';
  // A kind that is left out would be no fault.
  expect(summary).toContain('Skipped: 0');
  expect(code === 0).toBe(lines.length === 0);
  return lines;
}

const template = (minor: Minor, ...flags: string[]): Promise<string> =>
  render(helm, [
    'template',
    'automation-guardrails',
    chart,
    '--namespace=automation-guardrails',
    `--kube-version=${minor}.0`,
    ...(minor === '1.36'
      ? ['--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy']
      : []),
    ...flags,
  ]);

describe('the chart', () => {
  it.each(minors)('renders what Kubernetes %s knows, field by field', async (minor) => {
    expect(await faults(minor, await template(minor, everything))).toEqual([]);
  });

  it('would be found to have a field that no Kubernetes knows', async () => {
    const manifests = await template('1.36');
    const misspelt = manifests.replace('readOnlyRootFilesystem', 'readonlyRootFilesystem');
    expect(misspelt).not.toBe(manifests);
    const found = await faults('1.36', misspelt);
    expect(found).toHaveLength(1);
    expect(found[0]).toContain('readonlyRootFilesystem');
  });

  it('would be found to have a kind that this Kubernetes lacks', async () => {
    const found = await faults('1.35', await template('1.36'));
    expect(found.length).toBeGreaterThan(5);
    expect(found.filter((line) => !line.includes('MutatingAdmissionPolicy'))).toEqual([]);
  });
});

describe('the kustomizations', () => {
  it.each([
    ['default', '1.36'],
    ['with-monitoring', '1.36'],
    ['without-mutation', '1.30'],
    ['without-mutation', '1.35'],
    ['samples', '1.30'],
    ['samples', '1.36'],
    ['overlays/high-availability', '1.36'],
    ['overlays/without-prometheus', '1.36'],
    ['overlays/namespaced', '1.36'],
  ] as const)('config/%s is what Kubernetes %s knows', async (name, minor) => {
    const manifests = await render(kubectl, ['kustomize', path.join('config', name)]);
    expect(await faults(minor, manifests)).toEqual([]);
  });
});

describe('an overlay and the values of the same name', () => {
  interface Manifest {
    kind: string;
    metadata: { name: string; namespace?: string };
    rules?: unknown;
    spec?: { replicas: number; template: { spec: Record<string, unknown> } };
  }
  const manifestsOf = (text: string): Manifest[] =>
    loadAll(text).filter((object): object is Manifest => object !== null && object !== undefined);

  /** What decides where the replicas run, and where they act; the chart selects by its release, too. */
  const placement = (manifests: Manifest[]): unknown => {
    const { spec } = manifests.find(({ kind }) => kind === 'Deployment') ?? {};
    const { priorityClassName, topologySpreadConstraints, containers } = spec?.template.spec ?? {};
    const [{ env } = { env: [] }] = (containers ?? []) as { env?: unknown }[];
    const text = JSON.stringify([
      spec?.replicas,
      priorityClassName,
      topologySpreadConstraints,
      env,
    ]);
    return JSON.parse(text, (key, value: unknown) =>
      key === 'app.kubernetes.io/instance' ? undefined : value,
    );
  };

  it.each([
    ['high-availability', ['-f', `${chart}/examples/high-availability.yaml`], 3],
    ['without-prometheus', ['--set=dashboard.enabled=true'], 2],
    ['namespaced', ['--set=namespaces={finance}'], 2],
  ])('%s: render the same objects, and place the replicas alike', async (name, flags, replicas) => {
    const overlay = path.join('config/overlays', name);
    const kustomized = manifestsOf(await render(kubectl, ['kustomize', overlay]));
    const templated = manifestsOf(await template('1.36', ...flags));
    const identify = ({ kind, metadata, rules }: Manifest): string =>
      `${kind} ${metadata.namespace ?? ''}/${metadata.name} ${JSON.stringify(rules ?? '')}`;
    // Helm creates the namespace of a release itself.
    const expected = kustomized
      .map(identify)
      .filter((of) => !of.startsWith('Namespace /automation-guardrails '));
    expect(templated.map(identify).toSorted()).toEqual(expected.toSorted());
    expect(placement(templated)).toEqual(placement(kustomized));
    expect(placement(templated)).toMatchObject({ 0: replicas });
  });
});

describe('the GitHub workflows', () => {
  it('have no fault that can be found, and only actions that nobody can exchange', async () => {
    const linted = await run(actionlint, ['-no-color', '-shellcheck=', '-pyflakes=']);
    expect(linted.code, linted.output).toBe(0);
    const workflows = path.join(root, '.github/workflows');
    const files = await readdir(workflows);
    expect(files.length).toBeGreaterThan(1);
    for (const file of files) {
      const text = await readFile(path.join(workflows, file), 'utf8');
      const actions = [...text.matchAll(/uses: (.+)/g)].map(([, action]) => action);
      expect(actions.length).toBeGreaterThan(0);
      for (const action of actions) expect(action).toMatch(/^[\w/-]+@[0-9a-f]{40} # v\d/);
    }
  });
});
