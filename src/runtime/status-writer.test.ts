/* oxlint-disable typescript/no-unsafe-type-assertion -- storage holds what was put there */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { FakeApiServer } from '../../test/fault/fake-api-server.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import { ApiServerClient } from './client.ts';
import { isConflict, isNotFound } from './errors.ts';
import type { PooledKubeConfig } from './kube-config.ts';
import { StatusWriter } from './status-writer.ts';

const { workflows } = resources;
const key = { namespace: 'billing', name: 'poster' };

let server: FakeApiServer;
let kubeConfig: PooledKubeConfig;
let writer: StatusWriter;

beforeEach(async () => {
  server = await new FakeApiServer().start();
  kubeConfig = server.kubeConfig();
  writer = new StatusWriter({ client: new ApiServerClient({ kubeConfig, userAgent: 'test/1' }) });
});

afterEach(async () => {
  await kubeConfig.closeConnections();
  await server.stop();
});

interface Stored extends KubeObject {
  spec?: object;
  status?: object;
}

function put(status?: object, fields: Partial<Stored> = {}): Stored {
  const { group, version, kind, plural, namespaced } = workflows;
  const object: Stored = { metadata: key, ...fields, ...(status !== undefined && { status }) };
  return server.put({ group, version, kind, plural, namespaced }, object) as Stored;
}

function stored(): Stored | undefined {
  const { group, version, plural } = workflows;
  const object = server.storage.get(`${group}/${version}/${plural}`, 'billing/poster');
  return object as Stored | undefined;
}

function statusOf(): unknown {
  return stored()?.status;
}

async function failureOf(call: Promise<unknown>): Promise<unknown> {
  return await call.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe('StatusWriter', () => {
  test('writes a first status', async () => {
    expect(await writer.write(workflows, put(), { ready: true })).toBe(true);
    expect(statusOf()).toEqual({ ready: true });
    expect(server.requests.at(-1)).toMatchObject({ verb: 'patch', subresource: 'status' });
  });

  test('sends only what changed, and what is gone', async () => {
    const object = put({ same: 1, other: 1, gone: 1, deep: { same: 1, gone: 1 }, list: [1, 2] });
    const status = { same: 1, other: 2, deep: { same: 1, fresh: 1 }, list: [2] };
    expect(await writer.write(workflows, object, status)).toBe(true);
    expect(server.requests.at(-1)?.body).toEqual({
      metadata: { uid: object.metadata.uid, resourceVersion: object.metadata.resourceVersion },
      status: { other: 2, gone: null, deep: { fresh: 1, gone: null }, list: [2] },
    });
    expect(statusOf()).toEqual(status);
  });

  test.each<[string, object | undefined, object]>([
    ['the same', { a: 1, b: { c: [1, { d: 2 }] } }, { b: { c: [1, { d: 2 }] }, a: 1 }],
    ['nothing of nothing', undefined, {}],
    ['what is undefined', { a: 1 }, { a: 1, b: undefined, c: null }],
    [
      'a date that is written the same',
      { at: '2026-01-01T00:00:00.000Z' },
      { at: new Date('2026-01-01') },
    ],
  ])('writes nothing for %s', async (_, current, status) => {
    const object = put(current);
    expect(await writer.write(workflows, object, status)).toBe(false);
    expect(server.requests).toEqual([]);
  });

  test('leaves spec and metadata alone', async () => {
    const metadata = { ...key, annotations: { note: 'kept' } };
    const spec = { description: 'Posts invoices' };
    await writer.write(workflows, put(undefined, { metadata, spec }), { observedGeneration: 1 });
    expect(stored()).toMatchObject({ metadata, spec, status: { observedGeneration: 1 } });
  });

  test('refuses to overwrite a version that it was not computed from', async () => {
    const object = put({ ready: false });
    put({ ready: false, other: 1 });
    const failure = await failureOf(writer.write(workflows, object, { ready: true }));
    expect(isConflict(failure)).toBe(true);
    expect(statusOf()).toEqual({ ready: false, other: 1 });
  });

  test('refuses to write to a new object of the same name', async () => {
    const object = put();
    server.remove(workflows, 'billing/poster');
    expect(isNotFound(await failureOf(writer.write(workflows, object, { a: 1 })))).toBe(true);
    put();
    expect(isConflict(await failureOf(writer.write(workflows, object, { a: 1 })))).toBe(true);
    expect(statusOf()).toBeUndefined();
  });

  test('makes any status of any other, in one write, and then rests', async () => {
    const field = fc.constantFrom('a', 'b', 'c');
    const { status } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 3 },
        fc.constantFrom<unknown>(0, 1, '', 'x', true, null),
        fc.array(fc.constantFrom(1, 'x'), { maxLength: 2 }),
        tie('status'),
      ),
      status: fc.dictionary(field, tie('value'), { maxKeys: 3 }),
    }));
    await fc.assert(
      fc.asyncProperty(status, status, async (before, after) => {
        server.remove(workflows, 'billing/poster');
        const object = put(withoutNulls(before));
        await writer.write(workflows, object, after);
        expect(statusOf() ?? {}).toEqual(withoutNulls(after));
        const written = stored() ?? object;
        expect(await writer.write(workflows, written, after)).toBe(false);
      }),
      { numRuns: 150 },
    );
  });
});

/** A field that is `null` is one that isn't there. */
function withoutNulls(value: object): object {
  const entries = Object.entries(value).filter(([, item]) => item !== null);
  return Object.fromEntries(
    entries.map(([name, item]) => [name, isObject(item) ? withoutNulls(item) : item]),
  );
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
