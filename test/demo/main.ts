/**
 * `npm run demo`: the story of one automation on a real control plane, each step verified.
 *
 * `--once` ends after the story, with 0 only if every step was verified; without it the cluster
 * stays until Ctrl-C.
 */
import { createWriteStream } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { secretNameOf } from '../../src/api/names.ts';
import { run as guardrails } from '../../src/cli/run.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { signalled } from '../control-plane/signalled.ts';
import { waitFor } from '../control-plane/wait.ts';
import {
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  sampleManifests,
  waitForCondition,
} from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const namespace = 'finance';
const name = 'invoice-posting';
const poster = 'invoice-poster';
const importer = 'invoice-import';

const colour = process.stdout.isTTY || process.env['FORCE_COLOR'] === '1';
const paint = (code: number, text: string): string =>
  colour ? `\u001B[${code}m${text}\u001B[0m` : text;
const bold = (text: string): string => paint(1, text);
const dim = (text: string): string => paint(2, text);
const green = (text: string): string => paint(32, text);
const red = (text: string): string => paint(31, text);

const say = (text = ''): void => console.log(text);

let verified = 0;
let failed = 0;
let stepStarted = performance.now();

function step(title: string, account: string): void {
  say();
  say(bold(title));
  say(dim(account));
  stepStarted = performance.now();
}

