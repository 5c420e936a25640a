import { Agent, errors, type Dispatcher } from 'undici';
import { z } from 'zod';
import { SecretStoreError } from './store.ts';

/** What every request of the operator to a vault has in common. */
export interface VaultClientOptions {
  /** Scheme, host and port. */
  address: string;
  /**
   * Reads the PEM of the authorities that may sign the vault's certificate, as often as it takes;
   * Node's own if `undefined`.
   */
  readCa: (() => string) | undefined;
  /** Of Vault Enterprise or OpenBao; `undefined` for the root namespace. */
  namespace: string | undefined;
  /** Where the Kubernetes auth method is mounted. */
  authMount: string;
  /** Where the KV engine, version 2, is mounted. */
  mount: string;
  userAgent: string;
  /** Longest time for one request, in milliseconds. */
  timeoutMs?: number;
  /**
   * One request was answered, or wasn't.
   *
   * @param code the HTTP status; without an answer `timeout` or `error`
   */
  observe?: (operation: VaultOperation, code: string) => void;
}

/** What a vault is asked to do. */
export type VaultOperation =
  | 'login'
  | 'read-metadata'
  | 'write-metadata'
  | 'delete-metadata'
  | 'read-data'
  | 'write-data'
  | 'destroy';

/** What a login gives: a token, which is never written anywhere. */
export interface VaultSession {
  readonly token: string;
}

/** What the engine knows of a key, beside its values. */
export interface KeyMetadata {
  /** 0 where no version was ever written. */
  currentVersion: number;
  customMetadata: Readonly<Record<string, string>>;
  versions: readonly VersionMetadata[];
}

/** What the engine keeps of one version beside its value. */
export interface VersionMetadata {
  version: number;
  destroyed: boolean;
  /** When it was deleted, or will be; RFC 3339, or empty. */
  deletionTime: string;
}

const loginSchema = z.object({
  auth: z.object({ client_token: z.string().min(1).max(8_192) }),
});

const versionNumber = z.int().min(0);

const metadataSchema = z.object({
  data: z.object({
    current_version: versionNumber,
    custom_metadata: z.record(z.string(), z.string()).nullish(),
    versions: z
      .record(
        z.string().regex(/^\d{1,15}$/),
        z.object({ destroyed: z.boolean(), deletion_time: z.string() }),
      )
      .nullish(),
  }),
});

const dataSchema = z.object({
  data: z.object({
    data: z.record(z.string(), z.unknown()).nullable(),
    metadata: z.object({ version: versionNumber }),
  }),
});

/** A key holds at most about 1 MiB; ours hold some KiB. */
const maxResponseBytes = 512 * 1024;

/**
 * As much of Vault's HTTP API as copies need: login by Kubernetes, and KV version 2. Only to the
 * configured address: an answer that sends elsewhere is refused. What a server says is parsed, and
 * never repeated, since it may say what it was sent.
 *
 * @see https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
 * @see https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login
 */
export class VaultClient {
  readonly #options: VaultClientOptions;
  readonly #timeoutMs: number;
  #agent: Agent | undefined;

  constructor(options: VaultClientOptions) {
    this.#options = options;
    this.#timeoutMs = options.timeoutMs ?? 5_000;
  }

  /** What is asked: its address, and its namespace where that isn't the root. */
  get server(): string {
    const { address, namespace } = this.#options;
    return namespace === undefined ? address : `${address} namespace ${namespace}`;
  }

