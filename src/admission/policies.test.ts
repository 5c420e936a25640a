import { describe, expect, it } from 'vitest';
import { GROUP, label } from '../api/names.ts';
import {
  admissionParts,
  admissionPolicies,
  annotationProbePolicyName,
  isDeniedBy,
  probePolicyName,
} from './index.ts';
import { policyName, validating } from './policies.ts';

const all = admissionPolicies();
const bindings = all.filter(({ kind }) => kind.endsWith('Binding'));
const policies = all.filter(({ kind }) => !kind.endsWith('Binding'));
const bindingOf = new Map(bindings.map((binding) => [binding.metadata.name, binding]));

function rulesOf({ spec }: (typeof policies)[number]) {
  return spec.matchConstraints?.resourceRules ?? [];
}

const byName = (a: (typeof all)[number], b: (typeof all)[number]): number =>
  `${a.kind}${a.metadata.name}`.localeCompare(`${b.kind}${b.metadata.name}`);

describe('the admission policies', () => {
  it('are the same, in the same order, every time', () => {
    expect(admissionPolicies()).toEqual(all);
  });

  it('have names that are DNS names, each once', () => {
    const names = policies.map(({ metadata }) => metadata.name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^automation-guardrails-[a-z]+(-[a-z]+)*$/);
  });

  it.each(policies)('are bound, and say what they do: $metadata.name', ({ kind, metadata }) => {
    const binding = bindingOf.get(metadata.name);
    expect(binding?.kind).toBe(`${kind}Binding`);
    expect(binding?.spec.policyName).toBe(metadata.name);
    expect(metadata.annotations?.[`${GROUP}/description`]).toMatch(/^[A-Z].*\.$/);
  });

  it.each(policies)('stay out of namespaces that are not guarded: $metadata.name', (policy) => {
    const { matchResources, paramRef } = bindingOf.get(policy.metadata.name)?.spec ?? {};
    // Without parameters, what they say of the annotation on a Namespace holds at any time.
    const isOnCarriers = rulesOf(policy).every(
      ({ apiGroups, resources }) =>
        apiGroups.join() === GROUP || /^namespaces(\/|$)/.test(resources.join()),
    );
    // By who asks.
    if (policy.metadata.name === policyName('operator-reach')) return;
    if (isOnCarriers && policy.spec.paramKind === undefined && matchResources === undefined) {
      return;
    }
    const { objectSelector } = policy.spec.matchConstraints ?? {};
    const selected = objectSelector?.matchExpressions ?? [];
    // What carries this label is ours, wherever it is.
    if (selected.some(({ key }) => key === label.evidence || key === label.copies)) return;
    if (rulesOf(policy).every(({ resources }) => /^namespaces(\/|$)/.test(resources.join()))) {
      // By the Namespace's own label: its selector would look at what the write leaves of it.
      expect(policy.spec.matchConstraints?.objectSelector?.matchExpressions).toEqual([
        { key: `${GROUP}/environment`, operator: 'Exists' },
      ]);
      return;
    }
    expect(matchResources?.namespaceSelector.matchExpressions?.slice(0, 2)).toEqual([
      { key: `${GROUP}/environment`, operator: 'Exists' },
      { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['kube-system'] },
    ]);
    // No KillSwitch in a namespace is the usual case there.
    expect(paramRef?.parameterNotFoundAction ?? 'Allow').toBe('Allow');
  });

  it('bind no policy to all Workflows', () => {
    for (const { spec, metadata } of policies) {
      if (spec.paramKind?.kind !== 'Workflow') continue;
      const selector = bindingOf.get(metadata.name)?.spec.paramRef?.selector;
      expect([
        { matchLabels: { [`${GROUP}/engaged`]: 'true' } },
        { matchExpressions: [{ key: `${GROUP}/approval`, operator: 'Exists' }] },
        { matchLabels: { [`${GROUP}/limited`]: 'true' } },
        { matchLabels: { [`${GROUP}/limit-breached`]: 'true' } },
      ]).toContainEqual(selector);
    }
  });

  it.each(['copy-records', 'evidence-anchors'])(
    'let ConfigMaps of the operator be written back as they are, as a migration does: %s',
    (name) => {
      const policy = policies.find(({ metadata }) => metadata.name === policyName(name));
      const [only, ...others] = policy?.spec.validations ?? [];
      expect(others).toEqual([]);
      const metadata = ['labels', 'annotations', 'ownerReferences', 'finalizers'];
      const ofMetadata = metadata.map((field) => `metadata.?${field}`);
      for (const field of ['data', 'binaryData', 'immutable', ...ofMetadata]) {
        expect(only?.expression).toContain(`dyn(object).?${field} == dyn(oldObject).?${field}`);
      }
    },
  );

  it('are installed in two parts, of which one rewrites', () => {
    const { validating: refusing, mutating } = admissionParts();
    expect([...refusing, ...mutating].toSorted(byName)).toEqual(all.toSorted(byName));
    expect(mutating.every(({ kind }) => kind.startsWith('Mutating'))).toBe(true);
    expect(refusing.every(({ kind }) => kind.startsWith('Validating'))).toBe(true);
  });

  it('fail closed, except those that only warn', () => {
    for (const { spec, metadata } of policies) {
      const isWarning = bindingOf.get(metadata.name)?.spec.validationActions?.join() === 'Warn';
      expect(spec.failurePolicy).toBe(isWarning ? 'Ignore' : 'Fail');
    }
  });

  it('name every version that they match, so that their types are checked', () => {
    for (const policy of policies) {
      for (const { apiVersions } of rulesOf(policy)) expect(apiVersions).not.toContain('*');
    }
  });

  it('look at the status of workloads by one policy without parameters, and rewrite no scaling', () => {
    const lean = policies.filter(({ metadata }) => !metadata.name.endsWith('-frozen-status'));
    expect(policies.length - lean.length).toBe(1);
    expect(policies.find((policy) => !lean.includes(policy))?.spec.paramKind).toBeUndefined();
    const matched = lean.flatMap((policy) =>
      rulesOf(policy).flatMap((rule) =>
        rule.resources.map((resource) => `${policy.kind} ${resource}`),
      ),
    );
    // Rewriting it would delete volumes; refusing does not. A pod's status carries its labels.
    const isOther =
      / (namespaces|killswitches|clusterkillswitches|workflowrevisions|automationidentities|automationworkflows)\//;
    const ofWorkloads = matched.filter((match) => !isOther.test(match));
    expect(ofWorkloads.filter((match) => /\/(status|scale)$/.test(match))).toEqual([
      'ValidatingAdmissionPolicy statefulsets/scale',
      'ValidatingAdmissionPolicy pods/status',
    ]);
  });
});

