import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { annotation, FIELD_MANAGER, label } from '../../src/api/names.ts';
import type {
  CiliumNetworkPolicy,
  ClusterNetworkPolicy,
  Condition,
  KubeObject,
  NetworkPolicy,
  Pod,
} from '../../src/api/objects.ts';
import type { Workflow } from '../../src/api/workflow.ts';
import { run } from '../../src/cli/run.ts';
import { clusterNetworkPolicy } from '../../src/guardrails/egress/plug-in.ts';
import { dnsRule } from '../../src/guardrails/egress/rules.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import {
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
} from '../operator/cluster.ts';
import { manifestOf, networkCrds } from '../operator/foreign-crds.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const name = 'poster';
const namespace = 'finance';
const owner = { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' };
const own = 'automationguardrails.dev/v1alpha1';

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  await controlPlane.apply([clusterDNS, apiServer]);
  operator = await startOperator({ kubeconfigPath });
  await controlPlane.apply([
    guarded(namespace, 'prod'),
    {
      apiVersion: own,
      kind: 'AutomationIdentity',
      metadata: { name, namespace },
      spec: { purpose: 'posts invoices', owner },
    },
    deployment,
  ]);
});

afterAll(async () => {
  operator?.kill();
  await controlPlane?.stop();
});

function guarded(of: string, environment: string): object {
  const labels = { [label.environment]: environment };
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name: of, labels } };
}

const clusterDNS = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'kube-dns', namespace: 'kube-system' },
  spec: {
    selector: { 'k8s-app': 'kube-dns' },
    ports: [
      { name: 'dns', port: 53, protocol: 'UDP' },
      { name: 'dns-tcp', port: 53, protocol: 'TCP' },
    ],
  },
};

/** The control plane of the tests listens on loopback, which is no address for a pod. */
const apiServer = {
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: {
    name: 'kubernetes',
    namespace: 'default',
    labels: { 'kubernetes.io/service-name': 'kubernetes' },
  },
  addressType: 'IPv4',
  endpoints: [{ addresses: ['192.0.2.10'], conditions: { ready: true } }],
  ports: [{ name: 'https', port: 6443, protocol: 'TCP' }],
};

const deployment = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', namespace },
  spec: {
    replicas: 1,
    selector: { matchLabels: { app: 'web' } },
    template: {
      metadata: { labels: { app: 'web' } },
      spec: {
        serviceAccountName: name,
        containers: [{ name: 'main', image: 'registry.example/automation:1' }],
      },
    },
  },
};

const erp = { cidr: '203.0.113.10/32', ports: [{ port: 443 }], reason: 'ERP' };

async function declare(spec: object): Promise<void> {
  await controlPlane.apply([
    {
      apiVersion: own,
      kind: 'Workflow',
      metadata: { name, namespace },
      spec: {
        owner,
        targets: [{ group: 'apps', kind: 'Deployment', name: 'web' }],
        egress: [erp],
        ...spec,
      },
    },
  ]);
}

function condition(type: string, status: string, reason: string): Promise<Condition> {
  return waitFor(`${type} ${status} ${reason}`, async () => {
    const found = await waitForCondition(
      controlPlane,
      { kind: 'awf', name, namespace },
      type,
      status,
    );
    return found.reason === reason && found;
  });
}

/** The one policy, once it is as it should be. */
function policy(
  what: string,
  isSo: (spec: NetworkPolicy['spec']) => boolean,
): Promise<NetworkPolicy> {
  return waitFor(what, async () => {
    const [found, ...others] = await listObjects<NetworkPolicy>(
      controlPlane,
      'networkpolicies',
      namespace,
    );
    const ours = found?.metadata.labels?.[label.workflow] === name;
    return others.length === 0 && ours && isSo(found.spec) && found;
  });
}

async function clusterIPOf(service: string, of: string): Promise<string> {
  const found = await getObject<{ spec: { clusterIP: string } }>(
    controlPlane,
    'service',
    service,
    of,
  );
  return found?.spec.clusterIP ?? '';
}

