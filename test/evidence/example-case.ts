import { createHash, createPrivateKey } from 'node:crypto';
import type { Case } from '../../src/evidence/bundle.ts';
import { publicKeyOf } from '../../src/evidence/head.ts';
import { EvidenceLog } from '../../src/evidence/log.ts';
import { MemoryClient, MemoryCluster } from '../../src/evidence/memory-client.testing.ts';
import type { Actor, RecordDraft } from '../../src/evidence/record.ts';
import type { Anchor } from '../../src/evidence/verify.ts';
import { silentLogger } from '../../src/observability/logger.ts';

const alice: Actor = { name: 'alice@example.com', basis: 'authenticated' };
const bob: Actor = { name: 'bob@example.com', basis: 'authenticated' };
const carol: Actor = { name: 'carol@example.com', basis: 'authenticated' };
const pipeline: Actor = { name: 'flux', basis: 'asserted' };
const operator: Actor = { name: 'automation-guardrails', basis: 'operator' };

/** One record. */
export interface Story extends Partial<RecordDraft> {
  at: string;
  action: string;
  subject?: string;
}

const change = '5f0c2a71-g';
const digest = (text: string): string => createHash('sha256').update(text).digest('hex');
const engaged = '2026-01-31T09:14:02Z';
const rung = (action: string, seconds: number, message: string): Story => ({
  at: new Date(Date.parse(engaged) + seconds * 1_000).toISOString().replace('.000', ''),
  action,
  incident: '91d4be07',
  reason: action.slice('Kill'.length),
  message,
});

const story: readonly Story[] = [
  {
    at: '2026-01-30T07:58:11Z',
    action: 'WorkflowCreated',
    actor: alice,
    details: { digest: digest('g1'), generation: '1' },
  },
  {
    at: '2026-01-30T07:58:12Z',
    action: 'AutomationIdentityCreated',
    actor: alice,
    details: { digest: digest('i1'), generation: '1' },
  },
  {
    at: '2026-01-30T08:03:40Z',
    action: 'Approved',
    actor: carol,
    message: 'Reads invoices and posts them; nothing else.',
    details: { digest: digest('g1'), ticket: 'CHG-2210' },
  },
  {
    at: '2026-01-30T08:03:41Z',
    action: 'PermissionsGranted',
    details: {
      rule1: 'get, list configmaps named invoice-rules',
      rule2: 'create, get jobs of batch',
    },
  },
  {
    at: '2026-01-30T08:03:41Z',
    action: 'EgressGranted',
    details: { to1: '203.0.113.10/32 TCP/443', to2: 'pods of other namespaces UDP/53, TCP/53' },
  },
  {
    at: '2026-01-30T08:03:42Z',
    action: 'SecretIssued',
    details: { secret: 'invoice-posting-ledger' },
  },
  {
    at: '2026-01-30T08:55:09Z',
    action: 'RunsSucceeded',
    actor: { name: 'invoice-posting', basis: 'asserted' },
    subject: 'hour/1',
    details: { count: '10', first: '2026-01-30T08:05:02Z', last: '2026-01-30T08:55:09Z' },
  },
  {
    at: '2026-01-31T08:40:27Z',
    action: 'WorkflowChanged',
    actor: pipeline,
    details: { digest: digest('g2'), generation: '2' },
  },
  {
    at: '2026-01-31T08:44:18Z',
    action: 'Approved',
    actor: carol,
    message: 'Posts credit notes, too.',
    details: { digest: digest('g2'), ticket: 'CHG-2217' },
  },
  {
    at: '2026-01-31T08:44:19Z',
    action: 'EgressChanged',
    details: {
      to1: '203.0.113.10/32, 203.0.113.24/32 TCP/443',
      to2: 'pods of other namespaces UDP/53, TCP/53',
    },
  },
  {
    at: '2026-01-31T09:05:31Z',
    action: 'RunFailed',
    outcome: 'Failed',
    actor: { name: 'invoice-posting', basis: 'asserted' },
    reason: 'BackoffLimitExceeded',
    details: { cronJob: 'invoice-posting', exitCodes: '1, 1, 1', started: '2026-01-31T09:05:01Z' },
  },
  {
    at: '2026-01-31T09:06:00Z',
    action: 'ExcessPermissionsFound',
    outcome: 'Observed',
    reason: 'GrantedElsewhere',
    message:
      "RoleBinding debugging gives it get, list secrets, which its AutomationIdentity doesn't list.",
  },
  {
    at: '2026-01-31T09:12:44Z',
    action: 'LimitBreached',
    outcome: 'Observed',
    reason: 'TooManyRuns',
    message: '14 runs within 10 minutes; at most 6 are allowed.',
  },
  {
    at: engaged,
    action: 'KillEngaged',
    actor: bob,
    incident: '91d4be07',
    message: 'Posted the same credit note twice; stop it until the ledger team has looked.',
    details: { scope: 'invoice-posting' },
  },
  rung('KillFenced', 0, 'Nothing new of it is admitted.'),
  rung('KillPaused', 1, '1 CronJob and 2 Jobs are suspended.'),
  rung('KillPermissionsRevoked', 1, 'Its RoleBinding is gone.'),
  rung('KillEgressClosed', 2, 'Nothing of it reaches anything.'),
  rung('KillPodsGone', 6, '3 pods are gone.'),
  rung('KillTokensRevoked', 6, 'Its tokens are refused.'),
  rung('KillEffective', 7, 'It does nothing, and can do nothing.'),
  {
    at: '2026-01-31T09:31:05Z',
    action: 'ExcessPermissionsCleared',
    outcome: 'Observed',
    message: 'No other binding names it.',
  },
  {
    at: '2026-01-31T10:52:30Z',
    action: 'SecretRotated',
    details: { secret: 'invoice-posting-ledger' },
  },
  {
    at: '2026-01-31T10:58:47Z',
    action: 'ReleaseRequested',
    actor: carol,
    incident: '91d4be07',
    message: 'The ledger is corrected; the job keeps its place now.',
  },
  { at: '2026-01-31T10:58:48Z', action: 'KillLifted', incident: '91d4be07' },
  {
    at: '2026-01-31T10:58:51Z',
    action: 'KillReleased',
    incident: '91d4be07',
    message: 'Everything is restored, and the KillSwitch is gone.',
  },
  {
    at: '2026-01-31T11:20:09Z',
    action: 'LimitHoldEnded',
    outcome: 'Observed',
    message: 'The breach was acknowledged.',
  },
  {
    at: '2026-01-31T11:55:06Z',
    action: 'RunsSucceeded',
    actor: { name: 'invoice-posting', basis: 'asserted' },
    subject: 'hour/2',
    details: { count: '6', first: '2026-01-31T11:05:03Z', last: '2026-01-31T11:55:06Z' },
  },
];

