import { getEventListeners } from 'node:events';
import { createServer, type Server } from 'node:http';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { FakeApiServer, type Behaviour } from '../../test/fault/fake-api-server.ts';
import type { KubeObject, Role } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import { ApiServerClient, type ApiServerClientOptions, type WatchEvent } from './client.ts';
import { ApiError, isAlreadyExists, isConflict, isExpired, isNotFound } from './errors.ts';
import type { PooledKubeConfig } from './kube-config.ts';

let server: FakeApiServer;
let kubeConfig: PooledKubeConfig;
let observed: string[];
let client: ApiServerClient;

beforeEach(async () => {
  server = await new FakeApiServer().start();
  kubeConfig = server.kubeConfig();
  observed = [];
  client = clientWith({});
});

afterEach(async () => {
  await kubeConfig.closeConnections();
  await server.stop();
});

function clientWith(options: Partial<ApiServerClientOptions>): ApiServerClient {
  return new ApiServerClient({
    kubeConfig,
    userAgent: 'automation-guardrails/1.2.3',
    metrics: { observeRequest: (verb, code) => observed.push(`${verb} ${code}`) },
    ...options,
  });
}

const { roles, namespaces, serviceAccounts } = resources;
const key = { namespace: 'default', name: 'reader' };

function role(...verbs: string[]): Role {
  return { metadata: { ...key }, rules: [{ apiGroups: [''], resources: ['pods'], verbs }] };
}

function labelled(labels: Record<string, string>): Role {
  const { metadata, ...rest } = role('get');
  return { metadata: { ...metadata, labels }, ...rest };
}

