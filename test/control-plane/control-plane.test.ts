import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { request } from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { startControlPlane, type Component, type ControlPlane } from './control-plane.ts';
import { isRunning } from './process.ts';
import { waitFor } from './wait.ts';

const components: Component[] = ['etcd', 'apiServer', 'controllerManager', 'scheduler', 'kwok'];

let temporary: string;
let first: ControlPlane;
let second: ControlPlane;
const lines: string[] = [];

beforeAll(async () => {
  // A folder of our own shows what is left behind, whatever else runs on this machine.
  temporary = await mkdtemp(path.join(os.tmpdir(), 'ag-cp-test-'));
  vi.stubEnv('TMPDIR', temporary);
  [first, second] = await Promise.all([
    startControlPlane({
      log: (line) => lines.push(line),
      controllerManagerQps: 500,
      audit: true,
    }),
    startControlPlane({ controllerManagerQps: 500, nodes: 2 }),
  ]);
});

afterAll(async () => {
  await Promise.all([first?.stop(), second?.stop()]);
  vi.unstubAllEnvs();
  await rm(temporary, { recursive: true });
});

/** Standard output of a kubectl call that must succeed. */
async function kubectl(controlPlane: ControlPlane, ...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await controlPlane.kubectl(args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: expect.any(String) });
  return stdout;
}

function template(annotations: Record<string, string> = {}, labels: Record<string, string> = {}) {
  return {
    metadata: { annotations, labels },
    spec: { restartPolicy: 'Never', containers: [{ name: 'main', image: 'example.com/main' }] },
  };
}

function job(name: string, annotations: Record<string, string>): object {
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name, namespace: 'default' },
    spec: { backoffLimit: 0, template: template(annotations) },
  };
}

