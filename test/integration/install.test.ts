import { cp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { loadAll } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config.ts';
import { parseCatalogue } from '../../src/guardrails/kill-switch/catalogue.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { findHelm, runProgram } from '../install/helm.ts';
import { kubectlOk } from '../operator/cluster.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const chart = path.join(root, 'charts/automation-guardrails');

let controlPlane: ControlPlane;
let helm: string;

beforeAll(async () => {
  [controlPlane, helm] = await Promise.all([
    startControlPlane({ controllerManagerQps: 500 }),
    findHelm((line) => console.log(line)),
  ]);
}, 600_000);

afterAll(async () => {
  await controlPlane?.stop();
});

const run = (program: string, args: readonly string[]): ReturnType<typeof runProgram> =>
  runProgram(program, controlPlane, args);

interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
  [field: string]: unknown;
}

const objectsOf = (text: string): Manifest[] =>
  loadAll(text).filter((document) => document !== null && document !== undefined) as Manifest[];

const identify = ({ kind, metadata }: Manifest): string => `${kind}/${metadata.name}`;

/**
 * What both ways of installing must agree on: everything but labels and annotations, and the name
 * of a release, which the kustomization hasn't got.
 */
function substance(manifest: Manifest): unknown {
  const { metadata, ...rest } = manifest;
  return withoutRelease({ ...rest, name: metadata.name, namespace: metadata.namespace });
}

function withoutRelease(value: unknown): unknown {
  const text = JSON.stringify(value, (key, inner: unknown) =>
    key === 'app.kubernetes.io/instance' ? undefined : inner,
  );
  return JSON.parse(text) as unknown;
}

/** Renders the chart as for Kubernetes 1.36, with further flags. */
function template(...flags: string[]): ReturnType<typeof runProgram> {
  return run(helm, [
    'template',
    'automation-guardrails',
    chart,
    '--namespace=automation-guardrails',
    '--kube-version=1.36.3',
    ...flags,
  ]);
}

describe('the kustomization and the chart', () => {
  it('render the same objects, with monitoring', async () => {
    const kustomized = objectsOf(
      await kubectlOk(controlPlane, ['kustomize', path.join(root, 'config/with-monitoring')]),
    );
    const { code, output } = await template(
      // Helm asks the API server for these, and no API server is asked for a template.
      '--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy',
      '--set=prometheusRule.enabled=true,serviceMonitor.enabled=true,dashboard.enabled=true',
    );
    expect(code, output).toBe(0);
    const templated = objectsOf(output);
    const byName = new Map(templated.map((manifest) => [identify(manifest), manifest]));
    // Helm creates the namespace of a release itself.
    const compared = kustomized.filter(
      (manifest) => identify(manifest) !== 'Namespace/automation-guardrails',
    );
    expect(templated.map(identify).toSorted()).toEqual(compared.map(identify).toSorted());
    for (const manifest of compared) {
      if (['Deployment', 'Service'].includes(manifest.kind)) continue;
      const twin = byName.get(identify(manifest));
      expect(twin && substance(twin), identify(manifest)).toEqual(substance(manifest));
    }
  });

  it('render the same without monitoring, which is the default', async () => {
    const kustomized = objectsOf(
      await kubectlOk(controlPlane, ['kustomize', path.join(root, 'config/default')]),
    );
    const { output } = await template(
      '--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy',
    );
    expect(
      ['Namespace/automation-guardrails', ...objectsOf(output).map(identify)].toSorted(),
    ).toEqual(kustomized.map(identify).toSorted());
  });

  it('agree on how the operator runs', async () => {
    const deploymentOf = (manifests: Manifest[]): Record<string, unknown> => {
      const { spec } = manifests.find(({ kind }) => kind === 'Deployment') as unknown as {
        spec: { replicas: number; template: { spec: Record<string, unknown> } };
      };
      const { containers, topologySpreadConstraints, ...pod } = spec.template.spec;
      const [{ image, imagePullPolicy, ...container } = {}] = containers as Record<
        string,
        unknown
      >[];
      expect(image).toBe('automation-guardrails:0.1.0');
      expect(imagePullPolicy ?? 'IfNotPresent').toBe('IfNotPresent');
      return {
        replicas: spec.replicas,
        pod,
        container,
        spread: withoutRelease(topologySpreadConstraints),
      };
    };
    const kustomized = await kubectlOk(controlPlane, [
      'kustomize',
      path.join(root, 'config/default'),
    ]);
    const { output } = await run(helm, ['template', 'x', chart, '--kube-version=1.36.3']);
    expect(deploymentOf(objectsOf(output))).toEqual(deploymentOf(objectsOf(kustomized)));
  });
});

