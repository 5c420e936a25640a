import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CoreV1Api } from '@kubernetes/client-node';
import { dump } from 'js-yaml';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { FakeApiServer } from '../../test/fault/fake-api-server.ts';
import { resources } from '../api/resources.ts';
import { ApiServerClient } from './client.ts';
import { KubeConfigError, PooledKubeConfig } from './kube-config.ts';

describe('PooledKubeConfig', () => {
  let server: FakeApiServer;
  let now = 0;
  let config: PooledKubeConfig;

  beforeEach(async () => {
    server = await new FakeApiServer().start();
    server.put(resources.namespaces, { metadata: { name: 'default' } });
    now = 0;
    config = server.kubeConfig({ clock: () => now });
  });

  afterEach(async () => {
    await config.closeConnections();
    await server.stop();
  });

  function client(connections?: number): ApiServerClient {
    return new ApiServerClient({
      kubeConfig: config,
      userAgent: 'test/1',
      ...(connections !== undefined && { connections }),
    });
  }

  test('100 calls one after another share a connection or two', async () => {
    const ours = client();
    const theirs = config.makeApiClient(CoreV1Api);

    for (let call = 0; call < 50; call++) {
      await ours.get(resources.namespaces, { name: 'default' });
      await theirs.readNamespace({ name: 'default' });
    }

    expect(server.requests).toHaveLength(100);
    // One for each of the two clients.
    expect(server.connections).toBeLessThanOrEqual(2);
  });

  test('parallel calls stay within the limit of their lane', async () => {
    const lane = client(3);

    await Promise.all(
      Array.from({ length: 40 }, () => lane.get(resources.namespaces, { name: 'default' })),
    );

    expect(server.requests).toHaveLength(40);
    expect(server.connections).toBeLessThanOrEqual(3);
  });

  test('a lane that is stuck does not hold up another', async () => {
    const stuck = client(1);
    const free = client(1);
    server.faults.next('get', { kind: 'silence' });
    const hanging = stuck.get(resources.namespaces, { name: 'default' });
    await vi.waitUntil(() => server.requests.length === 1);

    expect(await free.get(resources.namespaces, { name: 'default' })).toBeDefined();
    await stuck.close();
    await expect(hanging).rejects.toMatchObject({ code: 'KUBE_API_UNREACHABLE' });
  });

  test('a rotated token is used after a second', async () => {
    const ours = client();
    await ours.get(resources.namespaces, { name: 'default' });
    config.users = [{ name: 'fake', token: 'rotated' }];
    await ours.get(resources.namespaces, { name: 'default' });
    now += 1_001;
    await ours.get(resources.namespaces, { name: 'default' });

    expect(server.requests.map(({ headers }) => headers.authorization)).toEqual([
      'Bearer fake-token',
      'Bearer fake-token',
      'Bearer rotated',
    ]);
  });

  test('a rotated certificate is used by new connections, once for all calls', async () => {
    const ours = client(1);
    await ours.get(resources.namespaces, { name: 'default' });
    config.users = [{ name: 'fake', certData: 'Y2VydA==', keyData: 'a2V5' }];
    for (let call = 0; call < 20; call++) {
      now += 1_001;
      await ours.get(resources.namespaces, { name: 'default' });
    }

    expect(server.connections).toBe(2);
  });

  test('a credential plugin runs once for calls that come together', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'kube-config-'));
    try {
      const script = path.join(folder, 'plugin.mjs');
      const runs = path.join(folder, 'runs');
      await writeFile(
        script,
        `import { appendFileSync } from 'node:fs';
         appendFileSync(${JSON.stringify(runs)}, 'x');
         console.log(JSON.stringify({ apiVersion: 'client.authentication.k8s.io/v1',
           kind: 'ExecCredential', status: { token: 'from-plugin' } }));`,
      );
      config.users = [
        { name: 'fake', exec: { command: process.execPath, args: [script], env: [] } },
      ];
      const ours = client();

      await Promise.all(
        Array.from({ length: 10 }, () => ours.get(resources.namespaces, { name: 'default' })),
      );

      expect(new Set(server.requests.map(({ headers }) => headers.authorization))).toEqual(
        new Set(['Bearer from-plugin']),
      );
      expect(await readFile(runs, 'utf8')).toBe('x');
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describe('load', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'kube-config-'));
    vi.stubEnv('HOME', folder);
    vi.stubEnv('KUBECONFIG', '');
    vi.stubEnv('KUBERNETES_SERVICE_HOST', '');
  });

  afterEach(async () => {
    vi.unstubAllEnvs();
    await rm(folder, { recursive: true, force: true });
  });

  async function kubeconfigFile(): Promise<string> {
    const file = path.join(folder, 'config.yaml');
    const names = ['one', 'two'];
    await writeFile(
      file,
      dump({
        apiVersion: 'v1',
        kind: 'Config',
        'current-context': 'one',
        contexts: [
          ...names.map((name) => ({ name, context: { cluster: name, user: name } })),
          { name: 'broken', context: { cluster: 'nowhere', user: 'one' } },
        ],
        clusters: names.map((name) => ({
          name,
          cluster: { server: `https://${name}.example:6443/` },
        })),
        users: names.map((name) => ({ name, user: { token: name } })),
      }),
    );
    return file;
  }

  test('takes the named file and its current context', async () => {
    const config = new PooledKubeConfig().load({ kubeconfig: await kubeconfigFile() });
    expect(config.getCurrentCluster()?.server).toBe('https://one.example:6443');
  });

  test('takes the named context', async () => {
    const kubeconfig = await kubeconfigFile();
    const config = new PooledKubeConfig().load({ kubeconfig, context: 'two' });
    expect(config.getCurrentCluster()?.server).toBe('https://two.example:6443');
  });

  test('takes KUBECONFIG before the pod', async () => {
    vi.stubEnv('KUBECONFIG', await kubeconfigFile());
    vi.stubEnv('KUBERNETES_SERVICE_HOST', '10.0.0.1');
    expect(new PooledKubeConfig().load({}).getCurrentCluster()?.name).toBe('one');
  });

  test('takes the ServiceAccount in a pod', () => {
    vi.stubEnv('KUBERNETES_SERVICE_HOST', 'fd00::1');
    vi.stubEnv('KUBERNETES_SERVICE_PORT', '443');
    expect(new PooledKubeConfig().load({}).getCurrentCluster()).toMatchObject({
      name: 'inCluster',
      server: 'https://[fd00::1]:443',
    });
  });

  test('says so where there is nothing, instead of trying localhost', () => {
    expect(() => new PooledKubeConfig().load({})).toThrow(KubeConfigError);
  });

  test.each(['broken', 'missing'])('refuses the context %s', async (context) => {
    const kubeconfig = await kubeconfigFile();
    expect(() => new PooledKubeConfig().load({ kubeconfig, context })).toThrow(KubeConfigError);
  });
});
