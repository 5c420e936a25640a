import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { loadAll } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AdmissionObject } from '../../src/admission/index.ts';
import type { Condition } from '../../src/api/objects.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { getObject, installGuardrails, kubectlOk, listObjects } from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const namespace = 'automation-guardrails-probe';
const operatorUser = 'system:serviceaccount:automation-guardrails:automation-guardrails';

let controlPlane: ControlPlane;
let operator: OperatorProcess;
let installed: AdmissionObject[] = [];
/** Of the canary, before anything was done. */
let firstUid: string | undefined;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  const texts = await Promise.all(
    ['validating', 'mutating'].map((part) =>
      readFile(path.join(root, 'config/admission', part, 'policies.yaml'), 'utf8'),
    ),
  );
  installed = texts.flatMap((text) => loadAll(text) as AdmissionObject[]);
  operator = await startOperator({ kubeconfigPath });
});

afterAll(async () => {
  await operator?.stop();
  await controlPlane?.stop();
});

async function conditions(): Promise<Condition[]> {
  const canary = await getObject<{ status?: { conditions?: Condition[] } }>(
    controlPlane,
    'ksw',
    'canary',
    namespace,
  );
  return canary?.status?.conditions ?? [];
}

async function canaryUid(): Promise<string | undefined> {
  const canary = await getObject<{ metadata: { uid: string } }>(
    controlPlane,
    'ksw',
    'canary',
    namespace,
  );
  return canary?.metadata.uid;
}

/** Waits until a condition of the canary stands as expected; its message. */
function canarySays(type: string, status: string, part = ''): Promise<string> {
  return waitFor(
    `${type}=${status} with "${part}"`,
    async () => {
      const all = await conditions();
      const found = all.find((condition) => condition.type === type);
      if (found?.status === status && found.message.includes(part)) return found.message;
      throw new Error(JSON.stringify(all));
    },
    { timeoutMs: 120_000, intervalMs: 200 },
  );
}

/** The values of a gauge by policy, without the prefix. */
async function gauge(name: string): Promise<Map<string, number>> {
  const text = await (await fetch(operator.metricsUrl())).text();
  const lines = text.matchAll(
    new RegExp(
      `^automation_guardrails_${name}\\{policy="automation-guardrails-([a-z-]+)"\\} (\\d)$`,
      'gm',
    ),
  );
  return new Map([...lines].map(([, policy = '', value]) => [policy, Number(value)]));
}

const where = (values: Map<string, number>, wanted: number): string[] =>
  [...values].filter(([, value]) => value === wanted).map(([policy]) => policy);

function original(kind: string, policy: string): AdmissionObject {
  const found = installed.find(
    (object) => object.kind === kind && object.metadata.name === `automation-guardrails-${policy}`,
  );
  if (found === undefined) throw new Error(`no ${kind} ${policy}`);
  return structuredClone(found);
}

async function replace(object: AdmissionObject): Promise<void> {
  await kubectlOk(controlPlane, ['replace', '-f', '-'], { input: JSON.stringify(object) });
}

async function remove({ kind, metadata }: AdmissionObject): Promise<void> {
  await kubectlOk(controlPlane, ['delete', kind, metadata.name]);
}

describe('the standing probe', () => {
  it('proves every policy, on a KillSwitch that stands for good', async () => {
    await canarySays('FenceInForce', 'True');
    firstUid = await canaryUid();
    await canarySays('PoliciesIntact', 'True');
    const values = await gauge('fence_in_force');
    const policies = installed.filter(({ kind }) => !kind.endsWith('Binding'));
    expect(where(values, 1)).toHaveLength(policies.length);
    expect(where(values, 0)).toEqual([]);
    expect(where(await gauge('policy_edited'), 1)).toEqual([]);
  });

  it('is no incident: it is not counted, not latched, and nothing is provisioned for it', async () => {
    const text = await (await fetch(operator.metricsUrl())).text();
    expect(text).toMatch(/^automation_guardrails_kill_switches\{state="engaged"\} 0$/m);
    expect(text).toMatch(/^automation_guardrails_kill_switches\{state="stopped"\} 0$/m);
    const names = async (kind: string): Promise<string[]> =>
      (await listObjects<{ metadata: { name: string } }>(controlPlane, kind, namespace)).map(
        ({ metadata }) => metadata.name,
      );
    expect(await names('ksw')).toEqual(['canary']);
    expect(await names('networkpolicies,secrets,pods,deployments,jobs,cronjobs')).toEqual([]);
  });
});

interface Sabotage {
  what: string;
  policy: string;
  /** Whatever else doesn't answer any more, because this policy answered for it. */
  act: () => Promise<void>;
  undo: () => Promise<void>;
}

function edit(
  kind: string,
  policy: string,
  change: (spec: AdmissionObject['spec']) => void,
): Pick<Sabotage, 'policy' | 'act' | 'undo'> {
  return {
    policy,
    act: () => {
      const edited = original(kind, policy);
      change(edited.spec);
      return replace(edited);
    },
    undo: () => replace(original(kind, policy)),
  };
}

function deleted(kind: string, policy: string): Pick<Sabotage, 'policy' | 'act' | 'undo'> {
  return {
    policy,
    act: () => remove(original(kind, policy)),
    undo: () => controlPlane.apply([original(kind, policy)]),
  };
}

const never = [{ name: 'never', expression: 'false' }];
const elsewhere = {
  matchExpressions: [
    { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: [namespace] },
  ],
};

