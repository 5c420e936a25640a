import { beforeEach, describe, expect, it } from 'vitest';
import type { AutomationIdentity, GeneratedSecret } from '../../api/automation-identity.ts';
import { annotation } from '../../api/names.ts';
import type { KubeObject, Secret } from '../../api/objects.ts';
import type { Resource } from '../../api/resources.ts';
import { silentLogger } from '../../observability/logger.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { ExternalRefresh, refreshAnnotation, type RefreshOutcome } from './refresh.ts';

const namespace = 'finance';
const externalSecrets: Resource = {
  group: 'external-secrets.io',
  version: 'v1',
  kind: 'ExternalSecret',
  plural: 'externalsecrets',
  namespaced: true,
};
const identity: AutomationIdentity = { metadata: { name: 'poster', namespace }, spec: {} };
const erp: GeneratedSecret = {
  name: 'erp',
  type: 'Password',
  rotation: { refresh: [{ kind: 'ExternalSecret', name: 'reader' }] },
};

let client: MemoryClient;
let told: ExternalRefresh;

beforeEach(() => {
  client = new MemoryClient(() => 0);
  client.put(externalSecrets, { metadata: { name: 'reader', namespace } });
  restart();
});

function restart(): void {
  told = new ExternalRefresh({ client, clock: () => 0 });
}

function secret(rotatedAt: string, name = 'aid.poster.erp'): Secret {
  return { metadata: { name, namespace, annotations: { [annotation.rotatedAt]: rotatedAt } } };
}

function tell(live: Secret, credential = erp): Promise<RefreshOutcome> {
  const { signal } = new AbortController();
  return told.refresh(credential, live, { identity, signal, log: silentLogger() });
}

function reader(): KubeObject['metadata']['annotations'] {
  return client.find(externalSecrets, { namespace, name: 'reader' })?.metadata.annotations;
}

describe('an ExternalSecret that reads a value', () => {
  it('is told of each once, also by an operator that remembers nothing', async () => {
    await tell(secret('2026-05-01T00:00:00.000Z'));
    await tell(secret('2026-05-01T00:00:00.000Z'));
    restart();
    await tell(secret('2026-05-01T00:00:00.000Z'));
    expect(client.writes).toHaveLength(1);
    await tell(secret('2026-05-02T00:00:00.000Z'));
    expect(client.writes).toHaveLength(2);
    expect(reader()).toEqual({
      'force-sync.automationguardrails.dev/aid.poster.erp': '2026-05-02T00:00:00.000Z',
    });
  });

  it('of two credentials is told of each, without their taking turns', async () => {
    for (let looks = 0; looks < 3; looks++) {
      await tell(secret('2026-05-01T00:00:00.000Z'));
      await tell(secret('2026-05-03T00:00:00.000Z', 'aid.poster.crm'));
      restart();
    }
    expect(client.writes).toHaveLength(2);
  });

  it('that is not there, or may not be changed, is named, and tried again', async () => {
    client.beforeWrite = () => {
      throw new ApiError('no', { status: 403, reason: 'Forbidden' });
    };
    const refresh = [
      { kind: 'ExternalSecret' as const, name: 'reader' },
      { kind: 'PushSecret' as const, name: 'writer' },
    ];
    const outcome = await tell(secret('2026-05-01T00:00:00.000Z'), {
      ...erp,
      rotation: { refresh },
    });
    expect(outcome.problem).toEqual({
      reason: 'ExternalSecretNotRefreshed',
      message:
        "Not told of the value of credential erp: ExternalSecret reader can't be annotated (403 Forbidden), PushSecret writer isn't there.",
    });
    expect(outcome.dueAt).toBeGreaterThan(0);
    client.beforeWrite = () => undefined;
    expect((await tell(secret('2026-05-01T00:00:00.000Z'))).problem).toBeUndefined();
    expect(reader()).toBeDefined();
  });

  it('is left alone where there is no value yet, or nobody is named', async () => {
    await tell({ metadata: { name: 'aid.poster.erp', namespace } });
    await tell(secret('2026-05-01T00:00:00.000Z'), { name: 'erp', type: 'Password' });
    expect(client.writes).toEqual([]);
  });
});

it('names of annotations are short enough, and differ', () => {
  const long = `aid.${'a'.repeat(60)}.${'b'.repeat(60)}`;
  const [one, other] = [refreshAnnotation(`${long}1`), refreshAnnotation(`${long}2`)];
  expect(one).not.toBe(other);
  expect(one.split('/')[1]?.length).toBeLessThanOrEqual(63);
});