/**
 * A day and a half of one automation, with a failure and a kill; the same text each time.
 *
 * @param more what else happened, at the end
 */
export async function exampleCase(more: readonly Story[] = []): Promise<Case> {
  const namespace = 'finance';
  const workflow = 'invoice-posting';
  const cluster = new MemoryCluster(namespace);
  // Ed25519 in PKCS #8, of a seed that everybody knows: the example is no secret.
  const prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
  const seed = createHash('sha256').update('example').digest();
  const der = Buffer.concat([prefix, seed]);
  const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const key = { privateKey, publicKey: publicKeyOf(privateKey) };
  const anchors: Anchor[] = [];
  let now = 0;
  const log = new EvidenceLog({
    client: new MemoryClient(cluster),
    signingKey: () => Promise.resolve(key),
    limits: { segmentBytes: 192 * 1024, segments: 8, retentionMs: 1e12, requireExport: false },
    logger: silentLogger(),
    clock: () => now,
    onCommitted: ({ chain, incarnation, head }) => anchors.push({ chain, incarnation, head }),
  });
  const never = new AbortController().signal;
  for (const { at, action, subject = action, ...draft } of [...story, ...more]) {
    now = Date.parse(at) + 240;
    log.observe(`${namespace}/${workflow}`, {
      facts: [
        {
          subject,
          state: at,
          draft: () => ({
            outcome: 'Succeeded',
            actor: operator,
            environment: 'production',
            identity: workflow,
            change: `${change}${at < '2026-01-31T08:40' ? 1 : 2}`,
            happened: at,
            ...draft,
            action,
          }),
        },
      ],
    });
    await log.settle(`${namespace}/${workflow}`, never);
  }
  return {
    namespace,
    workflow,
    since: '2026-01-30T00:00:00.000Z',
    exportedAt: '2026-01-31T12:00:00.000Z',
    chains: new Map([[workflow, cluster.segments(namespace, workflow)]]),
    anchors,
    keys: [key.publicKey],
    objects: [],
    credentials: [
      {
        name: 'ledger',
        secretName: 'invoice-posting-ledger',
        lastRotationTime: '2026-01-31T10:52:30Z',
      },
    ],
    notes: [],
  };
}
