import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterChain, segmentName, type EvidenceSegment } from '../../src/api/evidence-segment.ts';
import { annotation, label } from '../../src/api/names.ts';
import { resources } from '../../src/api/resources.ts';
import { run } from '../../src/cli/run.ts';
import { startOtlpReceiver, type OtlpReceiver } from '../evidence/otlp-receiver.ts';
import { ChainWriter } from '../../src/evidence/chain-writer.ts';
import { publicKeyOf } from '../../src/evidence/head.ts';
import type { EvidenceRecord } from '../../src/evidence/record.ts';
import { verifyChain } from '../../src/evidence/verify.ts';
import { unpack } from '../../src/evidence/tar.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  bob,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitForPods,
  waitUntilGone,
} from '../operator/cluster.ts';
import { startReplicas, type OperatorProcess } from '../operator/operator-process.ts';

const namespace = 'recorded';
let controlPlane: ControlPlane;
let kubeconfigPath: string;
let kubeConfig: PooledKubeConfig;
let client: ApiServerClient;
let operators: OperatorProcess[] = [];
let receiver: OtlpReceiver;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  kubeConfig = new PooledKubeConfig().load({ kubeconfig: kubeconfigPath });
  client = new ApiServerClient({ kubeConfig, userAgent: 'test' });
  receiver = await startOtlpReceiver();
  const args = [`--evidence-otlp-endpoint=${receiver.endpoint}`];
  operators = await startReplicas({ kubeconfigPath, args });
});

afterAll(async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  await receiver?.stop();
  await kubeConfig?.closeConnections();
  await controlPlane?.stop();
});

const never = new AbortController().signal;

async function segmentsOf(of: string): Promise<EvidenceSegment[]> {
  return await listObjects<EvidenceSegment>(controlPlane, 'evs', of);
}

async function recordsOf(chain = 'invoice', of = namespace): Promise<EvidenceRecord[]> {
  const own = await waitFor('no look between a seal and the next segment', async () => {
    const segments = (await segmentsOf(of)).map(({ spec }) => spec);
    const found = segments.filter((spec) => spec.chain === chain);
    return found.length === 0 || found.some(({ sealed }) => !sealed) ? found : undefined;
  });
  const { records, problems } = verifyChain(`${of}/${chain}`, own);
  expect(problems).toEqual([]);
  return records;
}

async function recorded(action: string, count = 1): Promise<EvidenceRecord[]> {
  return await waitFor(`${count} records of ${action}`, async () => {
    const records = (await recordsOf()).filter((record) => record.action === action);
    return records.length >= count ? records : undefined;
  });
}

/** Of the chain of the cluster, once there are so many of each. */
async function clusterRecords(counts: Record<string, number>): Promise<EvidenceRecord[]> {
  return await waitFor(`records of ${Object.keys(counts).join(', ')}`, async () => {
    const records = await recordsOf(clusterChain, 'automation-guardrails');
    const areThere = Object.entries(counts).every(
      ([of, count]) => records.filter(({ action }) => action === of).length >= count,
    );
    return areThere && records;
  });
}

async function policyName(): Promise<string> {
  const policies = await listObjects<{ metadata: { name: string }; spec: { egress?: object[] } }>(
    controlPlane,
    'networkpolicies',
    namespace,
  );
  const open = policies.find(({ spec: { egress = [] } }) => egress.length > 0);
  return open?.metadata.name ?? '';
}

function doubled(texts: readonly string[]): string[] {
  return texts.filter((text, index) => texts.indexOf(text) !== index);
}