  /**
   * @param role of the auth method
   * @param jwt of a ServiceAccount
   * @throws SecretStoreError
   */
  async login(role: string, jwt: string, signal: AbortSignal): Promise<VaultSession> {
    const { authMount } = this.#options;
    const answer = await this.#call({
      operation: 'login',
      method: 'POST',
      path: `auth/${authMount}/login`,
      body: { role, jwt },
      signal,
    });
    const { auth } = parsed(loginSchema, answer);
    return { token: auth.client_token };
  }

  /** @returns `undefined` where there is no such key. @throws SecretStoreError */
  async readMetadata(
    session: VaultSession,
    key: string,
    signal: AbortSignal,
  ): Promise<KeyMetadata | undefined> {
    const answer = await this.#call({
      operation: 'read-metadata',
      method: 'GET',
      path: this.#pathOf('metadata', key),
      session,
      signal,
    });
    if (answer.status === 404) return undefined;
    const { data } = parsed(metadataSchema, answer);
    return {
      currentVersion: data.current_version,
      customMetadata: data.custom_metadata ?? {},
      versions: Object.entries(data.versions ?? {}).map(([number, version]) => ({
        version: Number(number),
        destroyed: version.destroyed,
        deletionTime: version.deletion_time,
      })),
    };
  }

  /** Writes whose a key is; makes the key, without a version. @throws SecretStoreError */
  async writeMetadata(
    session: VaultSession,
    key: string,
    customMetadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#call({
      operation: 'write-metadata',
      method: 'POST',
      path: this.#pathOf('metadata', key),
      body: { custom_metadata: customMetadata },
      session,
      signal,
    });
  }

  /** Ends a key with all of its versions; one that isn't there as well. @throws SecretStoreError */
  async deleteMetadata(session: VaultSession, key: string, signal: AbortSignal): Promise<void> {
    await this.#call({
      operation: 'delete-metadata',
      method: 'DELETE',
      path: this.#pathOf('metadata', key),
      session,
      signal,
    });
  }

  /**
   * @returns the current version and what it holds, `undefined` where it was deleted or destroyed.
   * @throws SecretStoreError
   */
  async readData(
    session: VaultSession,
    key: string,
    signal: AbortSignal,
  ): Promise<{ version: number; value: Readonly<Record<string, unknown>> } | undefined> {
    const answer = await this.#call({
      operation: 'read-data',
      method: 'GET',
      path: this.#pathOf('data', key),
      session,
      signal,
    });
    if (answer.status === 404) return undefined;
    const { data } = parsed(dataSchema, answer);
    return data.data === null ? undefined : { version: data.metadata.version, value: data.data };
  }

  /**
   * Writes a version, if the current one is the one that is told.
   *
   * @param cas number of the current version; 0 where there is none
   * @returns whether it was; what else a 400 may mean shows when it is tried again
   * @throws SecretStoreError
   */
  async writeData(
    session: VaultSession,
    key: string,
    value: Readonly<Record<string, string>>,
    cas: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { status } = await this.#call({
      operation: 'write-data',
      method: 'POST',
      path: this.#pathOf('data', key),
      body: { options: { cas }, data: value },
      session,
      signal,
    });
    return status !== 400;
  }

  /** Ends versions for good; those that are ended as well. @throws SecretStoreError */
  async destroy(
    session: VaultSession,
    key: string,
    versions: readonly number[],
    signal: AbortSignal,
  ): Promise<void> {
    await this.#call({
      operation: 'destroy',
      method: 'POST',
      path: this.#pathOf('destroy', key),
      body: { versions },
      session,
      signal,
    });
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    await this.#agent?.destroy();
  }

  #pathOf(kind: 'data' | 'metadata' | 'destroy', key: string): string {
    return `${this.#options.mount}/${kind}/${key}`;
  }

  async #call({ operation, method, path, body, session, signal }: Call): Promise<Answer> {
    const { address, namespace, userAgent, observe } = this.#options;
    signal.throwIfAborted();
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    try {
      const answer = await this.#send({
        origin: address,
        path: `/v1/${path}`,
        method,
        headers: {
          'user-agent': userAgent,
          // Without it, a vault that asks for it takes a request for a forged one.
          'x-vault-request': 'true',
          accept: 'application/json',
          ...(namespace !== undefined && { 'x-vault-namespace': namespace }),
          ...(session !== undefined && { 'x-vault-token': session.token }),
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: AbortSignal.any([signal, timeout]),
      });
      observe?.(operation, String(answer.status));
      return checked(operation, answer);
    } catch (error) {
      if (error instanceof SecretStoreError) throw error;
      signal.throwIfAborted();
      if (error instanceof errors.ResponseExceededMaxSizeError) {
        observe?.(operation, 'error');
        // Not a sign that the vault is away: whoever may write to one key can make it large.
        throw new SecretStoreError('Refused', 'the answer of the vault is larger than any of ours');
      }
      const isLate = timeout.aborted || isTimeout(error);
      observe?.(operation, isLate ? 'timeout' : 'error');
      throw new SecretStoreError(
        'Unavailable',
        isLate ? 'the vault took too long to answer' : 'the connection to the vault failed',
      );
    }
  }

  async #send(options: Dispatcher.RequestOptions): Promise<Answer> {
    this.#agent ??= this.#open();
    const { statusCode, body } = await this.#agent.request(options);
    return { status: statusCode, text: await body.text() };
  }

  #open(): Agent {
    const ca = this.#readCa();
    const timeout = this.#timeoutMs;
    return new Agent({
      connections: 8,
      maxResponseSize: maxResponseBytes,
      headersTimeout: timeout,
      bodyTimeout: timeout,
      connect: { timeout, ...(ca !== undefined && { ca }) },
    });
  }

  #readCa(): string | undefined {
    try {
      return this.#options.readCa?.();
    } catch {
      throw new SecretStoreError(
        'Unavailable',
        "the file with the authorities of the vault's certificate can't be read",
      );
    }
  }
}

interface Call {
  operation: VaultOperation;
  method: 'GET' | 'POST' | 'DELETE';
  /** Below `/v1/`. */
  path: string;
  body?: object;
  session?: VaultSession;
  signal: AbortSignal;
}

interface Answer {
  status: number;
  text: string;
}

/** What is no failure is left to who asked: 404 of a read, 400 of a write with check-and-set. */
function checked(operation: VaultOperation, answer: Answer): Answer {
  const { status } = answer;
  if (status >= 200 && status < 300) return answer;
  if (status === 404 && (operation === 'read-metadata' || operation === 'read-data')) return answer;
  if (status === 400 && operation === 'write-data') return answer;
  if (status >= 300 && status < 400) {
    throw new SecretStoreError(
      'Unavailable',
      'the vault sends to another address, which is not followed: let --vault-address name the active node, or what leads to it',
      { status },
    );
  }
  if (status >= 500 || status === 429 || status === 412) {
    throw new SecretStoreError('Unavailable', `the vault answers ${status}: sealed or overloaded`, {
      status,
    });
  }
  throw new SecretStoreError('Refused', `the vault refuses ${refusals[operation]} (${status})`, {
    status,
  });
}

const refusals: Record<VaultOperation, string> = {
  login: 'the login: look at the role and its audience',
  'read-metadata': 'to read the metadata: look at the policy',
  'write-metadata': 'to write the metadata: look at the policy',
  'delete-metadata': 'to delete the key: look at the policy',
  'read-data': 'to read the current version: look at the policy',
  'write-data': 'to write a version: look at the policy',
  destroy: 'to destroy versions: look at the policy',
};

/** @throws SecretStoreError without a word of the text */
function parsed<T>(schema: z.ZodType<T>, { text, status }: Answer): T {
  const { success, data } = schema.safeParse(jsonOf(text));
  if (!success) {
    throw new SecretStoreError('Refused', 'what answers is no vault, by what it says', { status });
  }
  return data;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.name.endsWith('TimeoutError');
}
