import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { readClaims } from '../../src/guardrails/credentials/token.ts';

/** Whose a token is, as a TokenReview says. */
export interface Reviewed {
  namespace: string;
  name: string;
  uid: string;
}

/** How a request is answered, other than as Vault would. */
export type VaultFault =
  /** Nothing is done. */
  | { kind: 'status'; status: number }
  /** All is done, and the answer is an error. */
  | { kind: 'commit'; status: number }
  /** All is done, and the connection ends without an answer. */
  | { kind: 'reset' }
  /** No answer comes. */
  | { kind: 'hang' }
  /** An answer that doesn't end for long. */
  | { kind: 'huge' }
  | { kind: 'redirect'; location: string };

export interface FakeVaultOptions {
  /** As the Kubernetes auth method asks: whose the token is, for that audience. */
  review?: (jwt: string, audience: string) => Promise<Reviewed | undefined>;
  /** Milliseconds since the epoch. */
  clock?: () => number;
}

interface Version {
  data: Record<string, unknown> | undefined;
  createdTime: string;
  deletionTime: string;
  destroyed: boolean;
}

interface Key {
  currentVersion: number;
  customMetadata: Record<string, string> | null;
  maxVersions: number;
  casRequired: boolean;
  versions: Map<number, Version>;
}

interface Role {
  names: string[];
  namespaces: string[];
  audience: string;
  policies: string[];
  ttlSeconds: number;
}

interface Token {
  policies: readonly string[];
  /** Of the alias, for templates in policies. */
  metadata: Record<string, string>;
  expiresAt: number;
}

/** A request as the fake got it; bodies are not kept. */
export interface VaultRequest {
  method: string;
  /** Below `/v1/`. */
  path: string;
}

type Capability = 'create' | 'read' | 'update' | 'delete' | 'list';

/** Answer of one path: a status, and a body where there is one. */
type Answer = [status: number, body?: object];

/**
 * **A fake**, since the real Vault can't be built from its module here: as much of Vault's HTTP API
 * as copies of credentials touch, written from its API documentation (KV version 2, Kubernetes
 * auth, ACL policies with `+`, `*` and templates of the alias) and held to it by contract tests that
 * can be run against a real Vault or OpenBao (`npm run test:vault`). Plain HTTP, one process, no
 * storage; namespaces, leases, response wrapping, `list` and patch are not there.
 */
export class FakeVault {
  readonly rootToken = randomBytes(12).toString('hex');
  readonly requests: VaultRequest[] = [];
  /** What is answered otherwise; asked before each request. */
  fault: (request: VaultRequest) => VaultFault | undefined = () => undefined;
  isSealed = false;
  /** Called with each value that is written, and each token that is issued. */
  onSecret: (text: string) => void = () => undefined;
  readonly #options: FakeVaultOptions;
  readonly #server: Server;
  readonly #mounts = new Map<string, Map<string, Key>>();
  readonly #auths = new Map<string, { accessor: string; roles: Map<string, Role> }>();
  readonly #policies = new Map<string, string>();
  readonly #tokens = new Map<string, Token>();

