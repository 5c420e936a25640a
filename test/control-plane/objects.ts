/**
 * Reads and applies objects as kubectl does, within this process: a test that asks ten times a
 * second would otherwise start ten programs a second.
 */
import { loadAll } from 'js-yaml';
import type { Answer, RequestOptions } from './https.ts';

/** Sends a request to the API server, as admin unless the headers impersonate somebody. */
export type Send = (
  path: string,
  options?: Pick<RequestOptions, 'method' | 'headers' | 'body' | 'timeoutMs'>,
) => Promise<Answer>;

/** Whose rights are taken; the administrator's where it says nothing. */
export interface Impersonation {
  /** This user; a ServiceAccount is `system:serviceaccount:NAMESPACE:NAME`. */
  as?: string;
  asGroups?: readonly string[];
}

/** A kind that the API server serves. */
interface Served {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly isNamespaced: boolean;
  /** Lower-case names that kubectl takes for it. */
  readonly names: ReadonlySet<string>;
}

/** apidiscovery.k8s.io/v2 APIGroupDiscoveryList, as far as it is read here. */
interface Discovery {
  items: {
    metadata: { name?: string };
    versions: {
      version: string;
      resources?: {
        resource: string;
        responseKind?: { kind: string };
        scope: 'Namespaced' | 'Cluster';
        singularResource?: string;
        shortNames?: string[];
      }[];
    }[];
  }[];
}

interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
}

interface Found {
  metadata: { managedFields?: unknown };
}

const aggregated = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';

/** A server under load takes its time for a write that many policies look at. */
const timeoutMs = 60_000;

/** Objects of one API server, by requests of this process. */
export class Objects {
  readonly #send: Send;
  /** In the order in which kubectl prefers them: the core group first. */
  #served: readonly Served[] = [];

  constructor(send: Send) {
    this.#send = send;
  }

  /**
   * An object, or `undefined` where it doesn't exist.
   *
   * @param kind as kubectl takes it: plural, singular, short name, or `plural.group`
   * @throws Error with the server's message, or where no such kind is served
   */
  async get(kind: string, name: string, namespace: string): Promise<unknown> {
    const served = await this.#named(kind);
    const answer = await this.#send(`${pathOf(served, namespace)}/${name}`, { timeoutMs });
    if (answer.status === 200) return withoutManagers(JSON.parse(answer.body) as Found);
    if (answer.status === 404 && isOfObject(answer, name)) return undefined;
    this.#served = [];
    throw new Error(messageOf(answer));
  }

  /**
   * All objects of the kinds in a namespace, kind by kind.
   *
   * @param kinds separated by commas, each as for {@link get}
   * @throws Error with the server's message, or where one of the kinds isn't served
   */
  async list(kinds: string, namespace: string): Promise<unknown[]> {
    const lists = await Promise.all(
      kinds.split(',').map(async (kind) => {
        const served = await this.#named(kind);
        const answer = await this.#send(pathOf(served, namespace), { timeoutMs });
        if (answer.status !== 200) {
          this.#served = [];
          throw new Error(messageOf(answer));
        }
        const type = { apiVersion: apiVersionOf(served), kind: served.kind };
        const { items } = JSON.parse(answer.body) as { items: Found[] };
        return items.map((item) => ({ ...type, ...withoutManagers(item) }));
      }),
    );
    return lists.flat();
  }

  /**
   * Server-side apply with force and strict validation, one object after another, under the name
   * that kubectl takes. What is refused doesn't keep the rest from being applied.
   *
   * @throws Error with all of the server's messages
   */
  async apply(
    manifests: string | readonly object[],
    { as, asGroups = [] }: Impersonation = {},
  ): Promise<void> {
    const all = typeof manifests === 'string' ? loadAll(manifests) : manifests;
    const objects = (all as (Manifest | null)[]).filter((object) => object !== null);
    const refusals: string[] = [];
    for (const object of objects) {
      const answer = await this.#applyOne(object, as, asGroups);
      if (answer.status >= 300) refusals.push(messageOf(answer));
    }
    if (refusals.length > 0) throw new Error(`apply failed: ${refusals.join('\n')}`);
  }

  async #applyOne(
    object: Manifest,
    as: string | undefined,
    asGroups: readonly string[],
  ): Promise<Answer> {
    const { apiVersion, kind, metadata } = object;
    const served = await this.#find(
      `kind ${kind} of ${apiVersion}`,
      (one) => one.kind === kind && apiVersionOf(one) === apiVersion,
    );
    const path = `${pathOf(served, metadata.namespace ?? 'default')}/${metadata.name}`;
    return this.#send(`${path}?fieldManager=kubectl&force=true&fieldValidation=Strict`, {
      method: 'PATCH',
      headers: {
        'content-type': 'application/apply-patch+yaml',
        ...(as !== undefined && { 'impersonate-user': as }),
        ...(asGroups.length > 0 && { 'impersonate-group': asGroups }),
      },
      body: object,
      timeoutMs,
    });
  }

  #named(kind: string): Promise<Served> {
    const asked = kind.toLowerCase();
    return this.#find(`resource type "${kind}"`, ({ names }) => names.has(asked));
  }

  /** A kind that isn't known may have come since. */
  async #find(what: string, isIt: (served: Served) => boolean): Promise<Served> {
    const known = this.#served.find(isIt);
    if (known !== undefined) return known;
    this.#served = await this.#discover();
    const found = this.#served.find(isIt);
    if (found === undefined) throw new Error(`the server doesn't have a ${what}`);
    return found;
  }

  async #discover(): Promise<Served[]> {
    const lists = await Promise.all(
      ['/api', '/apis'].map(async (path) => {
        const answer = await this.#send(path, { headers: { accept: aggregated } });
        if (answer.status !== 200) throw new Error(messageOf(answer));
        return servedIn(JSON.parse(answer.body) as Discovery);
      }),
    );
    return lists.flat();
  }
}

function servedIn({ items }: Discovery): Served[] {
  return items.flatMap(({ metadata: { name: group = '' }, versions }) =>
    versions.flatMap(({ version, resources = [] }) =>
      resources.map(({ resource, responseKind, scope, singularResource, shortNames = [] }) => {
        const kind = responseKind?.kind ?? '';
        const names = [resource, singularResource ?? '', kind.toLowerCase(), ...shortNames];
        const qualified = names.slice(0, 3).map((name) => `${name}.${group}`);
        return {
          group,
          version,
          kind,
          plural: resource,
          isNamespaced: scope === 'Namespaced',
          names: new Set([...names, ...qualified, `${resource}.${version}.${group}`]),
        };
      }),
    ),
  );
}

function apiVersionOf({ group, version }: Served): string {
  return group === '' ? version : `${group}/${version}`;
}

function pathOf(served: Served, namespace: string): string {
  const root = served.group === '' ? '/api' : '/apis';
  const within = served.isNamespaced ? `/namespaces/${namespace}` : '';
  return `${root}/${apiVersionOf(served)}${within}/${served.plural}`;
}

/** Without what kubectl leaves out, too. */
function withoutManagers<T extends Found>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata;
  return { ...object, metadata };
}

/** Whether it is the object that isn't there, and not its kind. */
function isOfObject({ body }: Answer, name: string): boolean {
  return body.includes('"details":') && body.includes(`"name":${JSON.stringify(name)}`);
}

function messageOf({ status, body }: Answer): string {
  try {
    const { message } = JSON.parse(body) as { message?: string };
    if (message !== undefined) return message;
  } catch {
    // Not a Status: the text itself says what it is.
  }
  return `${status} ${body}`;
}
