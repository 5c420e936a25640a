import { z } from 'zod';
import type { OptionDocs } from './config.ts';

/** How the operator reaches a vault; whoever writes an AutomationIdentity has no say in it. */
export interface VaultConfig {
  /** Scheme, host and port. */
  address: string;
  /** PEM file of the authorities that may sign its certificate; Node's own if `undefined`. */
  caFile: string | undefined;
  namespace: string | undefined;
  mount: string;
  pathPrefix: string;
  authMount: string;
  /** Roles of the auth method. */
  roles: { identity: string; operator: string };
  audience: string;
  /** File with the operator's own token for the vault. */
  tokenFile: string;
}

/** Letters, digits, `-` and `_`, in parts between slashes: nothing that could leave its place. */
const place = z
  .string()
  .max(128)
  .regex(
    /^[A-Za-z0-9_-]+(\/[A-Za-z0-9_-]+)*$/,
    'must consist of letters, digits, - and _, in parts between slashes',
  );

const role = z
  .string()
  .max(128)
  .regex(/^[A-Za-z0-9_.-]+$/, 'must be the name of a role');

const file = z.string().min(1).max(4_096);

function option<S extends z.ZodType>(schema: S, docs: OptionDocs): S {
  return schema.meta({ ...docs });
}

/** The options of the command line that are about a vault. */
export const vaultOptions = {
  vaultAddress: option(
    z
      .string()
      .transform((value, context) => {
        const url = URL.canParse(value) ? new URL(value) : undefined;
        // Nothing else than scheme, host and port, so that nothing of it is left unused.
        if (url !== undefined && /^https?:$/.test(url.protocol) && url.href === `${url.origin}/`) {
          return url.origin;
        }
        context.addIssue('must be an address such as https://vault.example.com:8200');
        return z.NEVER;
      })
      .optional(),
    {
      value: 'URL',
      description:
        'Vault or OpenBao that secrets with `store: Vault` are copied to. Without it, there is none.',
    },
  ),
  vaultAllowHttp: option(
    z.enum(['true', 'false'], 'must be true or false').transform((value) => value === 'true'),
    {
      value: 'BOOLEAN',
      default: 'false',
      description:
        'Allow an `http://` address: credentials, and tokens of identities, then go over the network in plain text. For tests.',
    },
  ),
  vaultCaFile: option(file.optional(), {
    value: 'FILE',
    description:
      "PEM file with the authorities that may sign the vault's certificate; without it, the well-known ones.",
  }),
  vaultNamespace: option(place.optional(), {
    value: 'NAME',
    description: 'Namespace of Vault Enterprise or OpenBao; without it, the root namespace.',
  }),
  vaultMount: option(place, {
    value: 'PATH',
    default: 'secret',
    description: 'Where the key-value engine is mounted; version 2.',
  }),
  vaultPathPrefix: option(place, {
    value: 'PATH',
    default: 'automation-guardrails',
    description:
      'What precedes `<namespace>/<identity>/<name>` in the engine. Of clusters that share one, each needs its own.',
  }),
  vaultAuthMount: option(place, {
    value: 'PATH',
    default: 'kubernetes',
    description: 'Where the Kubernetes auth method of this cluster is mounted.',
  }),
  vaultRole: option(role, {
    value: 'NAME',
    default: 'automation-guardrails-identity',
    description: 'Role by which each identity logs in to write its own copies.',
  }),
  vaultOperatorRole: option(role, {
    value: 'NAME',
    default: 'automation-guardrails',
    description: 'Role by which the operator logs in to destroy copies at a kill.',
  }),
  vaultAudience: option(
    z
      .string()
      .max(256)
      .regex(/^[!-~]+$/, 'must be one word of visible ASCII characters'),
    {
      value: 'AUDIENCE',
      default: 'vault',
      description:
        "Audience of the tokens that identities log in with, as the role has it. Never one of the API server's own.",
    },
  ),
  vaultTokenFile: option(file, {
    value: 'FILE',
    default: '/var/run/secrets/automation-guardrails/vault/token',
    description:
      "File with the operator's own token for the vault, which the chart mounts. It is read anew each time.",
  }),
};

/** What the options say, as they were parsed. */
type Parsed = z.infer<z.ZodObject<typeof vaultOptions>>;

/** @returns `undefined` where there is no vault, or a problem, one sentence */
export function vaultConfigOf(parsed: Parsed): VaultConfig | string | undefined {
  const { vaultAddress: address } = parsed;
  if (address === undefined) return undefined;
  if (!address.startsWith('https:') && !parsed.vaultAllowHttp) {
    return '--vault-address must begin with https://: credentials go there. For a test, add --vault-allow-http.';
  }
  return {
    address,
    caFile: parsed.vaultCaFile,
    namespace: parsed.vaultNamespace,
    mount: parsed.vaultMount,
    pathPrefix: parsed.vaultPathPrefix,
    authMount: parsed.vaultAuthMount,
    roles: { identity: parsed.vaultRole, operator: parsed.vaultOperatorRole },
    audience: parsed.vaultAudience,
    tokenFile: parsed.vaultTokenFile,
  };
}
