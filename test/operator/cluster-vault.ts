import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { resources } from '../../src/api/resources.ts';
import { Metrics } from '../../src/observability/metrics.ts';
import { ApiServerClient, type KubeClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import type { ControlPlane } from '../control-plane/control-plane.ts';
import { FakeVault, type Reviewed } from '../fault/fake-vault.ts';
import { kubectlOk } from './cluster.ts';
import { setUpVault } from './vault-setup.ts';

const places = { mount: 'secret', authMount: 'kubernetes', pathPrefix: 'automation-guardrails' };

/** A fake vault that trusts a control plane, set up as the guide says. */
export interface ClusterVault {
  vault: FakeVault;
  /** Flags by which an operator finds it. */
  args: readonly string[];
  /** Whose a token is, for an audience; `undefined` where the API server doesn't take it. */
  review: (token: string, audience: string) => Promise<Reviewed | undefined>;
  stop: () => Promise<void>;
}

/** @param namespaces whose identities may log in */
export async function startClusterVault(
  controlPlane: ControlPlane,
  namespaces: readonly string[],
): Promise<ClusterVault> {
  const kubeConfig = new PooledKubeConfig().load({ kubeconfig: controlPlane.kubeconfigPath });
  const metrics = new Metrics();
  const client = new ApiServerClient({ kubeConfig, userAgent: 'cluster-vault', metrics });
  const review = (token: string, audience: string): Promise<Reviewed | undefined> =>
    reviewToken(client, token, audience);
  const vault = new FakeVault({ review });
  const address = await vault.start();
  await setUpVault({ address, rootToken: vault.rootToken }, places, { namespaces });
  const account = ['automation-guardrails', '-n=automation-guardrails'];
  const token = await kubectlOk(controlPlane, ['create', 'token', ...account, '--audience=vault']);
  const file = path.join(controlPlane.dataDir, 'vault-token');
  await writeFile(file, token);
  return {
    vault,
    args: [`--vault-address=${address}`, '--vault-allow-http', `--vault-token-file=${file}`],
    review,
    stop: async () => {
      await vault.stop();
      await kubeConfig.closeConnections();
    },
  };
}

/** Asks the API server, as a real vault does. */
async function reviewToken(
  client: Pick<KubeClient, 'create'>,
  token: string,
  audience: string,
): Promise<Reviewed | undefined> {
  const { status } = await client.create(resources.tokenReviews, {
    metadata: { name: '' },
    spec: { token, audiences: [audience] },
  });
  const { username = '', uid = '' } = status?.user ?? {};
  const [, , namespace = '', name = ''] = username.split(':');
  return status?.authenticated === true ? { namespace, name, uid } : undefined;
}
