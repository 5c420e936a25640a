import { setTimeout as delay } from 'node:timers/promises';
import { Agent, request } from 'undici';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { annotation, secretNameOf } from '../../src/api/names.ts';
import { resources } from '../../src/api/resources.ts';
import { tokenOf } from '../../src/guardrails/credentials/token.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { waitFor } from '../control-plane/wait.ts';
import { BenchCluster, namesOf, owner } from './cluster.ts';
import { percentile, type Report } from './report.ts';

const namespace = 'revoked';
/** Of the API server of the control plane: its issuer, as no other is set. */
const audience = 'https://kubernetes.default.svc';
/** Revocations under way at a time: each asks again and again meanwhile. */
const atOnce = 8;
const askEveryMs = 20;
const permissions = [
  { apiGroups: [''], resources: ['configmaps'], verbs: ['list'], reason: 'benchmark' },
];

/**
 * Time until a real request is refused: with a token that is revoked by annotation, and with one
 * that is good after the permission was taken out of the spec. Each from before the write that asks
 * for it, and right after a request that was let through, so that the API server remembers the token.
 *
 * @param count revocations of each kind
 */
export async function benchRevoke(report: Report, count: number): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  await cluster.startOperator();
  await cluster.createNamespace(namespace);
  const { controlPlane, client } = cluster;
  // Behind each 401, an API server ends an HTTP/2 connection, and with it the requests of others.
  const agent = new Agent({ allowH2: false, connect: { ca: controlPlane.certificateAuthority } });
  try {
    const ask = async (token: string): Promise<number> => {
      const url = `${controlPlane.server}/api/v1/namespaces/${namespace}/configmaps?limit=1`;
      const headers = { authorization: `Bearer ${token}` };
      const { statusCode, body } = await request(url, { dispatcher: agent, headers });
      await body.dump();
      return statusCode;
    };
    const names = namesOf('identity', count);
    report.progress(`creating ${count} identities`);
    for (const name of names) await client.create(resources.automationIdentities, identity(name));
    const until = async (name: string, status: number, isOld: (token: string) => boolean) =>
      waitFor(
        `a token of ${name} to be answered ${status}`,
        async () => {
          const key = { namespace, name: secretNameOf(name, 'api') };
          const secret = await client.get(resources.secrets, key);
          const token = secret === undefined ? '' : tokenOf(secret);
          if (token === '' || isOld(token)) return undefined;
          return (await ask(token)) === status ? token : undefined;
        },
        { timeoutMs: 120_000, intervalMs: 250 },
      );
    const measure = async (
      what: string,
      refused: number,
      revoke: (name: string) => object,
    ): Promise<void> => {
      report.progress(`${what}: ${count} times`);
      const outcomes = await forEachBounded(names, atOnce, async (name) => {
        const token = await until(name, 200, () => false);
        const started = performance.now();
        await client.mergePatch(resources.automationIdentities, { namespace, name }, revoke(name));
        while ((await ask(token)) !== refused) {
          if (performance.now() - started > 60_000) throw new Error(`${what}: not within a minute`);
          await delay(askEveryMs);
        }
        const took = performance.now() - started;
        if (refused === 401) await until(name, 200, (next) => next === token);
        return took;
      });
      assertAllDone(outcomes, what);
      const times = outcomes.flatMap((outcome) => ('result' in outcome ? [outcome.result] : []));
      for (const share of [50, 99]) {
        report.figure(`${what}, p${share}`, percentile(times, share), 'ms', times.length);
      }
    };
    await measure('token revoked by annotation until a request is refused', 401, () => ({
      metadata: { annotations: { [annotation.rotate]: 'benchmark' } },
    }));
    await measure('permission removed until a request is refused', 403, () => ({
      spec: { permissions: [] },
    }));
  } finally {
    await agent.close();
  }
}

/** With a token that the API server takes itself. */
function identity(name: string): AutomationIdentity {
  return {
    metadata: { namespace, name },
    spec: {
      purpose: 'benchmark',
      owner,
      permissions,
      tokens: [{ name: 'api', audience, allowKubernetesAPI: true }],
    },
  };
}