describe('the values of the chart', () => {
  it.each([
    ['of another type', '--set=replicaCount=many', 'replicaCount'],
    ['that is none of the choices', '--set=admission.mutation=perhaps', 'mutation'],
    ['that is misspelt', '--set=replicas=3', "'replicas' not allowed"],
    ['that is misspelt further down', '--set=image.tga=1', "'tga' not allowed"],
    ['out of its range', '--set=networkPolicy.egress.ports={0}', 'networkPolicy/egress/ports'],
    ['that is no choice of yes or no', '--set=externalSecrets.enabled=perhaps', 'externalSecrets'],
    ['that is no address of a vault', '--set=vault.address=http://vault', 'vault/address'],
    ['that is no URL', '--set=prometheusRule.runbookBaseUrl=wiki', 'runbookBaseUrl'],
    ['that is no name of a namespace', '--set=namespaces={Finance}', 'namespaces/0'],
    ['that lacks a part', '--set-json=catalogue=[{"group":"a.example"}]', "'plural'"],
  ])('are refused: one %s', async (_, flag, message) => {
    const { code, output } = await template(flag);
    expect(code).not.toBe(0);
    expect(output).toContain(message);
  });

  it('refuse a Kubernetes that is too old', async () => {
    const { code, output } = await run(helm, ['template', 'x', chart, '--kube-version=1.29.4']);
    expect(code).not.toBe(0);
    expect(output).toMatch(/requires kubeVersion: >=1\.30.*1\.29\.4/);
  });

  it.each(['1.30.0', '1.33.1', '1.35.4', '1.36.3'])('render for Kubernetes %s', async (version) => {
    const args = ['template', 'x', chart, `--kube-version=${version}`];
    const { code, output } = await run(helm, args);
    expect(code, output).toBe(0);
    expect(objectsOf(output).length).toBeGreaterThan(50);
  });

  it('tell the operator of a vault, give it a token for that, and let it reach no other', async () => {
    const { code, output } = await template(
      '--set=networkPolicy.egress.enabled=true,networkPolicy.egress.cidrs={10.0.0.1/32}',
      '--set=vault.address=https://vault.example.com:8200,vault.caConfigMap=vault-ca',
      '--set-json=networkPolicy.egress.vaultTo=[{"namespaceSelector":{}}]',
    );
    expect(code, output).toBe(0);
    const all = objectsOf(output);
    expect(all.find(({ kind }) => kind === 'NetworkPolicy')?.['spec']).toMatchObject({
      egress: [{}, {}, { ports: [{ port: 8200 }], to: [{ namespaceSelector: {} }] }],
    });
    const spec = JSON.stringify(all.find(({ kind }) => kind === 'Deployment')?.['spec']);
    expect(spec).toContain(
      '{"serviceAccountToken":{"path":"token","audience":"vault","expirationSeconds":600}}',
    );
    // No ConfigMap, no vault: the operator starts, and kills.
    expect(spec).toContain(
      '{"configMap":{"name":"vault-ca","optional":true,"items":[{"key":"ca.crt","path":"ca.crt"}]}}',
    );
    const env = [...spec.matchAll(/"name":"AUTOMATION_GUARDRAILS_(VAULT\w+)","value":"([^"]*)"/g)];
    const flags = env.map(
      ([, name = '', value]) => `--${name.toLowerCase().replaceAll('_', '-')}=${value}`,
    );
    expect(parseConfig(flags, {})).toMatchObject({
      config: { vault: { caFile: '/var/run/secrets/automation-guardrails/vault/ca.crt' } },
    });
  });

  it('make the sample of a GuardrailPolicy, or one of your own', async () => {
    const policyWith = async (...flags: string[]): Promise<Manifest | undefined> => {
      const { code, output } = await template('--set=guardrailPolicy.create=true', ...flags);
      expect(code, output).toBe(0);
      return objectsOf(output).find(({ kind }) => kind === 'GuardrailPolicy');
    };
    const file = path.join(root, 'config/samples/policy/guardrail-policy.yaml');
    const [sample] = objectsOf(await readFile(file, 'utf8'));
    const made = await policyWith();
    expect(made?.metadata.name).toBe('default');
    expect(made?.['spec']).toEqual(sample?.['spec']);
    const own = await policyWith(
      '--set=guardrailPolicy.spec.enforcement=Enforce',
      '--set-json=guardrailPolicy.spec.tiers=[]',
    );
    expect(own?.['spec']).toMatchObject({ enforcement: 'Enforce', tiers: [] });
  });

  it('do what they say', async () => {
    const { code, output } = await template(
      '--set=userRoles.enabled=false,podDisruptionBudget.enabled=false',
      '--set=networkPolicy.egress.enabled=true,networkPolicy.egress.cidrs={10.0.0.1/32}',
      '--set-json=networkPolicy.metricsFrom=[{"namespaceSelector":{}}]',
      '--set=prometheusRule.enabled=true,prometheusRule.runbookBaseUrl=https://wiki.example.com/ag/',
      '--set=priorityClassName=system-cluster-critical,podLabels.a=b,podAnnotations.c=d',
      '--set=otlp.endpoint=http://collector.monitoring:4318',
      '--set-json=otlp.to=[{"namespaceSelector":{}}]',
    );
    expect(code, output).toBe(0);
    const all = objectsOf(output);
    const roles = all
      .filter(({ kind }) => kind === 'ClusterRole')
      .map(({ metadata }) => metadata.name);
    expect(roles).toContain('automation-guardrails-operator');
    for (const role of ['viewer', 'killer', 'break-glass', 'auditor']) {
      expect(roles).not.toContain(`automation-guardrails-${role}`);
    }
    expect(all.some(({ kind }) => kind === 'PodDisruptionBudget')).toBe(false);
    expect(all.find(({ kind }) => kind === 'NetworkPolicy')?.['spec']).toMatchObject({
      policyTypes: ['Ingress', 'Egress'],
      ingress: [
        { ports: [{ port: 'metrics' }], from: [{ namespaceSelector: {} }] },
        { ports: [{ port: 'health' }] },
      ],
      egress: [
        { ports: [{ port: 53 }, { port: 53 }] },
        {
          ports: [{ port: 443 }, { port: 6443 }],
          to: [{ ipBlock: { cidr: '10.0.0.1/32' } }],
        },
        { ports: [{ port: 4_318 }], to: [{ namespaceSelector: {} }] },
      ],
    });
    expect(output).toContain(
      'runbook_url: https://wiki.example.com/ag/docs/runbooks/fence-not-in-force.md',
    );
    expect(output).toContain('priorityClassName: "system-cluster-critical"');
    expect(output).toContain('value: "http://collector.monitoring:4318"');
    const { spec } = all.find(({ kind }) => kind === 'Deployment') as unknown as {
      spec: { template: { metadata: object } };
    };
    expect(spec.template.metadata).toMatchObject({ labels: { a: 'b' }, annotations: { c: 'd' } });
  });
});