describe('what happens to an automation', () => {
  it('is recorded from its beginning: who asked, what it may do, what it has', async () => {
    await controlPlane.apply(automation({ namespace }));
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    await waitForPods(controlPlane, namespace, automationPods);
    for (const action of [
      'WorkflowCreated',
      'AutomationIdentityCreated',
      'PermissionsGranted',
      'EgressGranted',
      'SecretIssued',
    ]) {
      const [record] = await recorded(action);
      expect(record).toMatchObject({ environment: 'test', chain: `${namespace}/invoice` });
    }
    const [granted] = await recorded('PermissionsGranted');
    expect(granted?.identity).toBe('invoice');
    const [created] = await recorded('WorkflowCreated');
    expect(created?.actor).toEqual({ name: 'admin', basis: 'authenticated' });
    expect(created?.change).toMatch(/-g1$/);
  });

  it('stands in a cluster of which the version and the admission policies are recorded', async () => {
    const records = await clusterRecords({ OperatorInstalled: 1, PolicyInstalled: 11 });
    const of = (action: string): EvidenceRecord[] =>
      records.filter((record) => record.action === action);
    expect(of('OperatorInstalled')).toHaveLength(1);
    expect(of('PolicyChanged')).toEqual([]);
  });

  it('tells who decided on it, and why, also when that is taken back', async () => {
    const digest = 'a'.repeat(64);
    await kubectlOk(controlPlane, ['create', '-f', '-'], {
      ...bob,
      input: JSON.stringify({
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'Approval',
        metadata: { name: 'decision', namespace },
        spec: { workflow: 'invoice', digest, reason: 'pays twice', decision: 'Reject' },
      }),
    });
    const [rejected] = await recorded('Rejected');
    expect(rejected).toMatchObject({
      actor: { name: 'bob', basis: 'authenticated' },
      message: 'pays twice',
      details: { digest },
    });
    await kubectlOk(controlPlane, ['delete', 'awa', 'decision', `-n=${namespace}`], bob);
    await recorded('DecisionGone');
  });

  it('tells what somebody changed of the rights and the egress, and that it was repaired', async () => {
    const patched: [string, string, object][] = [
      ['role', 'invoice', [{ op: 'replace', path: '/rules', value: [] }]],
      ['networkpolicy', await policyName(), [{ op: 'replace', path: '/spec/egress', value: [{}] }]],
    ];
    for (const [kind, name, patch] of patched) {
      const by = ['--field-manager=somebody', '--type=json', `--patch=${JSON.stringify(patch)}`];
      await kubectlOk(controlPlane, ['patch', kind, name, `-n=${namespace}`, ...by]);
    }
    const repairs = await recorded('DriftRepaired', 2);
    for (const { actor, details = {}, objects = [], environment } of repairs) {
      expect(actor.basis).toBe('operator');
      expect(details['changedBy']).toBe('somebody');
      expect(details['before']).not.toBe(details['after']);
      expect(objects[0]?.uid).toBeDefined();
      expect(environment).toBe('test');
    }
    const kinds = repairs.map(({ objects = [] }) => objects[0]?.kind ?? '');
    expect(kinds.toSorted()).toEqual(['NetworkPolicy', 'Role']);
    await waitFor('the event', async () => {
      const events = await listObjects<{ reason: string; note: string }>(
        controlPlane,
        'events.v1.events.k8s.io',
        namespace,
      );
      return events.some(
        ({ reason, note }) => reason === 'DriftRepaired' && note.includes('changed by somebody'),
      );
    });
    const pages = await Promise.all(
      operators.map(async (operator) => (await fetch(operator.metricsUrl())).text()),
    );
    // Each was repaired once: nobody writes against anybody.
    expect(pages.join()).toContain('automation_guardrails_drift_repaired_total{kind="Role"} 1');
  });

  it('tells a kill and its release, each rung once, and by whom', async () => {
    await kubectlOk(controlPlane, ['create', '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'KillSwitch',
        metadata: { name: 'invoice', namespace },
        spec: { workflow: 'invoice', reason: 'posts twice' },
      }),
      as: 'alice',
      asGroups: ['system:masters'],
    });
    await waitForCondition(controlPlane, { kind: 'ksw', name: 'invoice', namespace }, 'Ready');
    await kubectlOk(
      controlPlane,
      ['annotate', 'ksw', 'invoice', `-n=${namespace}`, `${annotation.release}=fixed`],
      bob,
    );
    await waitUntilGone(controlPlane, { kind: 'ksw', name: 'invoice', namespace });
    await recorded('KillReleased');
    const records = (await recordsOf()).filter(({ action }) => /^(Kill|Release)/.test(action));
    const [engaged] = records;
    expect(engaged).toMatchObject({
      action: 'KillEngaged',
      actor: { name: 'alice', basis: 'authenticated' },
      message: 'posts twice',
    });
    expect(records.find(({ action }) => action === 'ReleaseRequested')?.actor).toEqual({
      name: 'bob',
      basis: 'authenticated',
    });
    const actions = records.map(({ action }) => action);
    expect(doubled(actions)).toEqual([]);
    expect(actions).toEqual(
      expect.arrayContaining([
        'KillFenced',
        'KillPaused',
        'KillPermissionsRevoked',
        'KillPodsGone',
        'KillTokensRevoked',
        'KillSecretsWithdrawn',
        'KillIdentityRevoked',
        'KillEgressClosed',
        'KillEffective',
        'KillLifted',
      ]),
    );
    expect(actions.at(-1)).toBe('KillReleased');
    expect(new Set(records.map(({ incident }) => incident)).size).toBe(1);
  });

  it('counts the runs that succeed, and tells each that fails, with its exit code', async () => {
    const job = (name: string, labels: object): object => ({
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name, namespace },
      spec: {
        backoffLimit: 0,
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: 'invoice',
            automountServiceAccountToken: false,
            restartPolicy: 'Never',
            containers: [{ name: 'main', image: 'registry.example/automation:1' }],
          },
        },
      },
    });
    await controlPlane.apply([job('fails', {})]);
    // One that isn't running yet would be said to run later.
    const pod = await waitFor('the pod of the Job to run', async () => {
      const pods = await listObjects<{ metadata: { name: string }; status?: { phase?: string } }>(
        controlPlane,
        'pods',
        namespace,
      );
      return pods.find(
        ({ metadata, status }) => metadata.name.startsWith('fails-') && status?.phase === 'Running',
      );
    });
    const terminated = { exitCode: 3, reason: 'Error', finishedAt: new Date().toISOString() };
    await kubectlOk(controlPlane, [
      'patch',
      'pod',
      pod.metadata.name,
      `-n=${namespace}`,
      '--subresource=status',
      '--type=merge',
      `--patch=${JSON.stringify({
        status: {
          phase: 'Failed',
          containerStatuses: [
            {
              name: 'main',
              image: 'x',
              imageID: '',
              ready: false,
              restartCount: 0,
              state: { terminated },
            },
          ],
        },
      })}`,
    ]);
    const [failed] = await recorded('RunFailed');
    expect(failed).toMatchObject({ outcome: 'Failed', reason: 'BackoffLimitExceeded' });
    expect(failed?.details).toMatchObject({ exitCodes: '3' });
  });

  it('holds no secret value, and nothing more is written once nothing happens', async () => {
    const secrets = await listObjects<{
      metadata: { name: string };
      data?: Record<string, string>;
    }>(controlPlane, 'secrets', namespace);
    const values = secrets.flatMap(({ data = {} }) =>
      Object.values(data).flatMap((value) => [value, Buffer.from(value, 'base64').toString()]),
    );
    expect(values.length).toBeGreaterThan(0);
    const text = JSON.stringify(await segmentsOf(namespace));
    for (const value of values.filter(({ length }) => length > 8)) {
      expect(text.includes(value)).toBe(false);
    }
  });

  it('is told to the log stream and over OTLP, too, each record by its hash', async () => {
    const entries = (await segmentsOf(namespace)).flatMap(({ spec }) => spec.records);
    expect(entries.length).toBeGreaterThan(10);
    await waitFor('the log stream to have them', () => {
      const lines = operators
        .flatMap(({ logs }) => logs)
        .filter((line) => line.includes('"Evidence recorded"'))
        .map((line) => JSON.parse(line) as { hash: string; record: string });
      const streamed = new Map(lines.map(({ hash, record }) => [hash, record]));
      return entries.every(({ hash, record }) => streamed.get(hash) === record);
    });
    await waitFor('the receiver to have them', () => {
      const bodies = new Set(receiver.received.map(({ body }) => body.stringValue));
      return Promise.resolve(entries.every(({ record }) => bodies.has(record)));
    });
  });

  it('changes while the leader is killed', async () => {
    const states = await Promise.all(
      operators.map(async (operator) => {
        const text = await (await fetch(operator.metricsUrl())).text();
        return /^automation_guardrails_leader 1$/m.test(text) ? [operator] : [];
      }),
    );
    const [dying] = states.flat();
    expect(dying).toBeDefined();
    dying?.kill();
    await dying?.exited;
    await kubectlOk(controlPlane, [
      'patch',
      'awf',
      'invoice',
      `-n=${namespace}`,
      '--type=merge',
      '--patch={"spec":{"description":"Posts invoices, once"}}',
    ]);
  });
});

