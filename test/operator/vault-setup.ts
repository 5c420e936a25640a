import { readFileSync } from 'node:fs';

/** A vault to test against, with a token that may do all. */
export interface TestVault {
  address: string;
  rootToken: string;
}

/** Where a test keeps its own things, in a vault that may be a real one. */
export interface VaultPlaces {
  mount: string;
  authMount: string;
  pathPrefix: string;
}

/** A vault's own API, as whoever administers it. @throws Error where it refuses */
export async function administer(
  { address, rootToken }: TestVault,
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: object,
): Promise<unknown> {
  const response = await fetch(`${address}/v1/${path}`, {
    method,
    headers: { 'x-vault-token': rootToken, 'x-vault-request': 'true' },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text === '' ? undefined : JSON.parse(text);
}

/**
 * Sets a vault up as `docs/guides/vault.md` says, by the policies that stand there.
 *
 * @param options.namespaces whose identities may log in
 * @param options.kubernetes what the auth method is told of the API server; a fake needs nothing
 * @returns takes all of it away again
 */
export async function setUpVault(
  vault: TestVault,
  { mount, authMount, pathPrefix }: VaultPlaces,
  {
    namespaces,
    kubernetes = {},
  }: {
    namespaces: readonly string[];
    kubernetes?: object;
  },
): Promise<() => Promise<void>> {
  await administer(vault, 'POST', `sys/mounts/${mount}`, { type: 'kv', options: { version: '2' } });
  await administer(vault, 'POST', `sys/auth/${authMount}`, { type: 'kubernetes' });
  await administer(vault, 'POST', `auth/${authMount}/config`, kubernetes);
  const accessor = await accessorOf(vault, authMount);
  const roles = {
    'automation-guardrails-identity': { names: '*', namespaces: namespaces.join(',') },
    'automation-guardrails': {
      names: 'automation-guardrails',
      namespaces: 'automation-guardrails',
    },
  };
  for (const [name, role] of Object.entries(roles)) {
    const policy = policyInGuide(`${name}.hcl`)
      .replaceAll('ACCESSOR', accessor)
      .replaceAll('"secret/', `"${mount}/`)
      .replaceAll('/automation-guardrails/', `/${pathPrefix}/`);
    await administer(vault, 'POST', `sys/policies/acl/${authMount}-${name}`, { policy });
    await administer(vault, 'POST', `auth/${authMount}/role/${name}`, {
      bound_service_account_names: role.names,
      bound_service_account_namespaces: role.namespaces,
      audience: 'vault',
      token_policies: `${authMount}-${name}`,
      token_type: 'batch',
      token_ttl: '120',
      token_no_default_policy: true,
    });
  }
  return async () => {
    await administer(vault, 'DELETE', `sys/mounts/${mount}`);
    await administer(vault, 'DELETE', `sys/auth/${authMount}`);
    for (const name of Object.keys(roles)) {
      await administer(vault, 'DELETE', `sys/policies/acl/${authMount}-${name}`);
    }
  };
}

/** The block of the guide whose first line names that file. */
export function policyInGuide(file: string): string {
  const guide = readFileSync(new URL('../../docs/guides/vault.md', import.meta.url), 'utf8');
  const blocks = [...guide.matchAll(/```hcl\n# (\S+)\n([\s\S]*?)```/g)];
  const [, , policy] = blocks.find(([, name]) => name === file) ?? [];
  if (policy === undefined) throw new Error(`docs/guides/vault.md has no policy ${file}`);
  return policy;
}

async function accessorOf(vault: TestVault, authMount: string): Promise<string> {
  const answer = (await administer(vault, 'GET', 'sys/auth')) as {
    data: Record<string, { accessor: string }>;
  };
  const accessor = answer.data[`${authMount}/`]?.accessor;
  if (accessor === undefined) throw new Error(`${authMount} isn't mounted`);
  return accessor;
}