/** The error that a call must end with. */
async function failureOf(call: Promise<unknown>): Promise<Error> {
  try {
    await call;
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error('the call did not fail');
}

function putMany(count: number): void {
  for (let index = 0; index < count; index++) {
    server.put(namespaces, { metadata: { name: `n${String(index).padStart(4, '0')}` } });
  }
}

/** Talks to a server of its own. */
async function against<T>(
  rogue: Server,
  talk: (client: ApiServerClient) => Promise<T>,
): Promise<T> {
  await new Promise<void>((resolve) => rogue.listen(0, '127.0.0.1', resolve));
  const address = rogue.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  const config = server.kubeConfig();
  config.clusters = [{ name: 'fake', server: `http://127.0.0.1:${port}`, skipTLSVerify: true }];
  try {
    return await talk(clientWith({ kubeConfig: config }));
  } finally {
    await config.closeConnections();
    rogue.closeAllConnections();
    rogue.close();
  }
}

/** Reads a watch whose body is these pieces, each in a write of its own. */
async function eventsOf(pieces: readonly Uint8Array[]): Promise<WatchEvent[]> {
  const rogue = createServer((_, response) => {
    response.writeHead(200);
    const writeNext = (index: number): void => {
      const piece = pieces[index];
      if (piece === undefined) response.end();
      else response.write(piece, () => setImmediate(() => writeNext(index + 1)));
    };
    writeNext(0);
  });
  return await against(rogue, async (talking) => {
    const events: WatchEvent[] = [];
    const { signal } = new AbortController();
    const options = { resourceVersion: '1', timeoutSeconds: 300, signal };
    for await (const event of talking.watch(namespaces, options)) events.push(event);
    return events;
  });
}

function added(name: string): { type: 'ADDED'; object: KubeObject } {
  return { type: 'ADDED', object: { metadata: { name, resourceVersion: '2' } } };
}

describe('calls', () => {
  test('get asks for metadata alone where nothing else is wanted', async () => {
    const accepted: (string | undefined)[] = [];
    const rogue = createServer((request, response) => {
      accepted.push(request.headers.accept);
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ metadata: { name: 'reader' } }));
    });
    await against(rogue, async (talking) => {
      await talking.get(roles, key, { metadataOnly: true });
      await talking.get(roles, key);
    });
    expect(accepted).toEqual([
      'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1',
      'application/json',
    ]);
  });

  test('get answers undefined for what is not there', async () => {
    expect(await client.get(roles, key)).toBeUndefined();
    expect(observed).toEqual(['get 404']);
  });

  test('create posts as our field manager and says who we are', async () => {
    const created = await client.create(roles, role('get'));

    expect(created.metadata.uid).toBeDefined();
    const [request] = server.requests;
    expect(request?.path).toBe('/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles');
    expect(request?.query.get('fieldManager')).toBe('automation-guardrails');
    expect(request?.headers['user-agent']).toBe('automation-guardrails/1.2.3');
    expect(request?.body).toMatchObject({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'Role',
    });
  });

  test('create of what exists is AlreadyExists, not a conflict', async () => {
    await client.create(roles, role('get'));
    const error = await failureOf(client.create(roles, role('get')));

    expect(isAlreadyExists(error)).toBe(true);
    expect(isConflict(error)).toBe(false);
  });

  test('create with a subresource posts below the object', async () => {
    await client.create(serviceAccounts, { metadata: { ...key } });
    await client.create(
      { ...serviceAccounts, object: { metadata: { ...key } } },
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', metadata: { ...key } },
      { subresource: 'token' },
    );

    expect(server.requests.at(-1)?.path).toBe(
      '/api/v1/namespaces/default/serviceaccounts/reader/token',
    );
  });

  test('apply creates, changes, and takes back what is no longer applied', async () => {
    await client.apply(roles, labelled({ a: '1', b: '2' }));
    const applied = await client.apply(roles, labelled({ b: '3' }));

    expect(applied.metadata.labels).toEqual({ b: '3' });
    const request = server.requests.at(-1);
    expect(request?.headers['content-type']).toBe('application/apply-patch+yaml');
    expect(request?.query.get('force')).toBe('true');
    expect(request?.query.get('fieldManager')).toBe('automation-guardrails');
  });

  test('a field manager of its own may be given', async () => {
    await clientWith({ fieldManager: 'cli' }).apply(roles, role('get'));
    expect(server.requests.at(-1)?.query.get('fieldManager')).toBe('cli');
  });

  test('a resourceVersion in a patch makes it conditional', async () => {
    const { metadata } = await client.create(roles, role('get'));
    await client.mergePatch(roles, key, { metadata: { labels: { a: '1' } } });
    const { resourceVersion } = metadata;
    const late = client.mergePatch(roles, key, {
      metadata: { resourceVersion, labels: { a: '2' } },
    });

    await expect(late).rejects.toSatisfy(isConflict);
  });

  test('a dry run stores nothing', async () => {
    await client.create(roles, role('get'), { dryRun: true });
    expect(server.get(roles, 'default/reader')).toBeUndefined();
    expect(server.requests.at(-1)?.query.get('dryRun')).toBe('All');
  });

  test('the status subresource changes the status alone', async () => {
    server.put(roles, role('get'));
    const patch = { metadata: { labels: { a: '1' } }, status: { fine: true } };
    await client.mergePatch(roles, key, patch, { subresource: 'status' });

    expect(server.get(roles, 'default/reader')).toMatchObject({ status: { fine: true } });
    expect(server.get(roles, 'default/reader')?.metadata.labels).toBeUndefined();
  });

  test('a JSON patch whose test fails changes nothing', async () => {
    await client.create(roles, role('get'));
    const patched = client.jsonPatch(roles, key, [
      { op: 'test', path: '/metadata/uid', value: 'another' },
      { op: 'add', path: '/metadata/labels', value: { a: '1' } },
    ]);

    await expect(patched).rejects.toMatchObject({ status: 422 });
    expect(server.get(roles, 'default/reader')?.metadata.labels).toBeUndefined();
  });

  test('delete says whether it was this object that went', async () => {
    const { metadata } = await client.create(roles, role('get'));

    expect(await client.delete(roles, key, { uid: 'another' })).toBe(false);
    expect(await client.delete(roles, key, { uid: metadata.uid ?? '' })).toBe(true);
    expect(await client.delete(roles, key)).toBe(false);
  });

  test('a delete leaves its connection to the next call', async () => {
    let connections = 0;
    const rogue = createServer((_, response) => response.end('{}'));
    rogue.on('connection', () => (connections += 1));
    await against(rogue, async (talking) => {
      for (let count = 0; count < 20; count++) {
        expect(await talking.delete(roles, key, { uid: 'one' })).toBe(true);
      }
    });
    // The next call may come before the one before it has handed its own back.
    expect(connections).toBeLessThanOrEqual(2);
  });

  test('a conflict of a delete without UID is an error', async () => {
    server.faults.next('delete', { kind: 'status', status: 409, reason: 'Conflict' });
    await expect(client.delete(roles, key)).rejects.toSatisfy(isConflict);
  });

  test.each([
    ['an empty name', { namespace: 'default', name: '' }],
    ['a name that climbs', { namespace: 'default', name: '..' }],
    ['no namespace', { name: 'reader' }],
    ['an empty namespace', { namespace: '', name: 'reader' }],
  ])('with %s nothing is sent', async (_, badKey) => {
    await expect(client.delete(roles, badKey)).rejects.toThrow(TypeError);
    expect(server.requests).toEqual([]);
  });

  test('a name cannot lead elsewhere', async () => {
    await client.get(roles, { namespace: 'default', name: '../../secrets/x?y' });
    expect(server.requests[0]?.name).toBe('../../secrets/x?y');
  });
});