async function cli(...argv: string[]): Promise<string> {
  const lines: string[] = [];
  const write = (line: string): unknown => lines.push(line);
  await run({
    argv: [...argv, `--namespace=${namespace}`, `--kubeconfig=${controlPlane.kubeconfigPath}`],
    stdout: write,
    stderr: write,
  });
  return lines.join('\n');
}

describe('the egress of an automation', () => {
  it('is one policy for the pods that admission labels, with the addresses of named peers', async () => {
    await declare({
      egress: [erp, { peer: 'KubeAPI', reason: 'its own API' }],
      ingress: [{ peer: 'SameNamespace', ports: [{ port: 8080 }], reason: 'the front end' }],
    });
    await condition('EgressDeclared', 'True', 'Declared');
    const dns = await clusterIPOf('kube-dns', 'kube-system');
    const api = await clusterIPOf('kubernetes', 'default');
    const { spec } = await policy('the policy', ({ egress = [] }) => egress.length === 5);
    expect(spec.podSelector).toEqual({ matchLabels: { [label.identity]: name } });
    expect(spec.egress).toEqual([
      dnsRule,
      { to: [{ ipBlock: { cidr: `${dns}/32` } }], ports: dnsRule.ports },
      { to: [{ ipBlock: { cidr: erp.cidr } }], ports: [{ protocol: 'TCP', port: 443 }] },
      {
        to: [{ ipBlock: { cidr: '192.0.2.10/32' } }],
        ports: [{ protocol: 'TCP', port: 6443 }],
      },
      { to: [{ ipBlock: { cidr: `${api}/32` } }], ports: [{ protocol: 'TCP', port: 443 }] },
    ]);
    expect(spec.ingress).toEqual([
      { from: [{ podSelector: {} }], ports: [{ protocol: 'TCP', port: 8080 }] },
    ]);
    const pods = await waitFor('a pod', async () => {
      const found = await listObjects<Pod>(controlPlane, 'pods', namespace);
      return found.length > 0 && found;
    });
    expect(pods[0]?.metadata.labels).toMatchObject({ [label.identity]: name });
  });

  it('says honestly that nobody knows whether it is enforced', async () => {
    const enforced = await condition('EgressEnforced', 'Unknown', 'NotProbed');
    expect(enforced.message).toContain('kubectl guardrails probe poster');
  });

  it('is held where it lists a host, and no policy here knows names', async () => {
    await declare({ egress: [erp, { host: 'api.example.com', reason: 'an API' }] });
    const held = await condition('Held', 'True', 'HostsNotSupported');
    expect(held.message).toContain('api.example.com');
    await declare({ egress: [erp, { peer: 'KubeAPI', reason: 'its own API' }] });
    await condition('Held', 'False', 'Complete');
  });

  it('is enforced or not, as a pod of it finds that tries', async () => {
    // No kubelet runs here: the test says what the pod would have said.
    const answer = async (message: string): Promise<void> => {
      // One that isn't running yet would be said to run later; the one before may be there still.
      const pod = await waitFor('the pod to run', async () => {
        const pods = await listObjects<Pod>(controlPlane, 'pods', namespace);
        return pods.find(
          ({ metadata, status }) =>
            metadata.name.includes('-egress-probe-') && status?.phase === 'Running',
        );
      });
      const terminated = { exitCode: 0, message, finishedAt: new Date().toISOString() };
      const status = {
        phase: 'Succeeded',
        containerStatuses: [
          {
            name: 'probe',
            image: 'x',
            imageID: '',
            ready: false,
            restartCount: 0,
            state: { terminated },
          },
        ],
      };
      await kubectlOk(controlPlane, [
        'patch',
        'pod',
        pod.metadata.name,
        `--namespace=${namespace}`,
        '--subresource=status',
        '--type=merge',
        `--patch=${JSON.stringify({ status })}`,
      ]);
    };
    expect(await cli('probe', name)).toContain('--denied');
    await declare({});
    await policy('without the API server', ({ egress = [] }) => egress.length === 3);
    const [no] = await Promise.all([
      cli('probe', name, '--timeout=240'),
      answer('denied=reached allowed=reached'),
    ]);
    expect(no).toContain('EgressEnforced False (NotEnforced)');
    const [yes] = await Promise.all([
      cli('probe', name, '--denied=192.0.2.1:443', '--allowed=203.0.113.10:443', '--timeout=240'),
      answer('denied=failed allowed=reached'),
    ]);
    expect(yes).toContain('EgressEnforced True (Enforced)');
    expect(await cli('probe', name, '--denied=203.0.113.10:443')).toContain('a policy allows');
    const pods = await listObjects<Pod>(controlPlane, 'pods', namespace);
    expect(pods.filter(({ metadata }) => metadata.name.includes('probe'))).toEqual([]);
  });

  it("follows the cluster's DNS, and keeps what it knew when that is gone", async () => {
    const extra = { 'k8s-app': 'other-dns' };
    await controlPlane.apply([{ ...clusterDNS, spec: { ...clusterDNS.spec, selector: extra } }]);
    const followed = await policy('the new pods', ({ egress = [] }) =>
      egress.some(({ to }) => to?.[0]?.podSelector?.matchLabels?.['k8s-app'] === 'other-dns'),
    );
    await kubectlOk(controlPlane, ['delete', 'service', 'kube-dns', '-n=kube-system']);
    const unknown = await condition('EgressDeclared', 'False', 'PeersUnknown');
    expect(unknown.message).toContain('The addresses of DNS');
    const kept = await policy('the policy', () => true);
    expect(kept.metadata.resourceVersion).toBe(followed.metadata.resourceVersion);

    // Also by an operator that has never seen it; meanwhile, a network plug-in was installed.
    await operator.stop();
    await controlPlane.apply([manifestOf(networkCrds.cluster)]);
    operator = await startOperator({ kubeconfigPath });
    await controlPlane.apply([clusterDNS]);
    await condition('EgressDeclared', 'True', 'Declared');
    const after = await policy('the pods that everybody reaches', ({ egress = [] }) =>
      egress.every(({ to }) => to?.[0]?.podSelector?.matchLabels?.['k8s-app'] !== 'other-dns'),
    );
    expect(after.metadata.uid).toBe(kept.metadata.uid);
  });

  it('has hosts by ClusterNetworkPolicies where these are served, and names those that widen', async () => {
    const host = { host: 'api.example.com', ports: [{ port: 443 }], reason: 'an API' };
    await declare({ egress: [erp, host] });
    const policies = (): Promise<ClusterNetworkPolicy[]> =>
      listObjects(controlPlane, 'clusternetworkpolicies', namespace);
    const allowing = await waitFor('the policy', async () => {
      const [found] = await policies();
      return found;
    });
    expect(allowing.spec).toMatchObject({ tier: 'Admin', priority: 1000 });
    expect(allowing.spec.egress?.at(-1)).toMatchObject({
      action: 'Accept',
      to: [{ domainNames: ['api.example.com'] }],
    });
    await condition('EgressDeclared', 'True', 'Declared');
    // What a kill would write, the API server takes, too.
    const workflow = await getObject<Workflow>(controlPlane, 'awf', name, namespace);
    if (workflow === undefined) throw new Error('no Workflow');
    const { metadata, spec } = clusterNetworkPolicy.deny(workflow);
    expect(metadata.name).toBe(allowing.metadata.name);
    const theirs = (of: string, their: object): object => ({
      apiVersion: 'policy.networking.k8s.io/v1alpha2',
      kind: 'ClusterNetworkPolicy',
      metadata: { name: of },
      spec: their,
    });
    await controlPlane.apply([
      theirs('denies', spec),
      theirs('opens', {
        tier: 'Admin',
        priority: 5,
        subject: { namespaces: {} },
        egress: [{ action: 'Accept', to: [{ networks: ['10.0.0.0/8'] }] }],
      }),
    ]);
    // The deny comes first.
    await condition('EgressWidened', 'False', 'AsListed');
    await kubectlOk(controlPlane, ['delete', 'clusternetworkpolicy', 'denies']);
    const widened = await condition('EgressWidened', 'True', 'PoliciesOfOthers');
    expect(widened.message).toContain('ClusterNetworkPolicy opens (10.0.0.0/8).');
    await kubectlOk(controlPlane, ['delete', 'clusternetworkpolicy', 'opens']);
    await condition('EgressWidened', 'False', 'AsListed');
  });

  it('stays closed when its Workflow is deleted, until its last pod is gone', async () => {
    const of = 'left';
    const leaver = {
      apiVersion: own,
      kind: 'Workflow',
      metadata: { name, namespace: of },
      spec: { owner, targets: [{ group: 'apps', kind: 'Deployment', name: 'web' }], egress: [erp] },
    };
    const identity = {
      apiVersion: own,
      kind: 'AutomationIdentity',
      metadata: { name, namespace: of },
      spec: { purpose: 'leaves', owner },
    };
    const one = (what: string, isSo: (policy: NetworkPolicy) => boolean): Promise<NetworkPolicy> =>
      waitFor(what, async () => {
        const [found] = await listObjects<NetworkPolicy>(controlPlane, 'networkpolicies', of);
        return found !== undefined && isSo(found) && found;
      });
    const isKeptByPods = (): Promise<true> =>
      waitFor('the metric', async () => {
        const text = await (await fetch(operator.metricsUrl())).text();
        return text.includes('automation_guardrails_egress_left_behind{keeper="Pods"} 1');
      });
    await controlPlane.apply([guarded(of, 'prod'), identity, leaver]);
    const granted = await one('the policy', ({ spec }) => JSON.stringify(spec).includes(erp.cidr));
    expect(granted.metadata.ownerReferences).toBeUndefined();
    // As an earlier version made it: the garbage collector would take it.
    const made = await getObject<KubeObject>(controlPlane, 'awf', name, of);
    const reference = { apiVersion: own, kind: 'Workflow', name, uid: made?.metadata.uid };
    await kubectlOk(controlPlane, [
      'patch',
      'networkpolicy',
      granted.metadata.name,
      `--namespace=${of}`,
      '--type=merge',
      `--patch=${JSON.stringify({ metadata: { ownerReferences: [{ ...reference, controller: true }] } })}`,
    ]);
    const ours = await one(
      'without the reference',
      ({ metadata: { ownerReferences, resourceVersion } }) => {
        return (
          ownerReferences === undefined && resourceVersion !== granted.metadata.resourceVersion
        );
      },
    );
    expect(ours.spec).toEqual(granted.spec);
    await waitFor('its ServiceAccount', () => getObject(controlPlane, 'serviceaccount', name, of));
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'runs', namespace: of },
        spec: deployment.spec.template.spec,
      },
    ]);

    // With no operator that could keep anything; meanwhile, another network plug-in comes.
    await operator.stop();
    await controlPlane.apply([networkCrds.cilium, networkCrds.clusterwide].map(manifestOf));
    await kubectlOk(controlPlane, ['delete', 'awf,aid', name, `-n=${of}`]);
    operator = await startOperator({ kubeconfigPath });
    await isKeptByPods();
    const kept = await one('the policy', () => true);
    expect(kept.metadata.annotations).toEqual(ours.metadata.annotations);
    expect([kept.metadata.uid, kept.spec]).toEqual([granted.metadata.uid, granted.spec]);

    await controlPlane.apply([leaver]);
    const { metadata } = await one('the policy of the next', ({ metadata: { annotations } }) => {
      const uid = annotations?.[annotation.ownerUid];
      return uid !== granted.metadata.annotations?.[annotation.ownerUid];
    });
    expect(metadata.uid).toBe(granted.metadata.uid);
    await kubectlOk(controlPlane, ['delete', 'awf', name, `-n=${of}`]);
    await isKeptByPods();
    await kubectlOk(controlPlane, ['delete', 'pod', 'runs', `-n=${of}`, '--grace-period=1']);
    await waitFor('its end', async () => {
      const policies = await listObjects(controlPlane, 'networkpolicies', of);
      return policies.length === 0;
    });
  });

  it('has hosts by a policy that knows names, where the network plug-in brings one', async () => {
    await declare({ egress: [erp, { host: 'api.example.com', reason: 'an API' }] });
    await waitFor('the end of the other kind', async () => {
      const left = await listObjects(controlPlane, 'clusternetworkpolicies', namespace);
      return left.length === 0;
    });
    await waitFor('the policy', async () => {
      const policies = await listObjects<CiliumNetworkPolicy>(
        controlPlane,
        'ciliumnetworkpolicies',
        namespace,
      );
      const wanted = { toFQDNs: [{ matchName: 'api.example.com' }] };
      return policies.some(({ spec }) => isDeepStrictEqual(spec.egress?.at(-1), wanted));
    });
    await condition('EgressDeclared', 'True', 'Declared');
    expect(await cli('egress', name)).toMatch(
      /^api\.example\.com +all +poster-egress +an API +fin/m,
    );
    const others = ['CiliumNetworkPolicy', 'CiliumClusterwideNetworkPolicy'].map((kind) => ({
      apiVersion: 'cilium.io/v2',
      kind,
      metadata: { name: 'opens', ...(kind === 'CiliumNetworkPolicy' && { namespace }) },
      spec: {
        endpointSelector: { matchLabels: { 'k8s:app': 'web' } },
        egress: [{ toCIDR: ['10.0.0.0/8'] }, { toFQDNs: [{ matchName: 'api.example.com' }] }],
      },
    }));
    await controlPlane.apply(others);
    const message =
      'CiliumClusterwideNetworkPolicy opens (10.0.0.0/8), CiliumNetworkPolicy opens (10.0.0.0/8).';
    await waitFor('both to be named', async () => {
      const widened = await condition('EgressWidened', 'True', 'PoliciesOfOthers');
      return widened.message.includes(message);
    });
    expect(await cli('egress', name)).toMatch(
      /^10\.0\.0\.0\/8 +all +CiliumNetworkPolicy opens, CiliumClusterwideNetworkPolicy opens +not of/m,
    );
    await kubectlOk(controlPlane, ['delete', 'ciliumclusterwidenetworkpolicy', 'opens']);
    await kubectlOk(controlPlane, ['delete', 'ciliumnetworkpolicy', 'opens', `-n=${namespace}`]);
    await condition('EgressWidened', 'False', 'AsListed');
    // What its creation would have left, were it made at a kill.
    await kubectlOk(controlPlane, [
      'patch',
      'ciliumnetworkpolicies',
      'poster-egress',
      `--namespace=${namespace}`,
      `--field-manager=${FIELD_MANAGER}`,
      '--type=merge',
      '--patch={"spec":{"ingressDeny":[{"fromEntities":["all"]}]}}',
    ]);
    await waitFor('the end of the deny', async () => {
      const [found] = await listObjects<CiliumNetworkPolicy>(
        controlPlane,
        'ciliumnetworkpolicies',
        namespace,
      );
      return found?.spec.ingressDeny?.length === 0;
    });
    await declare({});
    await waitFor('its end', async () => {
      const left = await listObjects(controlPlane, 'ciliumnetworkpolicies', namespace);
      return left.length === 0;
    });
  });

  it('withdraws an entry when it ends', async () => {
    const expires = `${new Date(Date.now() + 4_000).toISOString().slice(0, 19)}Z`;
    await declare({ egress: [{ cidr: '198.51.100.0/24', reason: 'a migration', expires }] });
    const ended = await condition('EgressDeclared', 'True', 'EntriesExpired');
    expect(ended.message).toContain(`198.51.100.0/24 (${expires})`);
    await policy('without it', ({ egress = [] }) => egress.length === 2);
  });

  it('has no peers in other environments, also where they come to be in one', async () => {
    await declare({ egress: [erp, { namespace: 'shared', reason: 'its records' }] });
    await policy('with it', ({ egress = [] }) => egress.length === 4);
    await controlPlane.apply([guarded('shared', 'test')]);
    const held = await condition('Held', 'True', 'OtherEnvironment');
    expect(held.message).toContain('namespace shared');
    await policy('without it', ({ egress = [] }) => egress.length === 3);
    await declare({});
    await condition('Held', 'False', 'Complete');
  });

  it('is widened in prod by nobody who may not', async () => {
    const bind = (role: string, user: string): object => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: `${role}-${user}` },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: user }],
    });
    await controlPlane.apply([
      bind('admin', 'ivy'),
      bind('automation-guardrails-egress-widener', 'walter'),
      guarded('staging', 'test'),
    ]);
    // The last one that was bound: until the API server's authorizer has heard of it.
    const may = ['auth', 'can-i', 'create', 'networkpolicies', `-n=${namespace}`];
    await waitFor('their rights', async () => {
      const { stdout } = await controlPlane.kubectl(may, { as: 'walter' });
      return stdout.trim() === 'yes';
    });
    const identity = label.identity;
    const out = { policyTypes: ['Egress'], egress: [{}] };
    let count = 0;
    const write = async (as: string, spec: object, of = namespace): Promise<string> => {
      count += 1;
      const metadata = { name: `mine-${count}`, namespace: of, labels: { tried: 'yes' } };
      const apiVersion = 'networking.k8s.io/v1';
      return controlPlane
        .apply([{ apiVersion, kind: 'NetworkPolicy', metadata, spec }], { as })
        .then(() => '', String);
    };
    const selector = (comparison: string, ...values: string[]): object => ({
      matchExpressions: [
        { key: identity, operator: comparison, ...(values.length > 0 && { values }) },
      ],
    });
    const refused = [
      {},
      { matchLabels: { app: 'web' } },
      { matchLabels: { [identity]: name } },
      selector('In', 'other', name),
      selector('NotIn', 'other'),
      selector('Exists'),
    ];
    for (const podSelector of refused) {
      const answer = await write('ivy', { podSelector, ...out });
      expect(answer, JSON.stringify(podSelector)).toContain('kubectl edit awf poster -n finance');
    }
    const taken: [string, object, string?][] = [
      ['walter', { podSelector: {}, ...out }],
      ['ivy', { podSelector: {}, ...out }, 'staging'],
      ['ivy', { podSelector: {}, policyTypes: ['Egress'] }],
      ['ivy', { podSelector: {}, policyTypes: ['Ingress'], ingress: [{}] }],
      ['ivy', { podSelector: { matchLabels: { [identity]: 'web', app: 'web' } }, ...out }],
      ['ivy', { podSelector: selector('NotIn', name), ...out }],
      ['ivy', { podSelector: selector('DoesNotExist'), ...out }],
    ];
    for (const [user, spec, of] of taken) {
      expect(await write(user, spec, of), JSON.stringify(spec)).toBe('');
    }
    await kubectlOk(controlPlane, ['delete', 'netpol', '-l=tried', `-n=${namespace}`]);
  });

  it('is told of policies that widen it, and shows everything as a table', async () => {
    await controlPlane.apply([
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'open', namespace },
        spec: {
          podSelector: { matchLabels: { app: 'web' } },
          policyTypes: ['Egress'],
          egress: [
            {
              to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } }],
              ports: [{ port: 1, endPort: 9 }],
            },
          ],
        },
      },
    ]);
    const widened = await condition('EgressWidened', 'True', 'PoliciesOfOthers');
    expect(widened.message).toContain('open (10.0.0.0/8 except 10.1.0.0/16 on TCP 1-9).');
    const metrics = await waitFor('the metric', async () => {
      const text = await (await fetch(operator.metricsUrl())).text();
      return /^automation_guardrails_workflow_egress\{condition="EgressWidened",status="True"\} 1$/m.test(
        text,
      );
    });
    expect(metrics).toBe(true);

    const table = await cli('egress', name);
    expect(table).toMatch(/^203\.0\.113\.10\/32 +TCP 443 +poster-egress-\w+ +ERP +finance$/m);
    expect(table).toMatch(/^10\.0\.0\.0\/8 except 10\.1\.0\.0\/16 +TCP 1-9 +open +not of the/m);

    await kubectlOk(controlPlane, ['delete', 'networkpolicy', 'open', `-n=${namespace}`]);
    await condition('EgressWidened', 'False', 'AsListed');
  });
});