/** One line of the account: what was looked at, and whether it is so. */
async function verify(what: string, look: () => Promise<unknown>): Promise<void> {
  try {
    const answer = await look();
    if (answer === false || answer === undefined) throw new Error('it is not so');
    verified++;
    const took = `${(performance.now() - stepStarted).toFixed(0)} ms`;
    const shown = typeof answer === 'string' ? `  ${dim(answer)}` : '';
    say(`  ${green('✓')} ${what} ${dim(`(${took})`)}${shown}`);
  } catch (error) {
    failed++;
    say(`  ${red('✗')} ${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

interface Workload {
  spec: { replicas?: number; suspend?: boolean };
  metadata: { managedFields?: { manager: string; fieldsV1?: Record<string, unknown> }[] };
}

interface PodObject {
  spec: { serviceAccountName?: string };
  status?: { phase?: string };
  metadata: { name: string; deletionTimestamp?: string };
}

const livePods = async (controlPlane: ControlPlane): Promise<PodObject[]> =>
  (await listObjects<PodObject>(controlPlane, 'pods', namespace)).filter(
    ({ spec, status }) => spec.serviceAccountName === name && status?.phase !== 'Succeeded',
  );

async function story(controlPlane: ControlPlane): Promise<void> {
  const kubectl = (args: string[], as?: string): Promise<string> =>
    kubectlOk(controlPlane, [...args, `-n=${namespace}`], as === undefined ? {} : { as });
  const cli = async (as: string, ...argv: string[]): Promise<boolean> => {
    say(dim(`  $ kubectl guardrails ${argv.join(' ')}   (as ${as})`));
    const code = await guardrails({
      argv: [
        ...argv,
        `--namespace=${namespace}`,
        `--as=${as}`,
        `--kubeconfig=${controlPlane.kubeconfigPath}`,
      ],
      stdout: (line) => say(`    ${line}`),
      stderr: (line) => say(`    ${line}`),
    });
    return code === 0;
  };
  const secretOf = async (): Promise<
    | {
        data: Record<string, string>;
        metadata: { annotations: Record<string, string> };
      }
    | undefined
  > => getObject(controlPlane, 'secret', secretNameOf(name, 'database'), namespace);
  const ref = { name, namespace };

  step(
    '1. Provisioned',
    'Finance applies its automation: identity, workflow, a Deployment and a CronJob.',
  );
  await controlPlane.apply(await sampleManifests());
  await verify('the identity is ready: ServiceAccount, Role and RoleBinding', async () => {
    await waitForCondition(controlPlane, { kind: 'aid', ...ref }, 'Ready');
    const objects = await kubectl(['get', 'serviceaccount,role,rolebinding', name, '-o=name']);
    return objects.trim().split('\n').length === 3;
  });
  await verify('its permissions are what it declared, and no more', async () => {
    const as = `system:serviceaccount:${namespace}:${name}`;
    const may = async (...args: string[]): Promise<string> =>
      (
        await controlPlane.kubectl(['auth', 'can-i', ...args, `-n=${namespace}`], { as })
      ).stdout.trim();
    return (
      (await may('get', 'configmaps')) === 'yes' &&
      (await may('get', 'secrets')) === 'no' &&
      (await may('delete', 'pods')) === 'no'
    );
  });
  await verify('its egress is denied except for DNS and the listed destinations', async () => {
    await waitForCondition(controlPlane, { kind: 'awf', ...ref }, 'Ready');
    const policies = await listObjects<{
      spec: { policyTypes: string[] };
      metadata: { name: string };
    }>(controlPlane, 'networkpolicies', namespace);
    return policies.length > 0 && policies.every(({ spec }) => spec.policyTypes.includes('Egress'))
      ? policies.map(({ metadata }) => metadata.name).join(', ')
      : false;
  });
  await verify('its database password exists, and its pods run with it', async () => {
    await waitFor('the pods', async () => (await livePods(controlPlane)).length >= 2, {
      timeoutMs: 60_000,
    });
    return (await secretOf())?.data['password'] !== undefined;
  });

  step('2. Rotated', 'An auditor asks for a new password now; consumers are restarted.');
  const before = await secretOf();
  await kubectl(['annotate', 'aid', name, `automationguardrails.dev/rotate=${Date.now()}`]);
  await verify(
    'there is a new value, and the old one stays readable during the overlap',
    async () =>
      waitFor(
        'the rotation',
        async () => {
          const now = await secretOf();
          return (
            now?.data['password'] !== before?.data['password'] &&
            now?.data['previous.password'] === before?.data['password']
          );
        },
        { timeoutMs: 30_000 },
      ),
  );
  await verify('the Deployment that reads it was restarted once', async () =>
    waitFor(
      'the restart',
      async () =>
        (
          await kubectl([
            'get',
            'deployment',
            poster,
            '-o=jsonpath={.spec.template.metadata.annotations}',
          ])
        ).includes('restarted-at'),
      { timeoutMs: 30_000 },
    ),
  );

  step('3. Killed', 'It is 3 a.m.; the automation posts invoices twice. Alice, on call, stops it.');
  const wanted = await getObject<Workload>(controlPlane, 'deployment', poster, namespace);
  await verify('everything of it is stopped', () =>
    cli('alice', 'kill', name, '--reason', 'posts invoices twice'),
  );
  await verify('no pod of it is left', async () => (await livePods(controlPlane)).length === 0);
  await verify('its Deployment stands at 0, its CronJob is suspended', async () => {
    const deployment = await getObject<Workload>(controlPlane, 'deployment', poster, namespace);
    const cronJob = await getObject<Workload>(controlPlane, 'cronjob', importer, namespace);
    return deployment?.spec.replicas === 0 && cronJob?.spec.suspend === true;
  });
  await verify('a new pod of it is refused', async () => {
    const securityContext = {
      runAsNonRoot: true,
      runAsUser: 1000,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    };
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'sneaky', namespace },
      spec: {
        serviceAccountName: name,
        containers: [{ name: 'main', image: 'registry.example/any:1', securityContext }],
      },
    };
    const { code } = await controlPlane.kubectl(['create', '-f', '-'], {
      input: JSON.stringify(pod),
    });
    return code !== 0;
  });
  await verify('a ServiceAccount of its name is refused, with the reason', async () => {
    const { stderr, code } = await controlPlane.kubectl([
      'create',
      'serviceaccount',
      name,
      `-n=${namespace}`,
    ]);
    if (code === 0) return false;
    const said = /kill switch: [^\n]*/.exec(stderr)?.[0];
    if (said === undefined) throw new Error(stderr.trim());
    return said;
  });
  await verify('a token for it is refused', async () => {
    const { code } = await controlPlane.kubectl(['create', 'token', name, `-n=${namespace}`]);
    return code !== 0;
  });

  step(
    '4. GitOps applies it again',
    'The pipeline re-applies everything, by force, and asks for 4 replicas now.',
  );
  const manifests = (await sampleManifests()) as (Workload & {
    kind: string;
    metadata: { name: string };
  })[];
  for (const manifest of manifests) {
    if (manifest.kind === 'Deployment' && manifest.metadata.name === poster)
      manifest.spec.replicas = 4;
  }
  await controlPlane.apply(manifests);
  await verify('it stays at 0, and no pod comes up', async () => {
    const deployment = await getObject<Workload>(controlPlane, 'deployment', poster, namespace);
    return deployment?.spec.replicas === 0 && (await livePods(controlPlane)).length === 0;
  });
  await verify('deleting the KillSwitch is refused', async () => {
    const { code } = await controlPlane.kubectl(['delete', 'ksw', name, `-n=${namespace}`]);
    return code !== 0;
  });

  step('5. Released', 'The bug is fixed. Alice can not release what she stopped; Bob can.');
  await verify(
    'Alice is refused',
    async () => !(await cli('alice', 'release', name, '--reason', 'fixed')),
  );
  await verify('Bob releases it', () =>
    cli('bob', 'release', name, '--reason', 'duplicate check deployed'),
  );

  step('6. Restored', 'Everything is as its owners want it: with what they asked for meanwhile.');
  await verify(
    `the Deployment runs 4, as the pipeline asked during the kill (${wanted?.spec.replicas ?? '?'} before)`,
    async () => {
      const deployment = await getObject<Workload>(controlPlane, 'deployment', poster, namespace);
      return deployment?.spec.replicas === 4;
    },
  );
  await verify('its pods are back', async () =>
    waitFor('the pods', async () => (await livePods(controlPlane)).length >= 4, {
      timeoutMs: 60_000,
    }),
  );
  await verify('the CronJob is on its schedule, and fired no missed run', async () => {
    const cronJob = await getObject<Workload>(controlPlane, 'cronjob', importer, namespace);
    const jobs = await listObjects(controlPlane, 'jobs', namespace);
    return cronJob?.spec.suspend !== true && jobs.length === 0;
  });
  await verify('the pipeline applies again without force, and without a conflict', async () => {
    const workloads = manifests.filter(({ kind }) => kind === 'Deployment' || kind === 'CronJob');
    const input = workloads.map((manifest) => JSON.stringify(manifest)).join('\n---\n');
    const { code, stderr } = await controlPlane.kubectl(['apply', '--server-side', '-f', '-'], {
      input,
    });
    if (code !== 0) throw new Error(stderr);
    return true;
  });
  await verify('no trace is left on the workloads', async () => {
    const text = await kubectl([
      'get',
      'deployments,cronjobs',
      '-o=jsonpath={.items[*].metadata.annotations}',
    ]);
    return !/restore-|touch/.test(text);
  });
}

/** Somebody may try what happens when the operator is killed. */
async function sayWhenEnded(process: OperatorProcess | undefined, kubeconfig = ''): Promise<void> {
  const how = await process?.exited;
  if (stopping !== undefined) return;
  say(`
The operator ended (${how}); what is fenced stays fenced. Start it again:

  npm start -- --kubeconfig=${kubeconfig} --metrics-port=0 --health-port=0`);
}

const { values } = parseArgs({ options: { once: { type: 'boolean', default: false } } });
say(bold('Automation Guardrails: a real Kubernetes API server, one automation, one incident'));
const controlPlane = await startControlPlane({
  log: (line) => say(dim(line)),
  controllerManagerQps: 500,
});
let operator: OperatorProcess | undefined;
let stopping: Promise<void> | undefined;
const stop = (): Promise<void> =>
  (stopping ??= (async () => {
    await operator?.stop();
    await controlPlane.stop();
  })());
process.once('SIGINT', () => void stop());
process.once('SIGTERM', () => void stop());

let operatorKubeconfig: string | undefined;
try {
  operatorKubeconfig = await installGuardrails(controlPlane);
  const logFile = path.join(controlPlane.dataDir, 'operator.log');
  const log = createWriteStream(logFile);
  operator = await startOperator({
    kubeconfigPath: operatorKubeconfig,
    onLog: (line) => log.write(`${line}\n`),
  });
  say(`API server at ${controlPlane.server}; operator running ${dim(`(log: ${logFile})`)}`);
  await story(controlPlane);
} catch (error) {
  failed++;
  say(red(error instanceof Error ? error.message : String(error)));
}

say();
say(
  failed === 0
    ? green(`${verified} steps verified.`)
    : red(`${failed} of ${verified + failed} steps failed.`),
);
process.exitCode = failed === 0 ? 0 : 1;
if (!values.once && stopping === undefined) {
  say(`
The cluster stays. In another terminal:

  export KUBECONFIG=${controlPlane.kubeconfigPath}
  alias kubectl=${controlPlane.binaries.kubectl}

Try:
  kubectl get guardrails -A
  kubectl -n ${namespace} annotate awf ${name} automationguardrails.dev/kill-switch="just trying"
  kubectl -n ${namespace} get ksw ${name} -w

Ctrl-C ends it and removes its data.`);
  void sayWhenEnded(operator, operatorKubeconfig);
  await signalled();
}
await stop();