describe('list', () => {
  test('reads all pages, and says what the items are', async () => {
    putMany(1_201);
    const listed = await client.list(namespaces);

    expect(listed).toHaveLength(1_201);
    expect(listed[1_200]).toMatchObject({ apiVersion: 'v1', kind: 'Namespace' });
    expect(server.requests).toHaveLength(3);
    expect(server.requests.every(({ query }) => !query.has('resourceVersion'))).toBe(true);
  });

  test('starts over when the list has expired under it, in the end without pages', async () => {
    putMany(1_201);
    const isLaterPage = { when: ({ query }: { query: URLSearchParams }) => query.has('continue') };
    const expired: Behaviour = { kind: 'status', status: 410, reason: 'Expired' };
    server.faults.next({ verb: 'list', ...isLaterPage }, expired, 2);

    expect(await client.list(namespaces)).toHaveLength(1_201);
    expect(server.requests.at(-1)?.query.has('limit')).toBe(false);
  });

  test('does not start over for ever', async () => {
    server.faults.next('list', { kind: 'status', status: 410, reason: 'Expired' }, Infinity);
    await expect(client.list(namespaces)).rejects.toSatisfy(isExpired);
    expect(server.requests).toHaveLength(1);
  });

  test('a list of something other than objects is refused', async () => {
    server.faults.next('list', { kind: 'garbage', text: '{"items":[{"metadata":{}}]}' });
    await expect(client.list(namespaces)).rejects.toMatchObject({
      code: 'KUBE_API_MALFORMED_RESPONSE',
    });
  });
});

