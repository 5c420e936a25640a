import { beforeEach, describe, expect, it } from 'vitest';
import { annotation, label } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { silentLogger } from '../../observability/logger.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { Carriers } from './carriers.ts';

const { signal } = new AbortController();
const context = { signal, log: silentLogger() };
const engaged = { [annotation.killSwitch]: 'runaway' };
const idOf = ({ apiVersion = '', kind = '', metadata }: KubeObject): string =>
  `${apiVersion} ${kind} ${metadata.name}`;
const ours = 'automationguardrails.dev/v1alpha1';

let client: MemoryClient;
let carriers: Carriers;

beforeEach(() => {
  client = new MemoryClient(() => 0);
  carriers = new Carriers({
    client,
    workflows: client.storeOf(resources.workflows),
    identities: client.storeOf(resources.automationIdentities),
    namespaces: client.storeOf(resources.namespaces),
  });
  client.put(resources.namespaces, { metadata: { name: 'finance', annotations: engaged } });
  client.put(resources.workflows, {
    metadata: { name: 'invoice', namespace: 'finance' },
    spec: { targets: [] },
  });
  client.put(resources.automationIdentities, {
    metadata: { name: 'invoice', namespace: 'finance', annotations: engaged },
    spec: {},
  });
});

describe('what carries the annotation', () => {
  it('has the name of the KillSwitch, or is its namespace, and says its kind', async () => {
    const own = [`${ours} Workflow invoice`, `${ours} AutomationIdentity invoice`];
    expect(carriers.cached('finance/invoice').map(idOf)).toEqual(own);
    expect(carriers.cached('finance/namespace').map(idOf)).toEqual(['v1 Namespace finance']);
    expect(carriers.cached('finance/other')).toEqual([]);
    expect((await carriers.engaging('finance/invoice', signal)).map(idOf)).toEqual([own[1]]);
    expect((await carriers.engaging('finance/namespace', signal)).map(idOf)).toEqual([
      'v1 Namespace finance',
    ]);
  });

  it.each(['finance/invoice', 'finance/namespace'])('is marked once: %s', async (key) => {
    await carriers.markLatched(await carriers.engaging(key, signal), context);
    const [marked] = await carriers.engaging(key, signal);
    expect(marked?.metadata.labels).toEqual({ [label.latched]: 'true' });
    await carriers.markLatched(await carriers.engaging(key, signal), context);
    expect(client.writes).toHaveLength(1);
  });

  it('stops a kill by nothing that becomes of the mark', async () => {
    const engaging = await carriers.engaging('finance/invoice', signal);
    client.beforeWrite = () => {
      throw new ApiError('gone', { status: 404, reason: 'NotFound' });
    };
    await expect(carriers.markLatched(engaging, context)).resolves.toBeUndefined();
  });
});
