import { readFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import type { VaultConfig } from '../../config-vault.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { IdentityTokens } from './identity-token.ts';
import { noSecretStore, type SecretStore } from './store.ts';
import { VaultClient } from './vault-client.ts';
import { VaultStore } from './vault.ts';

export interface SecretStoreDependencies {
  /** Asks for the tokens of identities; writes only while this process leads. */
  client: KubeClient;
  /** `name/version` of this program. */
  userAgent: string;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * The store that the operator was told of.
 *
 * @param config `undefined` where there is none
 * @throws Error where the file of authorities can't be read
 */
export function createSecretStore(
  config: VaultConfig | undefined,
  { client, userAgent, clock }: SecretStoreDependencies,
): SecretStore {
  if (config === undefined) return noSecretStore;
  const { address, caFile, namespace, authMount, mount, pathPrefix, roles, audience } = config;
  return new VaultStore({
    client: new VaultClient({
      address,
      ca: caFile === undefined ? undefined : readFileSync(caFile, 'utf8'),
      namespace,
      authMount,
      mount,
      userAgent,
    }),
    tokens: new IdentityTokens({ client, audience, clock }),
    readOwnToken: async () => (await readFile(config.tokenFile, 'utf8')).trim(),
    roles,
    mount,
    pathPrefix,
    clock,
    random: Math.random,
  });
}