describe('failures', () => {
  const throttled: Behaviour = { kind: 'status', status: 429, retryAfterSeconds: 0 };
  const unavailable: Behaviour = { kind: 'status', status: 503, retryAfterSeconds: 0 };

  test('429 is tried again for every verb: nothing was processed', async () => {
    server.faults.next({}, throttled);
    await client.create(roles, role('get'));
    server.faults.next({}, throttled);
    await client.apply(roles, role('list'));
    server.faults.next({}, throttled);
    await client.jsonPatch(roles, key, [{ op: 'add', path: '/metadata/labels', value: {} }]);
    server.faults.next({}, throttled);
    await client.list(roles);
    server.faults.next({}, throttled);
    await client.delete(roles, key);

    expect(server.faults.pending).toBe(0);
  });

  test('503 with Retry-After is tried again where twice is as good as once', async () => {
    server.faults.next('patch', { ...unavailable, committed: true });
    const applied = await client.apply(roles, role('get'));

    expect(applied.rules?.[0]?.verbs).toEqual(['get']);
    expect(server.requests).toHaveLength(2);
  });

  test('503 after a POST is not: it may have been processed', async () => {
    server.faults.next('create', { ...unavailable, committed: true });
    await expect(client.create(roles, role('get'))).rejects.toMatchObject({ status: 503 });
    expect(server.requests).toHaveLength(1);
  });

  test('503 without Retry-After is left to the caller', async () => {
    server.faults.next('get', { kind: 'status', status: 503 });
    await expect(client.get(roles, key)).rejects.toMatchObject({ status: 503 });
  });

  test('it gives up after three tries', async () => {
    server.faults.next('get', throttled, Infinity);
    await expect(client.get(roles, key)).rejects.toMatchObject({ status: 429, retryAfterMs: 0 });
    expect(server.requests).toHaveLength(3);
  });

  test('a long Retry-After is left to the caller, who learns it', async () => {
    server.faults.next('get', { kind: 'status', status: 429, retryAfterSeconds: 6 });
    const patient = clientWith({ timeoutMs: 60_000 });
    await expect(patient.get(roles, key)).rejects.toMatchObject({ retryAfterMs: 6_000 });
  });

  test('it does not wait beyond its own time', async () => {
    server.faults.next('get', { kind: 'status', status: 429, retryAfterSeconds: 4 });
    const hasty = clientWith({ timeoutMs: 3_000 });
    await expect(hasty.get(roles, key)).rejects.toMatchObject({ status: 429 });
    expect(server.requests).toHaveLength(1);
  });

  test('a write on a connection that is reset is not repeated', async () => {
    server.faults.next('create', { kind: 'reset', committed: true });
    await expect(client.create(roles, role('get'))).rejects.toMatchObject({
      code: 'KUBE_API_UNREACHABLE',
    });
    expect(server.requests).toHaveLength(1);
    expect(observed).toEqual(['create error']);
  });

  test('no answer at all is a timeout', async () => {
    server.faults.next('get', { kind: 'silence' });
    await expect(clientWith({ timeoutMs: 30 }).get(roles, key)).rejects.toMatchObject({
      code: 'KUBE_API_TIMEOUT',
    });
    expect(observed).toEqual(['get timeout']);
  });

  test('credentials that never come are a timeout, too', async () => {
    const stuck = server.kubeConfig();
    stuck.applyToHTTPSOptions = (): Promise<void> => new Promise(() => undefined);
    await expect(
      clientWith({ kubeConfig: stuck, timeoutMs: 30 }).get(roles, key),
    ).rejects.toMatchObject({ code: 'KUBE_API_TIMEOUT' });
  });

  test('the signal of the caller ends a call with its reason', async () => {
    const stop = new AbortController();
    server.faults.next('get', { kind: 'silence' });
    const call = client.get(roles, key, { signal: stop.signal });
    await expect.poll(() => server.requests.length).toBe(1);
    stop.abort(new Error('shutting down'));

    await expect(call).rejects.toThrow('shutting down');
    expect(observed).toEqual(['get aborted']);
    await expect(client.get(roles, key, { signal: stop.signal })).rejects.toThrow('shutting down');
  });

  test('a call leaves nothing behind at the signal of its caller', async () => {
    const { signal } = new AbortController();
    await client.get(roles, key, { signal });
    server.faults.next('get', { kind: 'status', status: 500 });
    await failureOf(client.get(roles, key, { signal }));
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  test('the signal also ends a wait for the next try', async () => {
    const stop = new AbortController();
    server.faults.next('get', { kind: 'status', status: 429, retryAfterSeconds: 5 });
    const call = client.get(roles, key, { signal: stop.signal });
    await expect.poll(() => observed.length).toBe(1);
    stop.abort(new Error('shutting down'));

    await expect(call).rejects.toThrow('shutting down');
  });

  test('nobody there is said in one sentence', async () => {
    await server.stop();
    const error = await failureOf(client.get(roles, key));
    expect(error).toMatchObject({ code: 'KUBE_API_UNREACHABLE' });
    expect(error.message).toContain('ECONNREFUSED');
    server = await new FakeApiServer().start();
  });

  test('an answer of a proxy does not get into the message', async () => {
    const body = '<html>user=admin password=canary</html>';
    for (const status of [200, 500]) {
      const rogue = createServer((_, response) => response.writeHead(status).end(body));
      const error = await against(rogue, (talking) => failureOf(talking.get(roles, key)));
      expect(JSON.stringify([error, String(error), error.stack])).not.toContain('canary');
      expect(error.cause).toBeUndefined();
    }
  });

  test('the message is that of the Status, bounded', async () => {
    server.faults.next('get', {
      kind: 'status',
      status: 403,
      reason: 'Forbidden',
      message: `roles "reader" is forbidden ${'x'.repeat(100_000)}`,
    });
    const error = await failureOf(client.get(roles, key));

    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ code: 'KUBE_API_ERROR', status: 403, reason: 'Forbidden' });
    expect(error.message).toMatch(/^roles "reader" is forbidden/);
    expect(error.message.length).toBeLessThan(5_000);
  });

  test('refused credentials are read again, and the call repeated if they are new', async () => {
    server.faults.next('get', { kind: 'status', status: 401 });
    await expect(client.get(roles, key)).rejects.toMatchObject({ status: 401 });
    expect(server.requests).toHaveLength(1);

    kubeConfig.users = [{ name: 'fake', token: 'new' }];
    server.faults.next(
      { when: ({ headers }) => headers.authorization !== 'Bearer new' },
      { kind: 'status', status: 401 },
      Infinity,
    );
    await client.list(namespaces);
    expect(server.requests.at(-1)?.headers.authorization).toBe('Bearer new');
  });
});