describe("the administrator's catalogue in the chart", () => {
  const robot = {
    group: 'example.com',
    version: 'v1',
    kind: 'Robot',
    plural: 'robots',
    serviceAccountPath: 'spec.template.spec.serviceAccountName',
    path: 'spec.mode',
    pausedValue: 'Off',
  };

  it('is what the operator reads, with the rights that it needs and no more', async () => {
    const args = ['template', 'x', chart, '--kube-version=1.36.3'];
    const { code, output } = await run(helm, [
      ...args,
      `--set-json=catalogue=${JSON.stringify([robot])}`,
    ]);
    expect(code, output).toBe(0);
    const all = objectsOf(output);
    const find = (kind: string, name: string): Manifest | undefined =>
      all.find((manifest) => manifest.kind === kind && manifest.metadata.name === name);
    const { data } = find('ConfigMap', 'automation-guardrails-catalogue') as unknown as {
      data: Record<string, string>;
    };
    const [kind] = parseCatalogue('catalogue.yaml', data['catalogue.yaml'] ?? '');
    expect(kind?.paused).toBe('Off');
    expect(find('ClusterRole', 'automation-guardrails-catalogue')?.['rules']).toEqual([
      { apiGroups: ['example.com'], resources: ['robots'], verbs: ['get', 'list', 'patch'] },
    ]);
    const { spec } = find('Deployment', 'automation-guardrails') as unknown as {
      spec: {
        template: {
          spec: {
            volumes: object[];
            containers: { env: { name: string; value?: string }[]; volumeMounts: object[] }[];
          };
        };
      };
    };
    const { volumes, containers } = spec.template.spec;
    expect(volumes).toEqual([
      { name: 'catalogue', configMap: { name: 'automation-guardrails-catalogue' } },
    ]);
    const [container] = containers;
    expect(container?.volumeMounts).toEqual([
      { name: 'catalogue', mountPath: '/etc/automation-guardrails', readOnly: true },
    ]);
    expect(container?.env).toContainEqual({
      name: 'AUTOMATION_GUARDRAILS_CATALOGUE',
      value: '/etc/automation-guardrails/catalogue.yaml',
    });
    const without = await run(helm, args);
    expect(without.output).not.toContain('automation-guardrails-catalogue');
  });
});

