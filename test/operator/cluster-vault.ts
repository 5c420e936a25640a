import { writeFile } from 'node:fs/promises';
import path from 'node:path';
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
}

/** @param namespaces whose identities may log in */
export async function startClusterVault(
  controlPlane: ControlPlane,
  namespaces: readonly string[],
): Promise<ClusterVault> {
  const vault = new FakeVault({
    review: (token, audience) => review(controlPlane, token, audience),
  });
  const address = await vault.start();
  await setUpVault({ address, rootToken: vault.rootToken }, places, { namespaces });
  const account = ['automation-guardrails', '-n=automation-guardrails'];
  const token = await kubectlOk(controlPlane, ['create', 'token', ...account, '--audience=vault']);
  const file = path.join(controlPlane.dataDir, 'vault-token');
  await writeFile(file, token);
  const args = [`--vault-address=${address}`, '--vault-allow-http', `--vault-token-file=${file}`];
  return { vault, args };
}

/** Whose a token is says the API server, as it says it to a real vault. */
async function review(
  controlPlane: ControlPlane,
  token: string,
  audience: string,
): Promise<Reviewed | undefined> {
  const tokenReview = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token, audiences: [audience] },
  };
  const answer = await kubectlOk(
    controlPlane,
    ['create', '--raw=/apis/authentication.k8s.io/v1/tokenreviews', '-f', '-'],
    { input: JSON.stringify(tokenReview) },
  );
  const { status } = JSON.parse(answer) as {
    status: { authenticated?: boolean; user?: { username: string; uid: string } };
  };
  const { username = '', uid = '' } = status.user ?? {};
  const [, , of = '', name = ''] = username.split(':');
  return status.authenticated === true ? { namespace: of, name, uid } : undefined;
}
