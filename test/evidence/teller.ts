/**
 * A process that tells a chain of evidence the same levels and runs from the start, as the operator
 * does after a list, and ends when all of it is written. For tests that kill it in the middle.
 *
 * Usage: node test/evidence/teller.ts KUBECONFIG NAMESPACE/CHAIN SEGMENTS
 */
import { generateKeyPairSync } from 'node:crypto';
import { publicKeyOf } from '../../src/evidence/head.ts';
import { EvidenceLog } from '../../src/evidence/log.ts';
import { hourOf, runScope } from '../../src/evidence/observation.ts';
import { silentLogger } from '../../src/observability/logger.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';

/** Levels that are told, two with each write. */
export const levels = 12;
/** Runs that are counted at the end. */
export const runs = 70;

/**
 * Tells all of it, and goes on until it is written.
 *
 * @param segments of the chain that are kept
 */
export async function tellAll(kubeconfig: string, chain: string, segments: number): Promise<void> {
  const kubeConfig = new PooledKubeConfig().load({ kubeconfig });
  const { privateKey } = generateKeyPairSync('ed25519');
  const key = { privateKey, publicKey: publicKeyOf(privateKey) };
  const log = new EvidenceLog({
    client: new ApiServerClient({ kubeConfig, userAgent: 'teller' }),
    signingKey: () => Promise.resolve(key),
    limits: { segmentBytes: 4_000, segments, retentionMs: 1e12, requireExport: false },
    logger: silentLogger(),
    clock: Date.now,
  });
  const never = new AbortController().signal;
  const draft = (action: string) => ({
    action,
    outcome: 'Observed' as const,
    actor: { name: 'alice', basis: 'authenticated' as const },
    message: 'A sentence of the length that conditions and reasons usually have, no more.',
  });
  const settled = async (): Promise<void> => {
    while (!(await log.settle(chain, never)));
  };
  for (let level = 0; level < levels; level++) {
    const subject = `level-${level}`;
    log.observe(chain, { facts: [{ subject, state: 'on', draft: () => draft(subject) }] });
    if (level % 2 === 1) await settled();
  }
  const ended = '2026-01-01T10:20:30Z';
  const counted = Array.from({ length: runs }, (_, run) => ({
    subject: `${runScope}${run}/`,
    state: ended,
    draft: () => draft('RunsSucceeded'),
    foldInto: hourOf(ended),
  }));
  log.observe(chain, { facts: counted });
  await settled();
  await kubeConfig.closeConnections();
}

if (import.meta.main) {
  const [kubeconfig = '', chain = '', segments = ''] = process.argv.slice(2);
  await tellAll(kubeconfig, chain, Number(segments));
}
