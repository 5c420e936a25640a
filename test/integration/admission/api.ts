import { Agent, request } from 'undici';
import type { Condition, KubeObject } from '../../../src/api/objects.ts';
import { apiVersionOf, type Resource } from '../../../src/api/resources.ts';
import type { ControlPlane } from '../../control-plane/control-plane.ts';

/** What the API server answered: an object, or a Status whose sentence is `message`. */
export interface Answer {
  status: number;
  object: Stored;
  message: string;
  /** Texts of the `Warning` headers. */
  warnings: string[];
}

/** The fields of any kind that the tests look at. */
export interface Stored extends KubeObject {
  metadata: Omit<KubeObject['metadata'], 'managedFields'> & {
    managedFields?: { manager: string; fieldsV1: { 'f:spec'?: Record<string, object> } }[];
  };
  spec?: {
    replicas?: number;
    suspend?: boolean;
    engagedBy?: string;
    containers?: { name: string; image: string }[];
    template?: {
      spec?: { serviceAccountName?: string; nodeSelector?: Record<string, string> };
    };
  };
  status?: {
    conditions?: Condition[];
    token?: string;
    observedGeneration?: number;
    typeChecking?: { expressionWarnings?: { fieldRef: string; warning: string }[] };
  };
  message?: string;
}

export interface ObjectName {
  namespace?: string;
  name: string;
}

export interface CallOptions {
  dryRun?: boolean;
  subresource?: string;
}

export interface RawRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Path and query. */
  url: string;
  body?: object;
  /** Content type of the body. */
  type?: string;
  dryRun?: boolean;
}

/** The API server as one user sees it. Never throws for an answer. */
export class Api {
  readonly #controlPlane: ControlPlane;
  readonly #dispatcher: Agent;
  readonly #headers: Record<string, string | string[]>;

  private constructor(
    controlPlane: ControlPlane,
    dispatcher: Agent,
    headers: Record<string, string | string[]>,
  ) {
    this.#controlPlane = controlPlane;
    this.#dispatcher = dispatcher;
    this.#headers = headers;
  }

  /** As a member of `system:masters`. */
  static asAdmin(controlPlane: ControlPlane): Api {
    // Over HTTP/2 several groups would go as one header, and be taken for one group.
    const dispatcher = new Agent({
      allowH2: false,
      connect: { ca: controlPlane.certificateAuthority },
    });
    return new Api(controlPlane, dispatcher, {
      authorization: `Bearer ${controlPlane.adminToken}`,
    });
  }

  /** As another user, with the rights that RBAC gives to that name and those groups. */
  as(name: string, ...groups: string[]): Api {
    return new Api(this.#controlPlane, this.#dispatcher, {
      ...this.#headers,
      'impersonate-user': name,
      ...(groups.length > 0 && { 'impersonate-group': groups }),
    });
  }

  /** As who holds a token. */
  with(token: string): Api {
    return new Api(this.#controlPlane, this.#dispatcher, { authorization: `Bearer ${token}` });
  }

  /** Any request: for what the other methods have no name for. */
  send({ method, url, body, type, dryRun = false }: RawRequest): Promise<Answer> {
    return this.#call(method, url, { dryRun }, body, type);
  }

  close(): Promise<void> {
    return this.#dispatcher.close();
  }

  get(resource: Resource, name: ObjectName): Promise<Answer> {
    return this.#call('GET', path(resource, name));
  }

  create(resource: Resource, object: KubeObject, options: CallOptions = {}): Promise<Answer> {
    const { namespace, name } = object.metadata;
    const { subresource } = options;
    const url =
      subresource === undefined
        ? path(resource, { ...(namespace !== undefined && { namespace }) })
        : path(resource, { ...(namespace !== undefined && { namespace }), name }, options);
    const kind = subresource === 'token' ? {} : typeOf(resource);
    return this.#call('POST', url, options, { ...kind, ...object });
  }

  /** The whole object, as `kubectl replace` sends it. */
  replace(resource: Resource, object: KubeObject, options: CallOptions = {}): Promise<Answer> {
    return this.#call('PUT', path(resource, object.metadata, options), options, {
      ...typeOf(resource),
      ...object,
    });
  }

  merge(
    resource: Resource,
    name: ObjectName,
    patch: object,
    options: CallOptions = {},
  ): Promise<Answer> {
    const type = 'application/merge-patch+json';
    return this.#call('PATCH', path(resource, name, options), options, patch, type);
  }

  /** Server-side apply as a field manager, without force. */
  apply(resource: Resource, object: KubeObject, fieldManager: string): Promise<Answer> {
    const url = `${path(resource, object.metadata)}?fieldManager=${fieldManager}`;
    const type = 'application/apply-patch+yaml';
    return this.#call('PATCH', url, {}, { ...typeOf(resource), ...object }, type);
  }

  delete(resource: Resource, name: ObjectName): Promise<Answer> {
    return this.#call('DELETE', path(resource, name));
  }

  /** Annotations of one object; `null` removes. */
  annotate(
    resource: Resource,
    name: ObjectName,
    annotations: Record<string, string | null>,
    options: CallOptions = {},
  ): Promise<Answer> {
    return this.merge(resource, name, { metadata: { annotations } }, options);
  }

  async #call(
    method: RawRequest['method'],
    url: string,
    { dryRun = false }: CallOptions = {},
    body?: object,
    type = 'application/json',
  ): Promise<Answer> {
    const target = new URL(url, this.#controlPlane.server);
    if (dryRun) target.searchParams.set('dryRun', 'All');
    const response = await request(target, {
      method,
      dispatcher: this.#dispatcher,
      headers: { ...this.#headers, ...(body !== undefined && { 'content-type': type }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const object = await bodyOf(response.body);
    const warnings = [response.headers['warning'] ?? []].flat();
    return { status: response.statusCode, object, message: object.message ?? '', warnings };
  }
}

async function bodyOf(body: { text(): Promise<string> }): Promise<Stored> {
  const text = await body.text();
  try {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the API server's word is taken
    return JSON.parse(text) as Stored;
  } catch {
    // What answers behind a proxy, or before the API itself, speaks plain text.
    return { metadata: { name: '' }, message: text };
  }
}

function typeOf(resource: Resource): { apiVersion: string; kind: string } {
  return { apiVersion: apiVersionOf(resource), kind: resource.kind };
}

/** Path of a collection, an object or its subresource. */
export function path(
  { group, version, plural, namespaced }: Resource,
  { namespace, name }: Partial<ObjectName>,
  { subresource }: CallOptions = {},
): string {
  const root = group === '' ? `/api/${version}` : `/apis/${group}/${version}`;
  const scope = namespaced ? `/namespaces/${namespace ?? 'default'}` : '';
  const item = name === undefined ? '' : `/${name}`;
  const sub = subresource === undefined ? '' : `/${subresource}`;
  return `${root}${scope}/${plural}${item}${sub}`;
}