const sabotages: Sabotage[] = [
  { what: 'is deleted', ...deleted('ValidatingAdmissionPolicy', 'fence-pods') },
  {
    what: 'loses its binding',
    ...deleted('ValidatingAdmissionPolicyBinding', 'fence-token-secrets'),
  },
  { what: 'loses its binding', ...deleted('MutatingAdmissionPolicyBinding', 'freeze-deployments') },
  {
    what: 'applies to nothing',
    ...edit('ValidatingAdmissionPolicy', 'kill-switch-delete', (spec) => {
      spec.matchConditions = never;
    }),
  },
  {
    what: 'allows everything',
    ...edit('ValidatingAdmissionPolicy', 'kill-switch-release', (spec) => {
      spec.validations = [{ expression: 'true', message: 'anything', reason: 'Forbidden' }];
    }),
  },
  {
    what: 'applies to nothing',
    ...edit('MutatingAdmissionPolicy', 'freeze-cronjobs', (spec) => {
      spec.matchConditions = never;
    }),
  },
  {
    what: 'is bound elsewhere',
    ...edit('ValidatingAdmissionPolicyBinding', 'fence-pods', (spec) => {
      if (spec.matchResources !== undefined) spec.matchResources.namespaceSelector = elsewhere;
    }),
  },
  {
    what: 'only warns',
    ...edit('ValidatingAdmissionPolicyBinding', 'fence-pods', (spec) => {
      spec.validationActions = ['Warn'];
    }),
  },
  {
    what: 'finds no KillSwitch',
    ...edit('ValidatingAdmissionPolicyBinding', 'fence-pods', (spec) => {
      spec.paramRef = {
        selector: { matchLabels: { nothing: 'has-this' } },
        parameterNotFoundAction: 'Allow',
      };
    }),
  },
  {
    what: 'that no dry run reaches applies to nothing',
    ...edit('ValidatingAdmissionPolicy', 'fence-tokens', (spec) => {
      spec.matchConditions = never;
    }),
  },
  {
    what: 'that no dry run reaches is deleted',
    ...deleted('ValidatingAdmissionPolicy', 'frozen-jobs'),
  },
];

describe('a policy that is no longer in force is named within one probe', () => {
  it.each(sabotages)('$policy $what', async ({ policy, act, undo }) => {
    await act();
    try {
      const message = await canarySays('FenceInForce', 'False', `automation-guardrails-${policy}`);
      expect(message).toMatch(/^1 of \d+ admission policies/);
      expect(where(await gauge('fence_in_force'), 0)).toEqual([policy]);
      await canarySays('Ready', 'False');
    } finally {
      await undo();
    }
    await canarySays('FenceInForce', 'True');
    await canarySays('PoliciesIntact', 'True');
    expect(where(await gauge('fence_in_force'), 0)).toEqual([]);
  });
});

describe('an edit that the probe does not feel', () => {
  it('is reported as one', async () => {
    const policy = 'fence-pods';
    const { act, undo } = edit('ValidatingAdmissionPolicyBinding', policy, (spec) => {
      spec.matchResources?.namespaceSelector.matchExpressions?.push({
        key: 'kubernetes.io/metadata.name',
        operator: 'NotIn',
        values: ['finance'],
      });
    });
    await act();
    const message = await canarySays('PoliciesIntact', 'False', policy);
    expect(message).toContain('of its binding differs');
    await canarySays('FenceInForce', 'True');
    expect(where(await gauge('policy_edited'), 1)).toEqual([policy]);
    await undo();
    await canarySays('PoliciesIntact', 'True');
  });
});

describe('the canary', () => {
  it('is the one of the beginning: what was asked of it was never done', async () => {
    expect(await canaryUid()).toBe(firstUid);
  });

  it('is put back after somebody released it by force', async () => {
    const bob = { as: 'bob', asGroups: ['system:masters'] };
    const marks = [
      ['annotate', 'automationguardrails.dev/release=away'],
      ['label', 'automationguardrails.dev/releasing=true'],
    ] as const;
    for (const [verb, mark] of marks) {
      await kubectlOk(controlPlane, [verb, 'ksw/canary', `-n=${namespace}`, mark], bob);
    }
    await waitFor('another canary', async () => {
      const uid = await canaryUid();
      return uid !== undefined && uid !== firstUid;
    });
    await canarySays('FenceInForce', 'True');
  });
});

describe('what the operator may do in the namespace of the probe', () => {
  it('starts nothing, whatever becomes of the policies', async () => {
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'smuggled', namespace },
      spec: {
        serviceAccountName: 'default',
        securityContext: {
          runAsNonRoot: true,
          runAsUser: 1000,
          seccompProfile: { type: 'RuntimeDefault' },
        },
        containers: [
          {
            name: 'main',
            image: 'registry.example/automation:1',
            securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
          },
        ],
      },
    };
    const as = { as: operatorUser };
    const { stderr } = await controlPlane.kubectl(['create', '-f', '-'], {
      input: JSON.stringify(pod),
      ...as,
    });
    expect(stderr).toContain('exceeded quota');
    const elsewhereToo = await controlPlane.kubectl(['create', '-n=default', '-f', '-'], {
      input: JSON.stringify({ ...pod, metadata: { name: 'smuggled', namespace: 'default' } }),
      ...as,
    });
    expect(elsewhereToo.stderr).toContain('cannot create resource "pods"');
    for (const verb of ['delete', 'update', 'create']) {
      const { stdout } = await controlPlane.kubectl(
        ['auth', 'can-i', verb, 'resourcequotas', `-n=${namespace}`],
        as,
      );
      expect(stdout.trim()).toBe('no');
    }
  });
});
