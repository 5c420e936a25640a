import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadAll } from 'js-yaml';
import type { Condition } from '../../src/api/objects.ts';
import type { ControlPlane, KubectlOptions } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));

const operatorNamespace = 'automation-guardrails';

/**
 * Installs everything but the operator's own Deployment, and waits until it is in force.
 *
 * @param options `mutation: false` for a Kubernetes that serves no MutatingAdmissionPolicy
 * @returns path of a kubeconfig with the operator's own ServiceAccount, and so with its rights only
 */
export async function installGuardrails(
  controlPlane: ControlPlane,
  { mutation = true }: { mutation?: boolean } = {},
): Promise<string> {
  const apply = (...args: string[]): Promise<string> =>
    kubectlOk(controlPlane, ['apply', '--server-side', ...args]);
  const file = (name: string): string => path.join(root, 'config', name);
  await apply('-f', file('operator/namespace.yaml'), '-f', file('operator/service-account.yaml'));
  await apply('-k', file('crds'));
  await apply('-k', file('rbac'));
  await apply('-k', file('probe'));
  await apply('-k', file('flow-control'));
  await waitUntilEstablished(controlPlane, [
    'crd/automationworkflows.automationguardrails.dev',
    'crd/automationidentities.automationguardrails.dev',
    'crd/killswitches.automationguardrails.dev',
    'crd/clusterkillswitches.automationguardrails.dev',
    'crd/guardrailpolicies.automationguardrails.dev',
    'crd/approvals.automationguardrails.dev',
    'crd/accessreviews.automationguardrails.dev',
    'crd/workflowrevisions.automationguardrails.dev',
    'crd/evidencesegments.automationguardrails.dev',
  ]);
  await apply('-k', file(mutation ? 'admission' : 'admission/validating'));
  return guardrailsInForce(controlPlane, { mutation });
}

/**
 * Waits until what somebody installed is in force.
 *
 * @returns as {@link installGuardrails}
 */
export async function guardrailsInForce(
  controlPlane: ControlPlane,
  { mutation = true }: { mutation?: boolean } = {},
): Promise<string> {
  await waitUntilFenceIsActive(controlPlane, mutation);
  return operatorKubeconfig(controlPlane);
}

function operatorKubeconfig(controlPlane: ControlPlane): Promise<string> {
  const account = { namespace: operatorNamespace, name: 'automation-guardrails' };
  return serviceAccountKubeconfig(controlPlane, account);
}

/** @returns path of a kubeconfig with the rights of a ServiceAccount, for a day */
export async function serviceAccountKubeconfig(
  controlPlane: ControlPlane,
  { namespace, name }: { namespace: string; name: string },
): Promise<string> {
  const token = await kubectlOk(controlPlane, [
    'create',
    'token',
    name,
    `-n=${namespace}`,
    '--duration=24h',
  ]);
  const config = await readFile(controlPlane.kubeconfigPath, 'utf8');
  const target = path.join(controlPlane.dataDir, `${namespace}.${name}-kubeconfig.yaml`);
  await writeFile(target, config.replaceAll(controlPlane.adminToken, token.trim()), {
    mode: 0o600,
  });
  return target;
}

/** A policy that was just created is compiled about a second later: ask until it answers. */
async function waitUntilFenceIsActive(
  controlPlane: ControlPlane,
  mutation: boolean,
): Promise<void> {
  const namespace = 'admission-warm-up';
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'automationguardrails.dev/environment': 'test' } },
    },
  ]);
  await waitFor(
    'the answer of the admission policies',
    async () => {
      const { stdout, stderr } = await controlPlane.kubectl(
        ['create', '--dry-run=server', '-o=jsonpath={.spec.engagedBy}', '-f', '-'],
        {
          input: JSON.stringify({
            apiVersion: 'automationguardrails.dev/v1alpha1',
            kind: 'KillSwitch',
            metadata: { name: 'probe', namespace },
            spec: { workflow: 'probe', reason: 'are the policies in force?' },
          }),
        },
      );
      return mutation ? stdout === 'admin' : stderr.includes('engagedBy is the authenticated user');
    },
    { timeoutMs: 120_000 },
  );
  await waitUntilPoliciesRefuse(controlPlane, namespace);
  await controlPlane.kubectl(['delete', 'namespace', namespace, '--wait=false']);
}

/**
 * What refuses is compiled apart from what writes, and later. The API server learns of policies in
 * the order in which they were created: once it knows the last one, it knows all.
 */
async function waitUntilPoliciesRefuse(
  controlPlane: ControlPlane,
  namespace: string,
): Promise<void> {
  const apiVersion = 'admissionregistration.k8s.io/v1';
  const name = 'admission-warm-up';
  const message = 'every policy is in force';
  const matchConstraints = {
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
    resourceRules: [
      { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['configmaps'] },
    ],
  };
  await controlPlane.apply([
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicy',
      metadata: { name },
      spec: { matchConstraints, validations: [{ expression: 'false', message }] },
    },
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata: { name },
      spec: { policyName: name, validationActions: ['Deny'] },
    },
  ]);
  const create = ['create', 'configmap', 'probe', `-n=${namespace}`, '--dry-run=server'];
  await waitFor(
    'the refusal by the policy that was created last',
    async () => (await controlPlane.kubectl(create)).stderr.includes(message),
    { timeoutMs: 120_000 },
  );
  const kinds = 'validatingadmissionpolicy,validatingadmissionpolicybinding';
  await kubectlOk(controlPlane, ['delete', kinds, name]);
}