  constructor(options: FakeVaultOptions = {}) {
    this.#options = options;
    this.#tokens.set(this.rootToken, { policies: ['root'], metadata: {}, expiresAt: Infinity });
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch(() => response.destroy());
    });
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return this.address;
  }

  get address(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** What a key holds, whoever asks: values of versions that can be read, by their number. */
  readable(mount: string, path: string): Map<number, Record<string, unknown>> {
    const key = this.#mounts.get(mount)?.get(path);
    return new Map(
      [...(key?.versions ?? [])].flatMap(([number, version]) =>
        version.data === undefined || this.#isDeleted(version) ? [] : [[number, version.data]],
      ),
    );
  }

  /** Writes a version, as somebody else would. */
  put(mount: string, path: string, data: Record<string, unknown>): void {
    const keys = this.#mounts.get(mount);
    if (keys !== undefined) this.#writeData(keys, path, { data });
  }

  currentVersion(mount: string, path: string): number | undefined {
    return this.#mounts.get(mount)?.get(path)?.currentVersion;
  }

  /** Paths of all keys. */
  keys(mount: string): string[] {
    return [...(this.#mounts.get(mount)?.keys() ?? [])];
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const text = await bodyOf(request);
    const { method = 'GET', url = '', headers } = request;
    const path = decodeURIComponent(url.replace(/^\/v1\//, ''));
    const seen = { method, path };
    this.requests.push(seen);
    const fault = this.fault(seen);
    if (fault?.kind === 'hang') return;
    if (fault?.kind === 'status') return send(response, [fault.status, { errors: ['fault'] }]);
    if (fault?.kind === 'redirect') {
      response.writeHead(307, { location: fault.location }).end();
      return;
    }
    if (fault?.kind === 'huge') {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(`{"data": "${'x'.repeat(4 * 1024 * 1024)}"}`);
      return;
    }
    const answer = await this.#answer(method, path, text, headers);
    if (fault?.kind === 'reset') {
      response.destroy();
      return;
    }
    if (fault?.kind === 'commit') return send(response, [fault.status, { errors: ['fault'] }]);
    send(response, answer);
  }

  async #answer(
    method: string,
    path: string,
    text: string,
    headers: IncomingMessage['headers'],
  ): Promise<Answer> {
    if (this.isSealed) return [503, { errors: ['Vault is sealed'] }];
    if (headers['x-vault-request'] !== 'true') return failed(400, 'missing required header');
    const body = objectOf(text);
    const login = /^auth\/(.+)\/login$/.exec(path);
    if (login?.[1] !== undefined && method === 'POST') return await this.#login(login[1], body);
    const token = this.#tokens.get(String(headers['x-vault-token']));
    if (token === undefined || token.expiresAt <= this.#now()) return denied;
    if (path.startsWith('sys/') || path.startsWith('auth/')) {
      if (!token.policies.includes('root')) return denied;
      return method === 'DELETE' ? [204] : this.#administer(path, body);
    }
    const mount = [...this.#mounts.keys()].find((name) => path.startsWith(`${name}/`));
    if (mount === undefined) return failed(404, `no handler for route "${path}"`);
    const [, kind = '', name = ''] = /^([a-z]+)\/(.+)$/.exec(path.slice(mount.length + 1)) ?? [];
    const keys = this.#mounts.get(mount) ?? new Map<string, Key>();
    const exists = kind === 'data' || kind === 'metadata' ? keys.has(name) : true;
    const capability: Capability | undefined =
      method === 'GET' ? 'read' : method === 'DELETE' ? 'delete' : exists ? 'update' : 'create';
    if (!this.#allows(token, path, capability)) return denied;
    if (kind === 'data' && method === 'GET') return this.#readData(keys.get(name));
    if (kind === 'data' && method === 'POST') return this.#writeData(keys, name, body);
    if (kind === 'metadata' && method === 'GET') return metadataOf(keys.get(name));
    if (kind === 'metadata' && method === 'POST') return writeMetadata(keys, name, body);
    if (kind === 'metadata' && method === 'DELETE') {
      keys.delete(name);
      return [204];
    }
    if (kind === 'destroy' && method === 'POST') return destroy(keys.get(name), body);
    return failed(405, 'unsupported operation');
  }

  async #login(mount: string, body: Fields): Promise<Answer> {
    const auth = this.#auths.get(mount);
    if (auth === undefined) return denied;
    const [roleName, jwt] = [stringIn(body, 'role'), stringIn(body, 'jwt')];
    if (jwt === '') return failed(400, 'missing jwt');
    const role = auth.roles.get(roleName);
    if (role === undefined) return failed(400, `invalid role name "${roleName}"`);
    // The claims are checked first, then the API server is asked.
    if (readClaims(jwt)?.audiences.includes(role.audience) !== true) {
      return failed(403, 'invalid audience (aud) claim: audience claim does not match');
    }
    const account = await this.#options.review?.(jwt, role.audience);
    if (account === undefined) return denied;
    if (!matches(role.names, account.name))
      return failed(403, 'service account name not authorized');
    if (!matches(role.namespaces, account.namespace))
      return failed(403, 'namespace not authorized');
    const metadata = {
      service_account_name: account.name,
      service_account_namespace: account.namespace,
      service_account_uid: account.uid,
    };
    const prefix = `identity.entity.aliases.${auth.accessor}.metadata.`;
    const named = Object.entries(metadata).map(([name, value]) => [prefix + name, value]);
    return this.#issue(role.policies, Object.fromEntries(named), role.ttlSeconds, metadata);
  }

  #issue(
    policies: readonly string[],
    aliases: Record<string, string>,
    ttlSeconds: number,
    metadata: Record<string, string> = {},
  ): Answer {
    const token = `hvb.${randomBytes(24).toString('base64url')}`;
    this.onSecret(token);
    const expiresAt = this.#now() + ttlSeconds * 1000;
    this.#tokens.set(token, { policies, metadata: aliases, expiresAt });
    return [
      200,
      {
        auth: {
          client_token: token,
          policies: ['default', ...policies],
          metadata,
          lease_duration: ttlSeconds,
          renewable: false,
          token_type: 'batch',
        },
      },
    ];
  }

  /** As much as it takes to set it up. */
  #administer(path: string, body: Fields): Answer {
    const [, kind = '', name = ''] =
      /^(sys\/mounts|sys\/auth|sys\/policies\/acl)\/(.+)$/.exec(path) ?? [];
    if (kind === 'sys/mounts') {
      this.#mounts.set(name, new Map());
      return [204];
    }
    if (kind === 'sys/auth') {
      const accessor = `auth_kubernetes_${randomBytes(4).toString('hex')}`;
      this.#auths.set(name, { accessor, roles: new Map() });
      return [204];
    }
    if (path === 'sys/auth') {
      const mounts = [...this.#auths].map(([mount, { accessor }]) => [`${mount}/`, { accessor }]);
      return [200, { data: Object.fromEntries(mounts) }];
    }
    if (kind === 'sys/policies/acl') {
      this.#policies.set(name, stringIn(body, 'policy'));
      return [204];
    }
    if (path === 'auth/token/create') return this.#issue(listIn(body, 'policies'), {}, 600);
    const [, mount = '', what = '', role = ''] =
      /^auth\/(.+)\/(config|role)(?:\/(.+))?$/.exec(path) ?? [];
    const auth = this.#auths.get(mount);
    if (auth === undefined) return failed(404, `no handler for route "${path}"`);
    if (what === 'role') {
      auth.roles.set(role, {
        names: listIn(body, 'bound_service_account_names'),
        namespaces: listIn(body, 'bound_service_account_namespaces'),
        audience: stringIn(body, 'audience'),
        policies: listIn(body, 'token_policies'),
        ttlSeconds: Number.parseInt(stringIn(body, 'token_ttl'), 10),
      });
    }
    return [204];
  }

  #allows({ policies, metadata }: Token, path: string, capability: Capability): boolean {
    if (policies.includes('root')) return true;
    return policies.some((name) =>
      rulesOf(this.#policies.get(name) ?? '', metadata).some(
        (rule) => rule.pattern.test(path) && rule.capabilities.includes(capability),
      ),
    );
  }

  #readData(key: Key | undefined): Answer {
    const version = key?.versions.get(key.currentVersion);
    if (key === undefined || version === undefined) return [404, { errors: [] }];
    const isGone = this.#isDeleted(version);
    const metadata = {
      version: key.currentVersion,
      created_time: version.createdTime,
      deletion_time: version.deletionTime,
      destroyed: version.destroyed,
      custom_metadata: key.customMetadata,
    };
    return [
      isGone ? 404 : 200,
      { data: { data: isGone ? null : (version.data ?? null), metadata } },
    ];
  }

  #writeData(keys: Map<string, Key>, name: string, body: Fields): Answer {
    const { data, options } = body;
    if (!isFields(data)) return failed(400, 'no data provided');
    const key = keys.get(name) ?? newKey();
    const cas = isFields(options) ? options['cas'] : undefined;
    if (cas === undefined && key.casRequired) {
      return failed(400, 'check-and-set parameter required for this call');
    }
    if (cas !== undefined && Number(cas) !== key.currentVersion) {
      return failed(400, 'check-and-set parameter did not match the current version');
    }
    for (const text of Object.values(data)) this.onSecret(String(text));
    keys.set(name, key);
    const createdTime = new Date(this.#now()).toISOString();
    key.currentVersion++;
    key.versions.set(key.currentVersion, { data, createdTime, deletionTime: '', destroyed: false });
    for (const number of key.versions.keys()) {
      if (number <= key.currentVersion - (key.maxVersions || 10)) key.versions.delete(number);
    }
    return [
      200,
      {
        data: {
          version: key.currentVersion,
          created_time: createdTime,
          deletion_time: '',
          destroyed: false,
          custom_metadata: key.customMetadata,
        },
      },
    ];
  }

  #isDeleted({ destroyed, deletionTime }: Version): boolean {
    return destroyed || (deletionTime !== '' && Date.parse(deletionTime) <= this.#now());
  }

  #now(): number {
    return (this.#options.clock ?? Date.now)();
  }
}

function newKey(): Key {
  return {
    currentVersion: 0,
    customMetadata: null,
    maxVersions: 0,
    casRequired: false,
    versions: new Map(),
  };
}

function metadataOf(key: Key | undefined): Answer {
  if (key === undefined) return [404, { errors: [] }];
  return [
    200,
    {
      data: {
        current_version: key.currentVersion,
        oldest_version: 0,
        max_versions: key.maxVersions,
        cas_required: key.casRequired,
        custom_metadata: key.customMetadata,
        delete_version_after: '0s',
        versions: Object.fromEntries(
          [...key.versions].map(([number, { createdTime, deletionTime, destroyed }]) => [
            number,
            { created_time: createdTime, deletion_time: deletionTime, destroyed },
          ]),
        ),
      },
    },
  ];
}

/** Makes the key, too; there is no check-and-set for it. */
function writeMetadata(keys: Map<string, Key>, name: string, body: Fields): Answer {
  const key = keys.get(name) ?? newKey();
  const custom = body['custom_metadata'];
  if (isFields(custom)) {
    const entries = Object.entries(custom).map(([field, text]) => [field, String(text)] as const);
    if (
      entries.length > 64 ||
      entries.some(([k, v]) => k.length > 128 || v.length > 512 || v === '')
    ) {
      return failed(400, 'custom_metadata validation failed');
    }
    key.customMetadata = Object.fromEntries(entries);
  }
  if (typeof body['max_versions'] === 'number') key.maxVersions = body['max_versions'];
  if (typeof body['cas_required'] === 'boolean') key.casRequired = body['cas_required'];
  keys.set(name, key);
  return [204];
}

function destroy(key: Key | undefined, body: Fields): Answer {
  const versions = body['versions'];
  if (!Array.isArray(versions)) return failed(400, 'No version number provided');
  if (key === undefined) return [404, { errors: [] }];
  for (const number of versions) {
    const version = key.versions.get(Number(number));
    if (version !== undefined) Object.assign(version, { destroyed: true, data: undefined });
  }
  return [204];
}

const denied: Answer = [403, { errors: ['1 error occurred:\n\t* permission denied\n\n'] }];

function failed(status: number, message: string): Answer {
  return [status, { errors: [message] }];
}

interface PolicyRule {
  pattern: RegExp;
  capabilities: readonly string[];
}

/** Of a policy in HCL: `path "…" { capabilities = […] }`, with templates filled in. */
function rulesOf(policy: string, metadata: Record<string, string>): PolicyRule[] {
  return [
    ...policy.matchAll(/path\s+"([^"]+)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]\s*\}/g),
  ].flatMap(([, path = '', capabilities = '']) => {
    const filled = path.replaceAll(
      /\{\{\s*([^}\s]+)\s*\}\}/g,
      (_, name: string) => metadata[name] ?? '\0',
    );
    // A template that can't be filled in leaves the whole rule out.
    if (filled.includes('\0')) return [];
    const [, body = '', star = ''] = /^(.*?)(\*?)$/.exec(filled) ?? [];
    const pattern = body
      .split('/')
      .map((part) => (part === '+' ? '[^/]+' : part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')))
      .join('/');
    return [
      {
        pattern: new RegExp(`^${pattern}${star === '' ? '$' : ''}`),
        capabilities: [...capabilities.matchAll(/"(\w+)"/g)].map(([, one = '']) => one),
      },
    ];
  });
}

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function objectOf(text: string): Fields {
  const parsed: unknown = text === '' ? {} : JSON.parse(text);
  return isFields(parsed) ? parsed : {};
}

function stringIn(fields: Fields, name: string): string {
  const value = fields[name];
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

/** Lists may be written with commas, too. */
function listIn(fields: Fields, name: string): string[] {
  const value = fields[name];
  return Array.isArray(value)
    ? value.map(String)
    : stringIn(fields, name).split(',').filter(Boolean);
}

function matches(allowed: readonly string[], name: string): boolean {
  return allowed.includes('*') || allowed.includes(name);
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  return text;
}

function send(response: ServerResponse, [status, body]: Answer): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(body === undefined ? '' : JSON.stringify(body));
}
