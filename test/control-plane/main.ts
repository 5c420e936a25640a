/** `npm run control-plane`: a real API server to play with, until Ctrl-C. */
import { startControlPlane } from './control-plane.ts';

const log = (line: string): void => console.log(line);
log('Starting a control plane…');
const started = performance.now();
const controlPlane = await startControlPlane({ log });
log(`Ready after ${((performance.now() - started) / 1000).toFixed(1)} s.

  export KUBECONFIG=${controlPlane.kubeconfigPath}
  alias kubectl=${controlPlane.binaries.kubectl}

Try:
  kubectl get nodes
  kubectl apply -k config/crds
  kubectl explain awf.spec

Ctrl-C ends it and removes its data.`);

const keepAlive = setInterval(() => undefined, 60_000);
const stop = (): void => {
  clearInterval(keepAlive);
  log('\nStopping…');
  void controlPlane.stop();
};
process.once('SIGINT', stop);
process.once('SIGTERM', stop);