/** Applies files with CustomResourceDefinitions, and waits until they are served. */
export async function applyCrds(controlPlane: ControlPlane, files: string[]): Promise<void> {
  const args = files.flatMap((file) => ['-f', file]);
  await kubectlOk(controlPlane, ['apply', '--server-side', ...args]);
  await waitUntilEstablished(controlPlane, args);
}

/**
 * Waits until CustomResourceDefinitions are served.
 *
 * @param which as kubectl takes it: `-f FILE`, `crd/NAME`, or `crd --all`
 */
export async function waitUntilEstablished(
  controlPlane: ControlPlane,
  which: readonly string[],
): Promise<void> {
  // kubectl itself fails where an object has no conditions yet.
  await waitFor('CustomResourceDefinitions to be served', async () => {
    await kubectlOk(controlPlane, ['wait', '--for=condition=Established', ...which]);
    return true;
  });
}

/** Runs kubectl. @returns what it printed @throws Error with its message when it fails */
export async function kubectlOk(
  controlPlane: ControlPlane,
  args: readonly string[],
  options: KubectlOptions = {},
): Promise<string> {
  const { stdout, stderr, code } = await controlPlane.kubectl(args, options);
  if (code !== 0) throw new Error(`kubectl ${args.join(' ')} failed: ${stderr.trim()}`);
  return stdout;
}

/** An object, or `undefined` where it doesn't exist. */
export async function getObject<T = Record<string, unknown>>(
  controlPlane: ControlPlane,
  kind: string,
  name: string,
  namespace: string,
): Promise<T | undefined> {
  return (await controlPlane.objects.get(kind, name, namespace)) as T | undefined;
}

/** All objects of a kind in a namespace. */
export async function listObjects<T = Record<string, unknown>>(
  controlPlane: ControlPlane,
  kinds: string,
  namespace: string,
): Promise<T[]> {
  return (await controlPlane.objects.list(kinds, namespace)) as T[];
}

/** Waits until a condition of an object has a status. */
export async function waitForCondition(
  controlPlane: ControlPlane,
  { kind, name, namespace }: { kind: string; name: string; namespace: string },
  type: string,
  status = 'True',
): Promise<Condition> {
  return waitFor(
    `${kind} ${namespace}/${name} to be ${type}=${status}`,
    async () => {
      const object = await getObject<{ status?: { conditions?: Condition[] } }>(
        controlPlane,
        kind,
        name,
        namespace,
      );
      return object?.status?.conditions?.find(
        (condition) => condition.type === type && condition.status === status,
      );
    },
    { timeoutMs: 120_000, intervalMs: 100 },
  );
}

/** Waits until a namespace has exactly so many pods, all of them running and none about to go. */
export async function waitForPods(
  controlPlane: ControlPlane,
  namespace: string,
  count: number,
): Promise<void> {
  await waitFor(
    `${count} running pods in ${namespace}`,
    async () => {
      const pods = await listObjects<{
        metadata: { deletionTimestamp?: string };
        status?: { phase?: string };
      }>(controlPlane, 'pods', namespace);
      return (
        pods.length === count &&
        pods.every(
          ({ status, metadata }) =>
            status?.phase === 'Running' && metadata.deletionTimestamp === undefined,
        )
      );
    },
    { timeoutMs: 120_000 },
  );
}

/** Waits until an object doesn't exist any more. */
export async function waitUntilGone(
  controlPlane: ControlPlane,
  { kind, name, namespace }: { kind: string; name: string; namespace: string },
): Promise<void> {
  await waitFor(
    `${kind} ${namespace}/${name} to be gone`,
    async () => (await getObject(controlPlane, kind, name, namespace)) === undefined,
    { timeoutMs: 120_000 },
  );
}

/** Somebody else than the administrator who engages, for {@link kubectlOk}: the second person. */
export const bob: KubectlOptions = { as: 'bob', asGroups: ['system:masters'] };

/** The samples of config/samples, without the KillSwitch, in the order in which they apply. */
export async function sampleManifests(): Promise<object[]> {
  const folder = path.join(root, 'config/samples');
  const files = ['namespace', 'people', 'automation-identity', 'workflow', 'workloads'];
  const present = new Set(await readdir(folder));
  const texts = await Promise.all(
    files
      .filter((file) => present.has(`${file}.yaml`))
      .map((file) => readFile(path.join(folder, `${file}.yaml`), 'utf8')),
  );
  return texts.flatMap((text) => loadAll(text).filter((document) => document !== null) as object[]);
}