describe('predicates', () => {
  test.each([
    [404, 'NotFound', isNotFound],
    [409, 'AlreadyExists', isAlreadyExists],
    [409, 'Conflict', isConflict],
    [410, 'Gone', isExpired],
    [410, 'Expired', isExpired],
  ])('%i %s', (status, reason, predicate) => {
    expect(predicate(new ApiError('x', { status, reason }))).toBe(true);
    expect(predicate(new ApiError('x', { status: 500 }))).toBe(false);
    expect(predicate(new Error('x'))).toBe(false);
  });
});

describe('watch', () => {
  test('events come out whole wherever the chunks are cut', async () => {
    const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(name, { maxLength: 5 }),
        fc.infiniteStream(fc.nat(40)),
        async (names, sizes) => {
          const events = names.map(added);
          const bytes = Buffer.from(events.map((event) => `${JSON.stringify(event)}\n`).join(''));
          const pieces: Buffer[] = [];
          for (let start = 0; start < bytes.length;) {
            const size = (sizes.next().value ?? 0) + 1;
            pieces.push(bytes.subarray(start, start + size));
            start += size;
          }
          expect(await eventsOf(pieces)).toEqual(events);
        },
      ),
      { numRuns: 25 },
    );
  });

  test('half a line at the end is no event', async () => {
    const whole = `${JSON.stringify(added('a'))}\n`;
    const half = JSON.stringify(added('b')).slice(0, 30);
    expect(await eventsOf([Buffer.from(whole + half)])).toHaveLength(1);
  });

  test('many lines may be longer together than one may be', async () => {
    const padding = 'x'.repeat(1024 * 1024);
    const line = Buffer.from(`${JSON.stringify({ ...added('a'), padding })}\n`);
    // Each chunk ends inside a line.
    const pieces = Array.from({ length: 12 }, () => [
      line.subarray(0, 500_000),
      line.subarray(500_000),
    ]);
    expect(await eventsOf(pieces.flat())).toHaveLength(12);
  });

  test('a line without end is refused', async () => {
    const chunk = Buffer.alloc(1024 * 1024, 'x');
    const pieces = Array.from({ length: 10 }, () => chunk);
    await expect(eventsOf(pieces)).rejects.toMatchObject({ code: 'KUBE_API_MALFORMED_RESPONSE' });
  });

  test.each([
    'no JSON',
    'null',
    '[]',
    '{"type":"ADDED"}',
    '{"type":"ADDED","object":null}',
    '{"type":"ADDED","object":{"metadata":{"name":"a"}}}',
    '{"type":"ADDED","object":{"metadata":{"resourceVersion":"2"}}}',
    '{"type":"BOOKMARK","object":{}}',
    '{"type":"OTHER","object":{"metadata":{"name":"a","resourceVersion":"2"}}}',
  ])('%s is no event, and not quoted', async (line) => {
    const error = await failureOf(eventsOf([Buffer.from(`${line}\n`)]));
    expect(error).toMatchObject({ code: 'KUBE_API_MALFORMED_RESPONSE' });
    expect(error.cause).toBeUndefined();
  });

  test('asks for bookmarks, from a version, for a time', async () => {
    const stop = new AbortController();
    let opened = 0;
    const watch = client.watch(namespaces, {
      resourceVersion: '7',
      timeoutSeconds: 301,
      labelSelector: 'a=b',
      signal: stop.signal,
      onOpen: () => (opened += 1),
    });
    const reading = (async (): Promise<void> => {
      for await (const event of watch) void event;
    })();
    const ended = reading.catch((e: unknown) => e);
    await expect.poll(() => server.openWatches).toBe(1);
    stop.abort(new Error('enough'));

    expect(await ended).toMatchObject({ message: 'enough' });
    expect(opened).toBe(1);
    expect(Object.fromEntries(server.requests[0]?.query ?? [])).toEqual({
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: '7',
      timeoutSeconds: '301',
      labelSelector: 'a=b',
    });
    await expect.poll(() => server.openWatches).toBe(0);
  });

  test('more watches than connections for calls do not hold up each other or calls', async () => {
    const narrow = clientWith({ connections: 1 });
    const stop = new AbortController();
    const watches = Array.from({ length: 5 }, async () => {
      const options = { resourceVersion: '1', timeoutSeconds: 300, signal: stop.signal };
      for await (const event of narrow.watch(namespaces, options)) void event;
    });
    const ended = Promise.allSettled(watches);
    await expect.poll(() => server.openWatches).toBe(5);

    expect(await narrow.list(namespaces)).toEqual([]);
    stop.abort();
    await ended;
  });
});
