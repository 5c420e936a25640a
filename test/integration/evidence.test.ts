import { generateKeyPairSync } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { segmentName, type EvidenceSegment } from '../../src/api/evidence-segment.ts';
import { annotation, label } from '../../src/api/names.ts';
import { resources } from '../../src/api/resources.ts';
import { ChainWriter } from '../../src/evidence/chain-writer.ts';
import { publicKeyOf } from '../../src/evidence/head.ts';
import { verifyChain } from '../../src/evidence/verify.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { installGuardrails, kubectlOk, listObjects } from '../operator/cluster.ts';

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let kubeConfig: PooledKubeConfig;
let client: ApiServerClient;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  kubeConfig = new PooledKubeConfig().load({ kubeconfig: kubeconfigPath });
  client = new ApiServerClient({ kubeConfig, userAgent: 'test' });
});

afterAll(async () => {
  await kubeConfig?.closeConnections();
  await controlPlane?.stop();
});

const never = new AbortController().signal;

async function segmentsOf(namespace: string): Promise<EvidenceSegment[]> {
  return await listObjects<EvidenceSegment>(controlPlane, 'evs', namespace);
}

describe('a chain in the API server', () => {
  const namespace = 'chained';
  const alice = { as: 'alice', asGroups: ['editors'] };
  const segment = segmentName('invoice', 1);

  it('is written by the operator, and proves itself', async () => {
    await kubectlOk(controlPlane, ['create', 'namespace', namespace]);
    const { privateKey } = generateKeyPairSync('ed25519');
    const key = { privateKey, publicKey: publicKeyOf(privateKey) };
    const writer = new ChainWriter({
      client,
      namespace,
      name: 'invoice',
      signingKey: () => Promise.resolve(key),
      limits: { segmentBytes: 8_000, segments: 9, retentionMs: 1e12, requireExport: false },
      clock: Date.now,
    });
    for (let turn = 0; turn < 4; turn++) {
      await writer.commit(
        () =>
          Promise.resolve(
            Array.from({ length: 10 }, (_, index) => ({
              draft: {
                action: 'Tried',
                outcome: 'Observed' as const,
                actor: { name: 'test', basis: 'asserted' as const },
              },
              subject: `s${index}`,
              after: String(turn),
            })),
          ),
        never,
      );
    }
    const segments = await segmentsOf(namespace);
    expect(segments.length).toBeGreaterThan(1);
    const { problems, records } = verifyChain(
      `${namespace}/invoice`,
      segments.map(({ spec }) => spec),
    );
    expect(problems).toEqual([]);
    expect(records.filter(({ action }) => action === 'Tried')).toHaveLength(40);
  });

  it('is changed by nobody: neither by an administrator of the kind, nor by the operator', async () => {
    await controlPlane.apply([
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRole',
        metadata: { name: 'evidence-editor' },
        rules: [
          {
            apiGroups: ['automationguardrails.dev'],
            resources: ['evidencesegments'],
            verbs: ['get', 'list', 'create', 'update', 'patch', 'delete'],
          },
        ],
      },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRoleBinding',
        metadata: { name: 'evidence-editor' },
        roleRef: {
          apiGroup: 'rbac.authorization.k8s.io',
          kind: 'ClusterRole',
          name: 'evidence-editor',
        },
        subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'editors' }],
      },
    ]);
    const last = (await segmentsOf(namespace)).at(-1);
    const { metadata, spec } = last ?? {};
    const name = metadata?.name ?? '';
    const [first] = spec?.records ?? [];
    const forged = { ...first, record: `${first?.record} ` };
    const head = '/spec/head';
    const patches: [string, object[]][] = [
      ['a flip', [{ op: 'replace', path: '/spec/records/0', value: forged }]],
      ['a removal', [{ op: 'remove', path: '/spec/records/0' }]],
      ['a double', [{ op: 'add', path: '/spec/records/-', value: first }]],
      ['a gap', [{ op: 'add', path: '/spec/records/-', value: { ...first, sequence: 1_000_000 } }]],
      ['another beginning', [{ op: 'replace', path: '/spec/previous', value: 'f'.repeat(64) }]],
      ['a head of another record', [{ op: 'replace', path: `${head}/sequence`, value: 1 }]],
      ['another chain', [{ op: 'replace', path: '/spec/chain', value: 'other' }]],
      ['what was taken over', [{ op: 'replace', path: '/spec/carried', value: [] }]],
      ['labels', [{ op: 'remove', path: `/metadata/labels/${label.chain.replace('/', '~1')}` }]],
    ];
    for (const [what, operations] of patches) {
      const args = ['patch', 'evs', name, `-n=${namespace}`, '--type=json'];
      const patch = `--patch=${JSON.stringify(operations)}`;
      const byEditor = await controlPlane.kubectl([...args, patch], alice);
      expect(byEditor.stderr, what).toMatch(/written by the operator alone|Invalid|invalid/);
      const byOperator = client.jsonPatch(
        resources.evidenceSegments,
        { namespace, name },
        operations as never,
      );
      await expect(byOperator, what).rejects.toThrow();
    }
    const sealed = client.jsonPatch(resources.evidenceSegments, { namespace, name: segment }, [
      { op: 'replace', path: '/spec/head/time', value: '2026-01-01T00:00:00Z' },
    ]);
    await expect(sealed).rejects.toThrow(/sealed/);
    expect(await segmentsOf(namespace)).toContainEqual(last);
  });

  it('goes in its order, and an open end never', async () => {
    const { code, stderr } = await controlPlane.kubectl(
      ['delete', 'evs', '--all', `-n=${namespace}`],
      alice,
    );
    expect(code, stderr).not.toBe(0);
    const last = (await segmentsOf(namespace)).at(-1)?.metadata.name ?? '';
    const open = client.delete(resources.evidenceSegments, { namespace, name: last });
    await expect(open).rejects.toThrow(/the end of a chain of evidence stays/);
  });

  it('is marked as exported by whoever may, with the hash of what he has', async () => {
    const mark = (value: string): string[] => [
      'annotate',
      'evs',
      segment,
      `-n=${namespace}`,
      `${annotation.exported}=${value}`,
    ];
    expect((await controlPlane.kubectl(mark('x'), alice)).stderr).toContain('verb export');
    const [first] = await segmentsOf(namespace);
    await kubectlOk(controlPlane, mark(first?.spec.head.hash ?? ''));
    const wrong = await controlPlane.kubectl(mark('0'.repeat(64)));
    expect(wrong.code).not.toBe(0);
  });

  it('goes with its namespace', async () => {
    await kubectlOk(controlPlane, ['delete', 'namespace', namespace, '--timeout=60s']);
  });
});
