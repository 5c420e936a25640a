import { generateKeyPairSync } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { silentLogger } from '../observability/logger.ts';
import { bundleFiles, verifyBundle, type Case } from './bundle.ts';
import { sha256 } from './canonical.ts';
import { publicKeyOf } from './head.ts';
import { EvidenceLog } from './log.ts';
import { MemoryClient, MemoryCluster } from './memory-client.testing.ts';
import { ArchiveError, pack, unpack } from './tar.ts';
import type { Anchor } from './verify.ts';

const canary = 'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYW5hcnkifQ.c2VjcmV0';
const hostile = '<img src=https://evil.example/x onerror=alert(1)>';
let evidence: Case;

beforeAll(async () => {
  const cluster = new MemoryCluster('finance');
  const { privateKey } = generateKeyPairSync('ed25519');
  const key = { privateKey, publicKey: publicKeyOf(privateKey) };
  const anchors: Anchor[] = [];
  const log = new EvidenceLog({
    client: new MemoryClient(cluster),
    signingKey: () => Promise.resolve(key),
    limits: { segmentBytes: 3_000, segments: 9, retentionMs: 1e12, requireExport: false },
    logger: silentLogger(),
    clock: Date.now,
    onCommitted: ({ chain, incarnation, head }) => anchors.push({ chain, incarnation, head }),
  });
  const never = new AbortController().signal;
  for (let turn = 0; turn < 12; turn++) {
    log.observe('finance/invoice', {
      facts: [
        {
          subject: 's',
          state: String(turn),
          draft: () => ({
            action: turn % 2 === 0 ? 'KillEngaged' : 'KillReleased',
            outcome: 'Succeeded',
            actor: { name: `alice ${hostile} ${canary}`, basis: 'authenticated' },
            reason: canary,
            incident: canary,
            environment: canary,
            objects: [{ apiVersion: 'v1', kind: 'Secret', name: canary, uid: canary }],
            message: `it held the token ${canary} ${hostile}`,
            details: { password: 'is elsewhere', header: `Bearer ${canary}` },
          }),
        },
      ],
    });
    await log.settle('finance/invoice', never);
  }
  evidence = {
    namespace: 'finance',
    workflow: 'invoice',
    exportedAt: '2026-01-02T03:04:05.000Z',
    chains: new Map([['invoice', cluster.segments('finance', 'invoice')]]),
    anchors,
    keys: [key.publicKey],
    objects: [
      { kind: 'Secret', data: { password: canary }, metadata: { name: hostile } },
      { kind: 'Workflow', metadata: { name: 'w', annotations: { note: `Bearer ${canary}` } } },
    ],
    credentials: [{ name: 'database', owner: canary, lastRotationTime: '2026-01-01T00:00:00Z' }],
    metrics: [
      {
        labels: { __name__: 'attention_seconds', team: canary },
        points: [{ time: '2026-01-01T00:00:00Z', value: '3' }],
      },
    ],
    notes: [`anchors: refused Bearer ${canary}`],
  };
});

describe('a bundle', () => {
  it('comes back as it went, and proves itself without a cluster', () => {
    const files = bundleFiles(evidence);
    const back = unpack(pack(files));
    expect(back).toEqual(files);
    const proof = verifyBundle(back, { trustedKeys: evidence.keys });
    expect(proof.problems).toEqual([]);
    expect(proof.anchored).toBe(evidence.anchors.length);
    expect(proof.records.map(({ action }) => action)).toContain('KillReleased');
  });

  it('holds no secret value, in no file', () => {
    for (const [name, text] of bundleFiles(evidence)) {
      expect(text.includes(canary), name).toBe(false);
      expect(text.includes(canary.split('.')[2] ?? ''), name).toBe(false);
    }
  });

  it('shows a flip of any bit of the file', () => {
    const files = bundleFiles(evidence);
    const archive = pack(files);
    const isEqual = (other: Uint8Array): boolean => isDeepStrictEqual(unpack(other), files);
    fc.assert(
      fc.property(fc.nat(archive.length - 1), fc.nat(7), (at, bit) => {
        const flipped = Buffer.from(archive);
        flipped[at] = (flipped[at] ?? 0) ^ (1 << bit);
        // Some bits of gzip say nothing: where it was made, or what fills the last byte.
        expect(isSound(flipped) && !isEqual(flipped)).toBe(false);
      }),
      { numRuns: 300 },
    );
    for (let cut = 1; cut < archive.length; cut += 97) {
      expect(isSound(archive.subarray(0, cut))).toBe(false);
    }
  });

  it('shows a change of any file, also where the manifest was written anew', () => {
    const files = bundleFiles(evidence);
    for (const name of files.keys()) {
      if (
        ['keys.json', 'objects.json', 'credentials.json', 'anchors.json', 'metrics.json'].includes(
          name,
        )
      )
        continue;
      const text = files.get(name) ?? '';
      for (const at of [5, 200, Math.floor(text.length / 2), text.length - 10]) {
        const changed = new Map(files);
        changed.set(
          name,
          `${text.slice(0, at)}${text[at] === '1' ? '2' : '1'}${text.slice(at + 1)}`,
        );
        if (name !== 'manifest.json') {
          const manifest: { files: Record<string, string> } = JSON.parse(
            files.get('manifest.json') ?? '',
          );
          manifest.files[name] = sha256(changed.get(name) ?? '');
          changed.set('manifest.json', JSON.stringify(manifest));
        }
        expect(isSound(pack(changed)), `${name} at ${at}`).toBe(false);
      }
    }
    for (const name of files.keys()) {
      const without = new Map(files);
      without.delete(name);
      expect(isSound(pack(without)), name).toBe(false);
    }
  });

  it('of another version is sound, and its report is said to be unproven', () => {
    const files = new Map(bundleFiles(evidence));
    files.set('report.html', 'rendered otherwise');
    const manifest: { version: string; files: Record<string, string> } = JSON.parse(
      files.get('manifest.json') ?? '',
    );
    manifest.version = '0.0.1';
    manifest.files['report.html'] = sha256('rendered otherwise');
    files.set('manifest.json', JSON.stringify(manifest));
    const { problems, remarks } = verifyBundle(files);
    expect(problems).toEqual([]);
    expect(remarks.join()).toContain('rendered by version 0.0.1');
  });

  it('has a report that says what happened, runs nothing, and asks nobody', () => {
    const report = bundleFiles(evidence).get('report.html') ?? '';
    expect(report).toContain('The chain is unbroken');
    expect(report).toContain('KillEngaged');
    expect(report).toContain('width=device-width');
    expect(report).toContain("default-src 'none'");
    // Elements that load or run something; what others wrote is text.
    expect(report).not.toMatch(/<(script|link|img|iframe|object|embed|form|base|svg)\b/i);
    expect(report).not.toMatch(/<[^>]*\b(src|href|srcset|action)\s*=/i);
    expect(report).not.toMatch(/url\(|@import/i);
    expect(report).toContain('&lt;img src=https://evil.example/x');
  });

  it('has a report that says so where the chain is broken', () => {
    const segments = structuredClone(evidence.chains.get('invoice') ?? []).slice(1);
    const report = bundleFiles({ ...evidence, chains: new Map([['invoice', segments]]) }).get(
      'report.html',
    );
    expect(report).toContain('The chain is broken');
    expect(report).toContain('StartMissing');
  });
});

function isSound(archive: Uint8Array): boolean {
  try {
    return verifyBundle(unpack(archive)).problems.length === 0;
  } catch (error) {
    if (error instanceof ArchiveError) return false;
    throw error;
  }
}
