import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation } from '../operator/automation.ts';
import {
  installGuardrails,
  kubectlOk,
  serviceAccountKubeconfig,
  waitForCondition,
} from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

let controlPlane: ControlPlane;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  operator = await startOperator({ kubeconfigPath: await installGuardrails(controlPlane) });
  await controlPlane.apply(automation({ namespace: 'finance' }));
  await waitForCondition(
    controlPlane,
    { kind: 'awf', name: 'invoice', namespace: 'finance' },
    'Ready',
  );
});

afterAll(async () => {
  operator?.kill();
  await controlPlane?.stop();
});

async function cli(
  argv: string[],
  kubeconfig = controlPlane.kubeconfigPath,
): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await run({
    argv: [...argv, `--kubeconfig=${kubeconfig}`],
    stdout: (line) => out.push(line),
    stderr: (line) => err.push(line),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

describe('doctor', () => {
  it('finds nothing wrong with an installation that works', async () => {
    const { out } = await waitFor(
      'a clean bill of health',
      async () => {
        const outcome = await cli(['doctor']);
        return outcome.code === 0 && outcome;
      },
      { timeoutMs: 120_000 },
    );
    expect(out).toMatch(/API server +ok +Kubernetes v1\.36/);
    expect(out).toMatch(/policies in force +ok/);
    expect(out).toMatch(/operator +ok .* leads/);
    expect(out).toMatch(/guarded namespaces +ok +\d namespaces/);
    expect(out).toMatch(/your rights +note .*you may kill, release, break the glass, edit, view/);
  });

  it('fails where a policy is missing, and where it may not look', async () => {
    const policy = 'validatingadmissionpolicybinding/automation-guardrails-fence-pods';
    const kept = await kubectlOk(controlPlane, ['get', policy, '-o=json']);
    await kubectlOk(controlPlane, ['delete', policy]);
    const { code, out } = await cli(['doctor']);
    expect(code).toBe(1);
    expect(out).toMatch(/admission policies +failed .*automation-guardrails-fence-pods/);
    await waitFor('the standing probe to find out', async () =>
      /policies in force +failed/.test((await cli(['doctor'])).out),
    );
    const { metadata, ...binding } = JSON.parse(kept) as { metadata: Record<string, unknown> };
    const { name, labels } = metadata;
    await controlPlane.apply([{ ...binding, metadata: { name, labels } }]);

    const nobody = await serviceAccountKubeconfig(controlPlane, {
      namespace: 'default',
      name: 'default',
    });
    const blind = await cli(['doctor'], nobody);
    expect(blind.code).toBe(1);
    expect(blind.out).toMatch(/admission policies +unknown +You may not look/);
  });

  it('fails where no operator leads', async () => {
    const { code, out } = await cli(['doctor', '-n', 'elsewhere']);
    expect(code).toBe(1);
    expect(out).toMatch(/operator +failed +No operator leads in namespace elsewhere/);
  });
});

describe('who can', () => {
  it('is whom the roles of an installation were given', async () => {
    await kubectlOk(controlPlane, [
      'create',
      'clusterrolebinding',
      'on-call',
      '--clusterrole=automation-guardrails-killer',
      '--group=on-call',
    ]);
    await kubectlOk(controlPlane, [
      'create',
      'rolebinding',
      'leads',
      '-n=finance',
      '--clusterrole=automation-guardrails-releaser',
      '--user=bob',
    ]);
    const kill = await cli(['who-can', 'kill', 'invoice', '-n', 'finance', '-o', 'wide']);
    expect(kill.code).toBe(0);
    expect(kill.out).toMatch(/Group +on-call +ClusterRole\/automation-guardrails-killer/);
    expect(kill.out).not.toContain('bob');
    const release = await cli(['who-can', 'release', 'invoice', '-n', 'finance', '-o', 'json']);
    const subjects = (JSON.parse(release.out) as { subject: string }[]).map(
      ({ subject }) => subject,
    );
    expect(subjects).toContain('bob');
    expect(subjects).not.toContain('on-call');
    // As the API server sees it.
    for (const [user, verb, expected] of [
      ['bob', 'release', 'yes'],
      ['eve', 'release', 'no'],
    ] as const) {
      await waitFor(`the API server to say ${expected} of ${user}`, async () => {
        const { stdout } = await controlPlane.kubectl([
          'auth',
          'can-i',
          verb,
          'killswitches.automationguardrails.dev/invoice',
          '-n=finance',
          `--as=${user}`,
        ]);
        return stdout.trim() === expected;
      });
      expect(subjects.includes(user)).toBe(expected === 'yes');
    }
  });
});

describe('rotate', () => {
  it('waits until the value is another one', async () => {
    const value = (): Promise<string> =>
      kubectlOk(controlPlane, [
        'get',
        'secret',
        'aid.invoice.database',
        '-n=finance',
        '-o=jsonpath={.data.password}',
      ]);
    const before = await value();
    const { code, out, err } = await cli([
      'rotate',
      'invoice',
      '-n',
      'finance',
      '--emergency',
      '--timeout=240',
    ]);
    expect(code, err).toBe(0);
    expect(out).toContain('The values before are withdrawn');
    expect(await value()).not.toBe(before);
  });
});

describe('tree and explain', () => {
  it('show what belongs to an automation, and why it is stopped', async () => {
    const before = await cli(['tree', 'invoice', '-n', 'finance']);
    expect(before.code).toBe(0);
    for (const line of [
      /^Workflow\/invoice +Ready$/m,
      /^ {2}Deployment\/invoice-poster$/m,
      /^ {2}Pod\/invoice-poster-.* Running$/m,
      /^ {2}NetworkPolicy\//m,
      /^ {2}AutomationIdentity\/invoice +Ready$/m,
      /^ {4}RoleBinding\//m,
      /^ {4}Secret\/aid\.invoice\.database +Password$/m,
    ]) {
      expect(before.out).toMatch(line);
    }
    expect((await cli(['explain', 'invoice', '-n', 'finance'])).out).toContain('Nothing is wrong');

    const killed = await cli([
      'kill',
      'invoice',
      '-n',
      'finance',
      '--reason=posts twice',
      '--timeout=240',
    ]);
    expect(killed.code, killed.err).toBe(0);
    const after = await cli(['tree', 'invoice', '-n', 'finance']);
    expect(after.out).toMatch(/^ {2}KillSwitch\/invoice +posts twice$/m);
    expect(after.out).toMatch(/^ {2}Deployment\/invoice-poster +paused$/m);
    expect(after.out).not.toMatch(/Pod\//);
    const why = await waitFor('the Workflow to say that it is stopped', async () => {
      const outcome = await cli(['explain', 'invoice', '-n', 'finance']);
      return outcome.out.includes('Stopped is True') && outcome;
    });
    expect(why.out).toContain('posts twice');
    expect(why.out).toContain('kubectl guardrails release NAME -n NAMESPACE');
    expect((await cli(['explain', 'nobody', '-n', 'finance'])).code).toBe(1);
  });
});
