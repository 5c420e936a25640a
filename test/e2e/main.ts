/**
 * `npm run e2e`: from an empty cluster to a kill, a release and back, by the commands of
 * docs/getting-started.md.
 */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { parseArgs } from 'node:util';

const root = path.dirname(path.dirname(import.meta.dirname));

const { values } = parseArgs({
  options: {
    kind: { type: 'boolean', default: false },
    kubernetes: { type: 'string', default: '1.36' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (values.help) {
  console.log(`Usage: npm run e2e -- [--kubernetes 1.35 | --kind]
  --kubernetes 1.35  the built-in control plane without MutatingAdmissionPolicy; default: 1.36
  --kind             a new kind cluster; needs docker and kind on the PATH. KIND_NODE_IMAGE says
                     which Kubernetes: kindest/node:v1.35.0`);
} else if (values.kubernetes !== '1.36' && values.kubernetes !== '1.35') {
  console.error(`--kubernetes knows 1.36 and 1.35, not ${values.kubernetes}`);
  process.exitCode = 2;
} else {
  const vitest = path.join(root, 'node_modules/vitest/vitest.mjs');
  const child = spawn(process.execPath, [vitest, 'run', '--project=integration', 'test/e2e/'], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, E2E_CLUSTER: values.kind ? 'kind' : values.kubernetes },
  });
  child.once('exit', (code) => {
    process.exitCode = code ?? 1;
  });
}
