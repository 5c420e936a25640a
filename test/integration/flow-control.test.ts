import { request, type Dispatcher } from 'undici';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Connection, ConnectionPool } from '../../src/runtime/kube-config.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { getObject, installGuardrails } from '../operator/cluster.ts';

let controlPlane: ControlPlane;
let kubeConfig: PooledKubeConfig;
let pool: ConnectionPool;
let names: Map<string, string>;

beforeAll(async () => {
  controlPlane = await startControlPlane();
  kubeConfig = new PooledKubeConfig().load({ kubeconfig: await installGuardrails(controlPlane) });
  pool = kubeConfig.createPool();
  names = new Map();
  for (const name of ['automation-guardrails', 'automation-guardrails-kill']) {
    const schema = await getObject<{ metadata: { uid: string } }>(
      controlPlane,
      'flowschema',
      name,
      '',
    );
    names.set(schema?.metadata.uid ?? '', name);
  }
  await waitFor('the levels to be in force', async () => {
    const name = await flowOf('GET', `${ours}/killswitches/invoice`);
    return name === 'automation-guardrails-kill';
  });
});

afterAll(async () => {
  await kubeConfig?.closeConnections();
  await controlPlane?.stop();
});

const core = '/api/v1/namespaces/finance';
const apps = '/apis/apps/v1/namespaces/finance';
const ours = '/apis/automationguardrails.dev/v1alpha1/namespaces/finance';

/** The FlowSchema under which the API server handles a request of the operator. */
async function flowOf(method: Dispatcher.HttpMethod, path: string): Promise<string | undefined> {
  const { server, headers, dispatcher }: Connection = await pool.connect();
  const hasBody = method === 'POST' || method === 'PATCH';
  const response = await request(`${server}${path}`, {
    method,
    dispatcher,
    headers: {
      ...headers,
      ...(hasBody && {
        'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
      }),
    },
    ...(hasBody && { body: '{}' }),
  });
  await response.body.dump();
  const uid = String(response.headers['x-kubernetes-pf-flowschema-uid'] ?? '');
  return names.get(uid);
}

describe('the requests of the operator', () => {
  it.each([
    ['POST', `${ours}/killswitches`],
    ['PATCH', `${ours}/killswitches/invoice`],
    ['PATCH', `${ours}/killswitches/invoice/status`],
    ['DELETE', `${ours}/killswitches/invoice`],
    ['GET', `${ours}/automationworkflows/invoice`],
    ['PATCH', `${ours}/automationidentities/invoice`],
    ['PATCH', `${apps}/deployments/work`],
    ['PATCH', `${apps}/daemonsets/work`],
    ['PATCH', '/apis/batch/v1/namespaces/finance/jobs/work'],
    ['PATCH', '/apis/keda.sh/v1alpha1/namespaces/finance/scaledobjects/work'],
    ['GET', `${core}/pods?fieldSelector=spec.serviceAccountName%3Dinvoice`],
    ['PATCH', `${core}/pods/work`],
    ['DELETE', `${core}/pods/work`],
    ['GET', `${ours}/killswitches`],
    ['DELETE', `${core}/serviceaccounts/invoice`],
    ['GET', `${core}/secrets/aid.invoice.database`],
    ['DELETE', '/apis/rbac.authorization.k8s.io/v1/namespaces/finance/rolebindings/invoice'],
    ['GET', '/apis/networking.k8s.io/v1/namespaces/finance/networkpolicies'],
    ['POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews'],
    ['PATCH', '/api/v1/namespaces/finance'],
  ] as const)('have a level of their own where they kill: %s %s', async (method, path) => {
    expect(await flowOf(method, path)).toBe('automation-guardrails-kill');
  });

  it.each([
    ['GET', '/api/v1/pods?limit=1'],
    ['GET', '/apis/automationguardrails.dev/v1alpha1/killswitches?limit=1'],
    ['PATCH', `${ours}/automationworkflows/invoice/status`],
    ['PATCH', `${core}/serviceaccounts/invoice`],
    ['PATCH', `${core}/secrets/aid.invoice.database`],
    ['PATCH', '/apis/rbac.authorization.k8s.io/v1/namespaces/finance/rolebindings/invoice'],
    ['POST', '/apis/events.k8s.io/v1/namespaces/finance/events'],
    ['GET', '/apis/coordination.k8s.io/v1/namespaces/automation-guardrails/leases/x'],
  ] as const)('have another level for everything else: %s %s', async (method, path) => {
    expect(await flowOf(method, path)).toBe('automation-guardrails');
  });
});