describe('a chain in the API server', () => {
  const chained = 'chained';
  const alice = { as: 'alice', asGroups: ['editors'] };
  const segment = segmentName('invoice', 1);

  it('is written by the operator, and proves itself', async () => {
    await kubectlOk(controlPlane, ['create', 'namespace', chained]);
    const { privateKey } = generateKeyPairSync('ed25519');
    const key = { privateKey, publicKey: publicKeyOf(privateKey) };
    const writer = new ChainWriter({
      client,
      namespace: chained,
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
    const segments = await segmentsOf(chained);
    expect(segments.length).toBeGreaterThan(1);
    const { problems, records } = verifyChain(
      `${chained}/invoice`,
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
    const may = ['auth', 'can-i', 'patch', 'evidencesegments.automationguardrails.dev'];
    await waitFor('the right of the editors', async () => {
      const { stdout } = await controlPlane.kubectl([...may, `-n=${chained}`], alice);
      return stdout.trim() === 'yes';
    });
    const last = (await segmentsOf(chained)).at(-1);
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
      const args = ['patch', 'evs', name, `-n=${chained}`, '--type=json'];
      const patch = `--patch=${JSON.stringify(operations)}`;
      const byEditor = await controlPlane.kubectl([...args, patch], alice);
      expect(byEditor.stderr, what).toMatch(/written by the operator alone|Invalid|invalid/);
      const byOperator = client.jsonPatch(
        resources.evidenceSegments,
        { namespace: chained, name },
        operations as never,
      );
      await expect(byOperator, what).rejects.toThrow();
    }
    const sealed = client.jsonPatch(
      resources.evidenceSegments,
      { namespace: chained, name: segment },
      [{ op: 'replace', path: '/spec/head/time', value: '2026-01-01T00:00:00Z' }],
    );
    await expect(sealed).rejects.toThrow(/sealed/);
    expect(await segmentsOf(chained)).toContainEqual(last);
  });

  it('goes in its order, and an open end never', async () => {
    const { code, stderr } = await controlPlane.kubectl(
      ['delete', 'evs', '--all', `-n=${chained}`],
      alice,
    );
    expect(code, stderr).not.toBe(0);
    const last = (await segmentsOf(chained)).at(-1)?.metadata.name ?? '';
    const open = client.delete(resources.evidenceSegments, { namespace: chained, name: last });
    await expect(open).rejects.toThrow(/the end of a chain of evidence stays/);
  });

  it('is marked as exported by whoever may, with the hash of what he has', async () => {
    const mark = (value: string): string[] => [
      'annotate',
      'evs',
      segment,
      `-n=${chained}`,
      `${annotation.exported}=${value}`,
    ];
    expect((await controlPlane.kubectl(mark('x'), alice)).stderr).toContain('verb export');
    const [first] = await segmentsOf(chained);
    await kubectlOk(controlPlane, mark(first?.spec.head.hash ?? ''));
    const wrong = await controlPlane.kubectl(mark('0'.repeat(64)));
    expect(wrong.code).not.toBe(0);
  });

  it('goes with its namespace', async () => {
    await kubectlOk(controlPlane, ['delete', 'namespace', chained, '--timeout=180s']);
  });
});

describe('when another replica leads', () => {
  it('records what was missed, and nothing twice', async () => {
    const [changed] = await recorded('WorkflowChanged');
    expect(changed?.change).toMatch(/-g2$/);
    await clusterRecords({ OperatorStarted: 1, LeaderChanged: 1, SigningKeyUsed: 1 });
    const all = (await recordsOf()).filter(({ action }) => action !== 'ChainBegun');
    const changes = all.map(({ subject, before, after }) => ({ subject, before, after }));
    expect(changes.filter(({ before, after }) => before === after && after !== undefined)).toEqual(
      [],
    );
  });
});

describe('a case', () => {
  let folder: string;

  beforeAll(async () => {
    // The heads are written down at the end.
    await Promise.all(operators.map((operator) => operator.stop()));
    folder = await mkdtemp(path.join(tmpdir(), 'automation-guardrails-case-'));
  });

  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  async function cli(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
    const out: string[] = [];
    const err: string[] = [];
    const code = await run({
      argv,
      stdout: (line) => out.push(line),
      stderr: (line) => err.push(line),
    });
    return { code, out: out.join('\n'), err: err.join('\n') };
  }

  it('is answered from the log', async () => {
    const at = [`--kubeconfig=${controlPlane.kubeconfigPath}`, `--namespace=${namespace}`];
    const asked = async (...argv: string[]): Promise<string> => {
      const { code, out, err } = await cli(...argv, ...at);
      expect({ code, err }).toEqual({ code: 0, err: '' });
      return out;
    };
    expect(await asked('timeline', 'invoice')).toMatch(
      /KillEngaged +Intended +alice +authenticated/,
    );
    expect(await asked('who-approved', 'invoice')).toMatch(/ReleaseRequested +Intended +bob/);
    expect(await asked('what-changed', 'invoice', '--since=1h')).toContain('WorkflowChanged');
    expect(await asked('runs', 'invoice')).toContain('BackoffLimitExceeded');
    expect(JSON.parse(await asked('timeline', '--output=json'))).toContainEqual(
      expect.objectContaining({ action: 'KillReleased' }),
    );
  });

  it('is exported by an auditor, and verified without a cluster', async () => {
    const file = path.join(folder, 'case.tar.gz');
    const at = [`--kubeconfig=${controlPlane.kubeconfigPath}`, `--namespace=${namespace}`];
    const exported = await cli('evidence', 'export', 'workflow/invoice', '-o', file, ...at);
    expect(exported).toMatchObject({ code: 0, err: '' });
    const unreachable = ['--prometheus', 'http://127.0.0.1:1'];
    const without = await cli(
      'evidence',
      'export',
      'workflow/invoice',
      '-o',
      file,
      ...at,
      ...unreachable,
    );
    expect(without.code).toBe(0);
    expect(without.err).toContain('Not in it: metrics');
    const verified = await cli('evidence', 'verify', file);
    expect(verified).toMatchObject({ code: 0, err: '' });
    expect(verified.out).toContain('Unbroken.');
    // The operator wrote heads down when it ended.
    expect(verified.out).toMatch(/[1-9][0-9]* heads that stand elsewhere agree/);
    const secrets = await listObjects<{ data?: Record<string, string> }>(
      controlPlane,
      'secrets',
      namespace,
    );
    const files = [...unpack(await readFile(file))];
    for (const { data = {} } of secrets) {
      for (const value of Object.values(data).filter(({ length }) => length > 8)) {
        const plain = Buffer.from(value, 'base64').toString();
        expect(files.filter(([, text]) => text.includes(value) || text.includes(plain))).toEqual(
          [],
        );
      }
    }
    const other = await cli('evidence', 'verify', file, `--trusted-keys=${'A'.repeat(43)}=`);
    expect(other.code).toBe(1);
    expect(other.err).toContain('UntrustedKey');
  });
});