function statusOf(server: string, ca: string, token: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}` };
    request(`${server}/api/v1/namespaces`, { ca, headers, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .once('error', reject)
      .end();
  });
}

function pidsOf(controlPlane: ControlPlane): number[] {
  return components.map((component) => controlPlane.pid(component) ?? Number.NaN);
}

describe('two control planes at a time', () => {
  test('have nothing in common', async () => {
    expect(first.server).not.toBe(second.server);
    expect(first.dataDir).not.toBe(second.dataDir);
    const own = await statusOf(first.server, first.certificateAuthority, first.adminToken);
    const foreign = await statusOf(first.server, first.certificateAuthority, second.adminToken);
    expect([own, foreign]).toEqual([200, 401]);
    await expect(
      statusOf(first.server, second.certificateAuthority, first.adminToken),
    ).rejects.toThrow(/certificate/);

    await kubectl(first, 'create', 'namespace', 'only-in-first');
    expect(await kubectl(first, 'get', 'namespaces', '-o=name')).toContain('only-in-first');
    expect(await kubectl(second, 'get', 'namespaces', '-o=name')).not.toContain('only-in-first');
  });

  test('keep their credentials to this user', async () => {
    const modes = [first.kubeconfigPath, first.dataDir].map(
      async (file) => (await stat(file)).mode & 0o077,
    );
    expect(await Promise.all(modes)).toEqual([0, 0]);
    expect(await readFile(first.kubeconfigPath, 'utf8')).not.toContain('insecure');
  });
});

describe('a cluster that works', () => {
  test('has as many nodes as asked for, ready', async () => {
    const ready = '-o=jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}';
    expect(await kubectl(second, 'get', 'nodes', ready)).toBe('True True');
  });

  test('runs the pods of a Deployment, and ends them', async () => {
    const labels = { app: 'web' };
    const { metadata, spec } = template({}, labels);
    const containers = spec.containers;
    await first.apply([
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'web', namespace: 'default' },
        spec: {
          replicas: 3,
          selector: { matchLabels: labels },
          template: { metadata, spec: { containers } },
        },
      },
    ]);
    await kubectl(first, 'rollout', 'status', 'deployment/web', '--timeout=180s');
    const phases = '-o=jsonpath={.items[*].status.phase}';
    expect(await kubectl(first, 'get', 'pods', '-l=app=web', phases)).toBe(
      'Running Running Running',
    );
    await kubectl(first, 'delete', 'deployment', 'web', '--cascade=foreground', '--timeout=180s');
    expect(await kubectl(first, 'get', 'pods', '-l=app=web', '-o=name')).toBe('');
  });

  test('runs the pod of a Job until it is deleted, or as its annotations say', async () => {
    const completes = { 'test.automationguardrails.dev/completes': 'true' };
    await first.apply([
      job('runs', {}),
      job('succeeds', {
        ...completes,
        'test.automationguardrails.dev/completes-after': '200ms',
      }),
      job('fails', { ...completes, 'test.automationguardrails.dev/exit-code': '1' }),
    ]);
    await kubectl(first, 'wait', '--for=condition=Complete', 'job/succeeds', '--timeout=180s');
    await kubectl(first, 'wait', '--for=condition=Failed', 'job/fails', '--timeout=180s');
    const running = ['--for=condition=Ready', '--timeout=180s'];
    await kubectl(first, 'wait', ...running, 'pod', '-l=job-name=runs');
    await kubectl(first, 'delete', 'job', 'runs', '--cascade=foreground', '--timeout=180s');
  });

  test('denies a ServiceAccount what no role grants', async () => {
    const stranger = { as: 'system:serviceaccount:default:stranger' };
    const { code, stderr } = await first.kubectl(['get', 'secrets'], stranger);
    expect(code).toBe(1);
    expect(stderr).toContain('Forbidden');
  });

  test('refuses a pod whose ServiceAccount does not exist', async () => {
    const { spec } = template();
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'stranger', namespace: 'default' },
      spec: { ...spec, serviceAccountName: 'stranger' },
    };
    await expect(first.apply([pod])).rejects.toThrow(/serviceaccount "stranger" not found/);
  });

  test('serves MutatingAdmissionPolicy v1', async () => {
    const resources = await kubectl(first, 'get', '--raw=/apis/admissionregistration.k8s.io/v1');
    expect(resources).toContain('"kind":"MutatingAdmissionPolicy"');
  });

  test('logs who did what', async () => {
    const audit = await readFile(first.auditLogPath, 'utf8');
    for (const user of ['admin', 'kwok', 'system:kube-scheduler']) {
      expect(audit).toContain(`"username":"${user}"`);
    }
    expect(audit).toMatch(/"username":"system:serviceaccount:kube-system:[a-z-]+controller"/);
    expect(existsSync(second.auditLogPath)).toBe(false);
  });
});

describe('components that end', () => {
  test('a restart of the API server keeps address and data', async () => {
    const { server } = first;
    const before = first.pid('apiServer');
    await kubectl(first, 'create', 'configmap', 'kept', '--from-literal=key=value');
    await first.restartApiServer();
    expect(first.server).toBe(server);
    expect(first.pid('apiServer')).not.toBe(before);
    const value = '-o=jsonpath={.data.key}';
    expect(await kubectl(first, 'get', 'configmap', 'kept', value)).toBe('value');
  });

  test('a kwok that starts again takes over the nodes', async () => {
    await first.stopComponent('kwok', 'SIGKILL');
    expect(first.pid('kwok')).toBeUndefined();
    await first.startComponent('kwok');
    await kubectl(first, 'run', 'after', '--image=example.com/main', '--restart=Never');
    await kubectl(first, 'wait', '--for=condition=Ready', 'pod/after', '--timeout=180s');
  });

  test('an unexpected end is reported, and can be mended', async () => {
    first.signalComponent('scheduler', 'SIGKILL');
    await waitFor('the report', () =>
      lines.some((line) => line.startsWith('Error: scheduler ended: SIGKILL')),
    );
    await first.startComponent('scheduler');
    await expect(first.startComponent('scheduler')).rejects.toThrow('already runs');
  });

  test('a start that fails says why and leaves nothing behind', async () => {
    const before = await readdir(temporary);
    const start = startControlPlane({ apiServerArgs: ['--etcd-servers-overrides=nonsense'] });
    await expect(start).rejects.toThrow(
      /apiServer ended: exit code 1[^]*apiServer\.log[^]*must be of format/,
    );
    expect(await readdir(temporary)).toEqual(before);
  });
});

describe('the end', () => {
  test('stop leaves no process and no folder', async () => {
    const pids = pidsOf(second);
    expect(pids.every(isRunning)).toBe(true);
    await Promise.all([second.stop(), second.stop()]);
    expect(pids.filter(isRunning)).toEqual([]);
    expect(existsSync(second.dataDir)).toBe(false);
  });

  // SIGKILL cannot be handled; `end` is a program that forgets to stop its control plane.
  test.each(['SIGKILL', 'SIGTERM', 'end'] as const)(
    'a parent that ends by %s leaves no process and no folder',
    async (how) => {
      const { child, pids, dataDir } = await startInAnotherProcess();
      expect(pids.every(isRunning)).toBe(true);
      if (how === 'end') child.stdin.end();
      else child.kill(how);
      await waitFor('the processes to end', () => !pids.some(isRunning));
      await waitFor('the folder to go', () => !existsSync(dataDir));
      await waitFor('its end', () => child.exitCode !== null || child.signalCode !== null);
      expect([child.exitCode, child.signalCode]).toEqual(how === 'end' ? [0, null] : [null, how]);
    },
  );
});

/** A program that starts a control plane, tells of it, and runs until its input ends. */
async function startInAnotherProcess() {
  const modulePath = path.join(import.meta.dirname, 'control-plane.ts');
  const script = `
    const { startControlPlane } = await import(${JSON.stringify(modulePath)});
    const controlPlane = await startControlPlane({ controllerManagerQps: 500 });
    const pids = ${JSON.stringify(components)}.map((name) => controlPlane.pid(name));
    console.log(JSON.stringify({ pids, dataDir: controlPlane.dataDir }));
    process.stdin.resume();`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const told: unknown = JSON.parse(line);
    if (isTold(told)) return { child, ...told };
  }
  throw new Error('the program ended before its control plane was ready');
}

function isTold(value: unknown): value is { pids: number[]; dataDir: string } {
  return typeof value === 'object' && value !== null && 'pids' in value && 'dataDir' in value;
}