describe('a policy of what is written often', () => {
  it('passes over what all of its validations admit, by a condition beside its own', () => {
    const [policy] = validating({
      name: 'often',
      description: 'Refuses.',
      rules: [],
      conditions: { mine: 'params.a' },
      isHot: true,
      validations: [
        { expression: 'object.a || object.b', message: 'a' },
        { expression: 'object.c', message: 'c' },
      ],
    });
    expect(policy?.spec.matchConditions).toEqual([
      { name: 'mine', expression: 'params.a' },
      { name: 'refused', expression: '!((object.a || object.b) && (object.c))' },
    ]);
    expect(policy?.spec.validations).toHaveLength(2);
  });

  it('is each that meets a touch of a workload', () => {
    const meetsTouches = policies.filter(
      (policy) =>
        policy.kind === 'ValidatingAdmissionPolicy' &&
        policy.spec.paramKind?.kind === 'KillSwitch' &&
        rulesOf(policy).some(
          ({ apiGroups, operations, resources }) =>
            /^(apps|batch)$/.test(apiGroups.join()) &&
            operations.includes('UPDATE') &&
            !resources.join().includes('/'),
        ),
    );
    expect(meetsTouches).toHaveLength(12);
    for (const { spec } of meetsTouches) {
      expect(spec.matchConditions?.at(-1)?.name).toMatch(/^(refused|byHand)$/);
    }
  });
});

describe('an answer to the probe', () => {
  it.each([
    ['a denial by the policy', denial(probePolicyName, 'kill switch: it pays twice'), true],
    ['one by another', denial(annotationProbePolicyName, 'kill switch: it pays twice'), false],
    ['parameters not read', denial(probePolicyName, 'failed to configure binding: not yet'), false],
    ['an error in it', denial(probePolicyName, "expression 'x' resulted in error"), false],
    ['RBAC', 'killswitches "invoice" is forbidden: User "x" cannot patch', false],
    ['nothing', '', false],
  ])('is no proof unless it is the denial by its own rule: %s', (_, message, isProof) => {
    expect(isDeniedBy(message, probePolicyName)).toBe(isProof);
  });
});

function denial(policy: string, text: string): string {
  return `killswitches.automationguardrails.dev "invoice" is forbidden: ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: ${text}`;
}
