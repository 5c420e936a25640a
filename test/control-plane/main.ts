/** `npm run control-plane`: a real Kubernetes API server to play with, until Ctrl-C. */
import { parseArgs } from 'node:util';
import { startControlPlane, type ControlPlaneOptions } from './control-plane.ts';
import { signalled } from './signalled.ts';

const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: '1' },
    'kubernetes-version': { type: 'string' },
    audit: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
const nodes = Number(values.nodes);
const { 'kubernetes-version': version } = values;

if (values.help) {
  console.log(`Usage: npm run control-plane -- [--nodes N] [--audit] [--keep] [--kubernetes-version 1.35]
  --nodes N  simulated nodes (default 1)
  --audit    write an audit log of all requests
  --keep     keep data and logs after the end
  --kubernetes-version 1.35
             without MutatingAdmissionPolicy; default: 1.36`);
} else if (!Number.isInteger(nodes) || nodes < 0) {
  console.error(`--nodes wants a number of nodes, not ${values.nodes}`);
  process.exitCode = 2;
} else if (version !== undefined && version !== '1.35') {
  console.error(`--kubernetes-version knows 1.35 alone, not ${version}`);
  process.exitCode = 2;
} else {
  try {
    await runUntilAsked(version === undefined ? {} : { version });
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}

async function runUntilAsked(options: Pick<ControlPlaneOptions, 'version'>): Promise<void> {
  console.log('Starting a control plane…');
  const { audit, keep } = values;
  await using controlPlane = await startControlPlane({
    ...options,
    log: console.log,
    nodes,
    audit,
    keep,
    // At its default rate, the controller manager alone takes six seconds to start.
    controllerManagerQps: 200,
  });
  console.log(`
  export KUBECONFIG=${controlPlane.kubeconfigPath}
  alias kubectl=${controlPlane.binaries.kubectl}

Try:
  kubectl get nodes
  kubectl create deployment web --image=nginx --replicas=3
  kubectl get pods -o wide

Data and logs: ${controlPlane.dataDir}${keep ? '' : ' (removed at the end)'}${audit ? `\nAudit log: ${controlPlane.auditLogPath}` : ''}
Ctrl-C ends it.`);
  await signalled();
  console.log('\nStopping…');
}