describe('installing with kustomize', () => {
  it('works with one apply, and its pods are admitted as restricted', async () => {
    // CRDs and what depends on them come in one go: the second apply is what documentation says
    // to do when the first one was too fast for the API server.
    const apply = ['apply', '--server-side', '-k', path.join(root, 'config/default')];
    await waitFor('the apply', async () => (await controlPlane.kubectl(apply)).code === 0, {
      timeoutMs: 120_000,
    });
    await kubectlOk(controlPlane, [
      'rollout',
      'status',
      'deployment/automation-guardrails',
      '-n=automation-guardrails',
      '--timeout=180s',
    ]);
    // The namespace goes first, and may take along what is named after it before its turn comes.
    await kubectlOk(controlPlane, [
      'delete',
      '-k',
      path.join(root, 'config/default'),
      '--wait=false',
      '--ignore-not-found',
    ]);
    await waitFor(
      'the namespace and the kinds to be gone',
      async () => {
        const { code } = await controlPlane.kubectl(['get', 'namespace', 'automation-guardrails']);
        const crds = await kubectlOk(controlPlane, ['get', 'crd', '-o=name']);
        return code !== 0 && !crds.includes('automationguardrails.dev');
      },
      { timeoutMs: 120_000 },
    );
  });
});

describe('installing with Helm', () => {
  it('passes lint', async () => {
    const { code, output } = await run(helm, ['lint', '--strict', chart]);
    expect(code, output).toBe(0);
  });

  it.each([
    [
      'the kinds of the Prometheus operator',
      '--set=prometheusRule.enabled=true',
      'no matches for kind "PrometheusRule"',
    ],
    ['its own kinds', '--set=crds.enabled=false', "the kinds aren't installed"],
    ['its kind', '--set=guardrailPolicy.create=true', 'install without it first'],
    ['a namespace that is listed', '--set=namespaces={nowhere}', 'there is no such namespace'],
  ])('without %s it says so, and leaves nothing half-installed', async (_, flag, message) => {
    const install = ['install', 'ag', chart, '--namespace=half', '--create-namespace', flag];
    const { code, output } = await run(helm, install);
    expect(code).not.toBe(0);
    expect(output).toContain(message);
    const left = await kubectlOk(controlPlane, [
      'get',
      'validatingadmissionpolicies,clusterroles,flowschemas',
      '-l=app.kubernetes.io/name=automation-guardrails',
      '-o=name',
    ]);
    expect(left).toBe('');
    expect((await run(helm, ['list', '--all-namespaces', '--short'])).output.trim()).toBe('');
  });

  it('installs, upgrades, rolls back and uninstalls, and a kill that is engaged holds all the time', async () => {
    const flags = ['--namespace=guardrails', '--timeout=180s', '--wait'];
    const earlier = await earlierChart();
    const installed = await run(helm, ['install', 'ag', earlier, '--create-namespace', ...flags]);
    expect(installed.code, installed.output).toBe(0);
    expect(installed.output).toContain('automationguardrails.dev/environment=prod');

    await engage();
    const witness = new Witness();
    const set = '--set=replicaCount=1,guardrailPolicy.create=true';
    const upgraded = await run(helm, ['upgrade', 'ag', chart, set, ...flags]);
    expect(upgraded.code, upgraded.output).toBe(0);
    const policy = ['get', 'gpol', 'default', '-o=jsonpath={.spec.enforcement}'];
    expect(await kubectlOk(controlPlane, policy)).toBe('Audit');
    const deployment = (): Promise<string> =>
      kubectlOk(controlPlane, [
        'get',
        'deployment',
        'automation-guardrails',
        '-n=guardrails',
        '-o=jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}',
      ]);
    const policies = (): Promise<string> =>
      kubectlOk(controlPlane, ['get', 'validatingadmissionpolicies', '-o=name']);
    expect(await deployment()).toBe('1 automation-guardrails:0.1.0');
    // What only one version has: both stand until the new ones are proven.
    expect(await policies()).toContain(onlyNow);
    expect(await policies()).toContain(onlyBefore);
    const pruned = await run(process.execPath, ['src/cli/main.ts', 'prune']);
    expect(pruned.code, pruned.output).toBe(0);
    expect(await policies()).not.toContain(onlyBefore);
    const back = await run(helm, ['rollback', 'ag', '1', '--namespace=guardrails']);
    expect(back.code, back.output).toBe(0);
    expect(await deployment()).toBe('2 automation-guardrails:0.0.9');
    expect(await policies()).toContain(onlyBefore);
    // What holds a kill isn't taken away unasked, neither by this command nor by Helm.
    const refused = await run(process.execPath, ['src/cli/main.ts', 'uninstall']);
    expect(refused.code).toBe(1);
    expect(refused.output).toContain('finance/invoice');
    const removed = await run(helm, ['uninstall', 'ag', '--namespace=guardrails', '--wait']);
    expect(removed.code, removed.output).toBe(0);
    const crds = await kubectlOk(controlPlane, ['get', 'crd', '-o=name']);
    expect(crds).toContain('killswitches.automationguardrails.dev');
    expect(await kubectlOk(controlPlane, policy)).toBe('Audit');
    const outcomes = await witness.stop();
    expect(outcomes.length).toBeGreaterThan(5);
    expect(outcomes.filter((outcome) => !outcome.includes('kill switch: runaway'))).toEqual([]);

    expect(await policies()).toContain('automation-guardrails-fence-pods');
    const retired = await run(process.execPath, ['src/cli/main.ts', 'uninstall', '--force']);
    expect(retired.code, retired.output).toBe(0);
    expect(retired.output).toContain('those of KillSwitch finance/invoice paused');
    expect(await policies()).not.toContain('automation-guardrails-');
    await kubectlOk(controlPlane, ['delete', 'ksw', 'invoice', '-n=finance']);
  }, 600_000);

  const onlyNow = 'automation-guardrails-operator-reach';
  const onlyBefore = 'automation-guardrails-no-tokens';

  /**
   * The chart as another version might have had it: with another image, one policy less, one that
   * has another name by now, and others with another text.
   */
  async function earlierChart(): Promise<string> {
    const copy = path.join(controlPlane.dataDir, 'earlier');
    await cp(chart, copy, { recursive: true });
    const edit = async (file: string, change: (text: string) => string): Promise<void> => {
      const target = path.join(copy, file);
      const text = await readFile(target, 'utf8');
      const changed = change(text);
      expect(changed, file).not.toBe(text);
      await writeFile(target, changed);
    };
    await edit('Chart.yaml', (text) => text.replaceAll('0.1.0', '0.0.9'));
    await edit('files/admission/validating.yaml', (text) =>
      text
        .split('\n---\n')
        .filter((object) => !object.includes(`name: ${onlyNow}\n`))
        .join('\n---\n')
        .replaceAll(/automation-guardrails-fence-tokens$/gm, onlyBefore)
        .replaceAll('engaged; see kubectl get ksw,awf', 'engaged'),
    );
    return copy;
  }

  /** A pod of the automation that is stopped. */
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'try', namespace: 'finance' },
    spec: { serviceAccountName: 'invoice', containers: [{ name: 'main', image: 'x' }] },
  };

  async function tryPod(): Promise<string> {
    const create = ['create', '--dry-run=server', '-f', '-'];
    const { stdout, stderr } = await controlPlane.kubectl(create, { input: JSON.stringify(pod) });
    return stdout + stderr;
  }

  async function tryToken(): Promise<string> {
    const create = ['create', 'token', 'invoice', '-n=finance'];
    const { code, stderr } = await controlPlane.kubectl(create);
    return code === 0 ? 'a token' : stderr;
  }

  async function engage(): Promise<void> {
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: 'finance', labels: { 'automationguardrails.dev/environment': 'test' } },
      },
      // Without it the API server refuses the pod for that alone.
      {
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata: { name: 'invoice', namespace: 'finance' },
      },
    ]);
    const killSwitch = {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'KillSwitch',
      metadata: { name: 'invoice', namespace: 'finance' },
      spec: { workflow: 'invoice', reason: 'runaway' },
    };
    // The API server takes new policies in about once a second.
    await waitFor('the stamp of admission', async () => {
      const { stdout } = await controlPlane.kubectl(
        ['create', '--dry-run=server', '-o=jsonpath={.spec.engagedBy}', '-f', '-'],
        { input: JSON.stringify(killSwitch) },
      );
      return stdout === 'admin';
    });
    await controlPlane.apply([killSwitch]);
    for (const attempt of [tryPod, tryToken]) {
      await waitFor('the fence', async () => (await attempt()).includes('kill switch: runaway'));
    }
  }

  /** Tries to start a pod of it, and to get a token, over and over. */
  class Witness {
    readonly #outcomes: string[] = [];
    #isStopped = false;
    readonly #ended = this.#run();

    async #run(): Promise<void> {
      for (let turn = 0; !this.#isStopped; turn++) {
        this.#outcomes.push(await (turn % 2 === 0 ? tryPod() : tryToken()));
      }
    }

    /** @returns the answer to each attempt */
    async stop(): Promise<readonly string[]> {
      this.#isStopped = true;
      await this.#ended;
      return this.#outcomes;
    }
  }
});
