import { readFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import type { VaultConfig } from '../../config-vault.ts';
import type { Logger } from '../../observability/logger.ts';
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
  log: Pick<Logger, 'error'>;
}

/**
 * The store that the operator was told of. Without the file of its authorities it answers
 * `Unavailable`, until that can be read: a vault that can't be reached keeps no kill from working.
 *
 * @param config `undefined` where there is none
 */
export function createSecretStore(
  config: VaultConfig | undefined,
  { client, userAgent, clock, log }: SecretStoreDependencies,
): SecretStore {
  if (config === undefined) return noSecretStore;
  const { address, caFile, namespace, authMount, mount, pathPrefix, roles, audience } = config;
  const readCa = caFile === undefined ? undefined : () => readFileSync(caFile, 'utf8');
  try {
    readCa?.();
  } catch (error) {
    log.error("The authorities of the vault's certificate cannot be read", { caFile, error });
  }
  return new VaultStore({
    client: new VaultClient({
      address,
      readCa,
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
