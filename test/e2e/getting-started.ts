import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blocksOf, textOf } from '../../src/docs.testing.ts';
import { waitFor } from '../control-plane/wait.ts';
import { runLine, startCluster, type Choice, type Cluster } from './cluster.ts';

/** What docs/getting-started.md has in blocks, in its order. */
export const commands: readonly string[] = blocksOf(
  textOf('docs/getting-started.md'),
  'sh',
).flatMap((block) => block.trim().split('\n'));

let cluster: Cluster;
let stopOperator: (() => Promise<number | string>) | undefined;

const shell = (line: string): ReturnType<typeof runLine> => runLine(cluster, line);

async function replicasOf(name: string): Promise<number> {
  const { code, output } = await shell(
    `kubectl get deployment ${name} -n finance -o jsonpath={.spec.replicas}`,
  );
  expect(code, output).toBe(0);
  return Number(output);
}

/** What the owner asks of each of his workloads. */
async function workloads(): Promise<string> {
  const each = '{range .items[*]}{.kind}/{.metadata.name} {.spec}{"\\n"}{end}';
  const { code, output } = await shell(
    `kubectl get deployments,cronjobs -n finance -o jsonpath='${each}'`,
  );
  expect(code, output).toBe(0);
  return output;
}

/** The tests of docs/getting-started.md, on a cluster of their own. */
export function gettingStarted(choice: Choice): void {
  beforeAll(async () => {
    cluster = await startCluster(choice, (line) => console.log(line));
  }, 900_000);

  afterAll(async () => {
    await stopOperator?.();
    await cluster?.stop();
  });

  describe('getting started', () => {
    it('works as the page says, in fewer than 15 commands, and leaves nothing of ours', async () => {
      expect(commands.length).toBeLessThan(15);
      const before = 3;
      let asBefore = '';
      /** What happens beside a command, or has to be so after it. */
      const after: Record<string, (output: string) => Promise<void>> = {
        'rollout status': async () => {
          stopOperator = await cluster.runOperator();
          const canary = 'ksw/canary -n automation-guardrails-probe --for=condition=Ready';
          const isThere = async (): Promise<boolean> =>
            (await shell(`kubectl wait ${canary} --timeout=10s`)).code === 0;
          await waitFor('the first answer of the policies', isThere, { timeoutMs: 120_000 });
        },
        'guardrails tree': async (output) => {
          expect(output).toContain('Deployment/invoice-poster');
          expect(await replicasOf('invoice-poster')).toBe(before);
          asBefore = await workloads();
          expect(asBefore).toContain('CronJob/');
        },
        'guardrails kill': async (output) => {
          expect(output).toContain('Effective');
          expect(await replicasOf('invoice-poster')).toBe(0);
        },
        'guardrails explain': (output) => {
          expect(output).toContain('posts invoices twice');
          return Promise.resolve();
        },
        'guardrails release': async () => {
          expect(await replicasOf('invoice-poster')).toBe(before);
        },
        'guardrails uninstall': async (output) => {
          expect(output).toContain('Workloads are left as they are');
          expect(await stopOperator?.()).toBe(0);
          stopOperator = undefined;
        },
        'delete -k crds': async () => {
          // The garbage collector is about what was made for our objects.
          const isCleared = async (): Promise<boolean> => {
            const made = await shell(
              'kubectl get serviceaccounts,roles,rolebindings,networkpolicies,secrets -n finance -l app.kubernetes.io/managed-by=automation-guardrails -o name',
            );
            return made.code === 0 && !made.output.includes('/');
          };
          await waitFor('what was made for our objects to be gone', isCleared, {
            timeoutMs: 120_000,
          });
          expect(await workloads()).toBe(asBefore);
        },
      };
      const seen = new Set<string>();
      for (const command of commands) {
        const { code, output } = await shell(command);
        expect(code, `${command}\n${output}`).toBe(0);
        const step = Object.keys(after).find((part) => command.includes(part));
        if (step === undefined) continue;
        seen.add(step);
        await after[step]?.(output);
      }
      expect([...seen].toSorted()).toEqual(Object.keys(after).toSorted());

      // What this cluster serves: there is no MutatingAdmissionPolicy before Kubernetes 1.36.
      const served = await shell('kubectl api-resources --namespaced=false --verbs=list -o name');
      const kinds = served.output
        .split('\n')
        .filter((kind) =>
          /^(clusterrole|validatingadm|mutatingadm|flowschema|prioritylevel|customres)/.test(kind),
        );
      expect(kinds.length).toBeGreaterThanOrEqual(7);
      const left = await shell(`kubectl get ${kinds.join(',')} -o name`);
      expect(left.code, left.output).toBe(0);
      expect(left.output.split('\n').filter((name) => name.includes('guardrails'))).toEqual([]);
    }, 900_000);
  });
}
