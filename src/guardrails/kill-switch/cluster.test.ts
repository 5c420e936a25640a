import { describe, expect, it } from 'vitest';
import {
  maxFenced,
  type ClusterKillSwitch,
  type ClusterKillSwitchSpec,
} from '../../api/cluster-kill-switch.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { annotation, label, PROBE_NAMESPACE } from '../../api/names.ts';
import type { Namespace } from '../../api/objects.ts';
import type { Workflow } from '../../api/workflow.ts';
import {
  isSelected,
  memberOf,
  partingOf,
  releaseOf,
  selectedBy,
  selectsWorkflow,
  stopReport,
  stopReportByWorkflow,
  takeOver,
  withUncovered,
} from './cluster.ts';
import { fencedWorkflows, type FencedWorkflows } from './cluster-fence.ts';
import type { FenceAnswer } from './fence.ts';
import { isLeaving, isReleaseAsked } from './plan.ts';

const operatorNamespace = 'guardrails-system';

function cluster(spec: Partial<ClusterKillSwitchSpec>, annotations = {}, labels = {}) {
  return {
    metadata: { name: 'prod', annotations, labels },
    spec: { reason: 'leaked', engagedBy: 'alice', ...spec },
  } satisfies ClusterKillSwitch;
}

function namespace(name: string, labels: Record<string, string> = {}): Namespace {
  return { metadata: { name, labels } };
}

const guarded = (name: string, environment = 'prod', more = {}): Namespace =>
  namespace(name, { [label.environment]: environment, ...more });

const standing = (name: string, types: string[], labels = {}): KillSwitch => ({
  metadata: { name: 'namespace', namespace: name, uid: `uid-${name}`, labels },
  spec: { wholeNamespace: true, reason: 'leaked' },
  status: {
    conditions: types.map((type) => ({
      type,
      status: 'True',
      reason: 'Whatever',
      message: '',
      lastTransitionTime: '2026-01-01T00:00:00Z',
    })),
  },
});

describe('which namespaces are stopped', () => {
  it.each<[string, Partial<ClusterKillSwitchSpec>, Namespace, boolean]>([
    ['one of the environment', { environments: ['prod'] }, guarded('a'), true],
    ['one of another environment', { environments: ['prod'] }, guarded('a', 'test'), false],
    [
      'one with the labels',
      { namespaceSelector: { matchLabels: { team: 'x' } } },
      guarded('a', 'test', { team: 'x' }),
      true,
    ],
    [
      'one with another label',
      { namespaceSelector: { matchLabels: { team: 'x' } } },
      guarded('a', 'test', { team: 'y' }),
      false,
    ],
    [
      'one without the label',
      { namespaceSelector: { matchLabels: { team: '' } } },
      guarded('a'),
      false,
    ],
    ['any guarded one, of everything', { everything: true }, guarded('a', 'x'), true],
    ['one that is not guarded', { everything: true }, namespace('a'), false],
    ['kube-system', { everything: true }, guarded('kube-system'), false],
    ["the operator's own", { everything: true }, guarded(operatorNamespace), false],
    ["the standing probe's", { everything: true }, guarded(PROBE_NAMESPACE), false],
  ])('%s', (_, spec, of, expected) => {
    expect(isSelected(cluster(spec), of, operatorNamespace)).toBe(expected);
  });
});

describe('how far it is', () => {
  const view = (killSwitches: Record<string, KillSwitch>) =>
    selectedBy({
      clusterKillSwitch: cluster({ everything: true }),
      others: [],
      namespaces: [guarded('b'), guarded('a'), guarded('c')],
      workflows: [],
      killSwitchOf: (name) => killSwitches[name],
      operatorNamespace,
    });
  const statusOf = (report: ReturnType<typeof stopReport>): Record<string, string> =>
    Object.fromEntries(report.findings.map(({ type, status }) => [type, status]));

  it('is complete when every namespace is, and the fence is proven', () => {
    const all = Object.fromEntries(
      ['a', 'b', 'c'].map((name) => [name, standing(name, ['Ready', 'Effective'])]),
    );
    const report = stopReport('Denied', view(all));
    expect(statusOf(report)).toEqual({ Fenced: 'True', Effective: 'True', Ready: 'True' });
    expect(report.counts).toEqual({ namespaces: { total: 3, stopped: 3, effective: 3 } });
    expect(statusOf(stopReport('Unknown', view(all)))).toEqual({
      Fenced: 'Unknown',
      Effective: 'False',
      Ready: 'False',
    });
  });

  it('names what is missing, a release in a namespace included', () => {
    const report = stopReport(
      'Denied',
      view({
        a: standing('a', ['Ready']),
        b: standing('b', ['Ready', 'Effective'], { [label.releasing]: 'true' }),
      }),
    );
    expect(report.counts).toEqual({
      namespaces: { total: 3, stopped: 1, effective: 0 },
      waiting: ['b', 'c'],
    });
    expect(report.findings.find(({ type }) => type === 'Ready')?.message).toBe(
      'Not stopped yet in 2 of 3 namespaces: b, c.',
    );
  });
});

describe('its release', () => {
  it.each([
    ['nobody asked', {}, {}, false],
    [
      'somebody else asked',
      { [annotation.release]: 'x', [annotation.releasedBy]: 'bob' },
      {},
      true,
    ],
    [
      'who engaged asked',
      { [annotation.release]: 'x', [annotation.releasedBy]: 'alice' },
      {},
      false,
    ],
    ['nobody is stamped', { [annotation.release]: 'x' }, {}, false],
    [
      'the glass is broken',
      { [annotation.release]: 'x', [annotation.releasedBy]: 'alice', [annotation.breakGlass]: 'x' },
      {},
      true,
    ],
    ['it is under way', {}, { [label.releasing]: 'true' }, true],
  ])('%s', (_, annotations, labels, expected) => {
    expect(isReleaseAsked(cluster({ everything: true }, annotations, labels))).toBe(expected);
  });

  it('passes on who released, and why', () => {
    const asked = cluster(
      { everything: true },
      { [annotation.release]: 'replaced', [annotation.releasedBy]: 'bob' },
    );
    expect(releaseOf(asked, standing('a', []))).toEqual({
      metadata: {
        uid: 'uid-a',
        labels: { [label.releasing]: 'true' },
        annotations: { [annotation.release]: 'replaced', [annotation.releasedBy]: 'bob' },
      },
    });
  });

  it('of a namespace is taken back where a ClusterKillSwitch stops it again', () => {
    const asked = standing('a', []);
    asked.metadata.annotations = { [annotation.release]: 'x' };
    expect([standing('a', []), asked].map(isLeaving)).toEqual([false, true]);
    expect(isLeaving(standing('a', [], { [label.releasing]: 'true' }))).toBe(true);
    expect(takeOver(cluster({ everything: true }), asked)).toMatchObject({
      metadata: {
        uid: 'uid-a',
        labels: { [label.releasing]: null, [label.clusterKillSwitch]: 'prod' },
        annotations: { [annotation.release]: null, [annotation.releasedBy]: null },
      },
    });
  });

  it('hands over what another one stops, unless that is being released, too', () => {
    const member = { ...memberOf(cluster({ everything: true }), 'a', 'namespace') };
    const other = cluster({ environments: ['prod'] });
    const going = cluster({ environments: ['prod'] }, {}, { [label.releasing]: 'true' });
    const at = guarded('a');
    expect(partingOf(member, at, undefined, { others: [other], operatorNamespace })).toEqual({
      to: other,
    });
    expect(partingOf(member, at, undefined, { others: [going], operatorNamespace })).toEqual({
      to: 'Release',
    });
    expect(partingOf(member, undefined, undefined, { others: [other], operatorNamespace })).toEqual(
      {
        to: 'Release',
      },
    );
    expect(
      partingOf(standing('a', [], { [label.releasing]: 'true' }), at, undefined, {
        others: [],
        operatorNamespace,
      }),
    ).toEqual({ to: 'Wait' });
  });
});

describe('Workflows that are stopped by owner or risk', () => {
  const workflow = (namespaceName: string, name: string, spec: object): Workflow => ({
    metadata: { namespace: namespaceName, name },
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as it may be stored
    spec: spec as Workflow['spec'],
  });
  const payments = { owner: { team: 'payments' } };

  it.each<[string, Partial<ClusterKillSwitchSpec>, object, boolean]>([
    ['of the team', { teams: ['payments'] }, payments, true],
    ['of another team', { teams: ['sales'] }, payments, false],
    ['of no team', { teams: ['payments'] }, {}, false],
    ['of the risk', { risks: ['High', 'Medium'] }, { risk: 'Medium' }, true],
    ['of another risk', { risks: ['High'] }, { risk: 'Medium' }, false],
    ['of the lowest, where none is given', { risks: ['Low'] }, {}, true],
    ['of the highest, where it can not be read', { risks: ['High'] }, { risk: 7 }, true],
    ['that no namespace selects', { environments: ['prod'] }, payments, false],
  ])('%s', (_, spec, stored, expected) => {
    const of = workflow('a', 'poster', stored);
    const by = cluster(spec);
    expect(selectsWorkflow(by, of, guarded('a'), operatorNamespace)).toBe(expected);
    expect(selectsWorkflow(by, of, namespace('a'), operatorNamespace)).toBe(false);
    expect(selectsWorkflow(by, of, undefined, operatorNamespace)).toBe(false);
    for (const never of [operatorNamespace, PROBE_NAMESPACE, 'kube-system']) {
      expect(selectsWorkflow(by, of, guarded(never), operatorNamespace)).toBe(false);
    }
  });

  const by = cluster({ teams: ['payments'] });
  const member = (at: string, name: string, types: string[]): KillSwitch => ({
    ...standing(at, types),
    ...memberOf(by, at, name),
  });
  const selected = (killSwitches: Record<string, KillSwitch>) =>
    selectedBy({
      clusterKillSwitch: by,
      others: [],
      namespaces: [guarded('b'), guarded('a')],
      workflows: [
        workflow('b', 'poster', payments),
        workflow('a', 'poster', payments),
        workflow('a', 'other', { owner: { team: 'sales' } }),
      ],
      killSwitchOf: (at, name) => killSwitches[`${at}/${name}`],
      operatorNamespace,
    });

  it('are fenced each by its own KillSwitch, and the report is true only of all', () => {
    const types = ['Fenced', 'Ready', 'Effective'];
    const all = {
      'a/poster': member('a', 'poster', types),
      'b/poster': member('b', 'poster', types),
    };
    expect(all['a/poster'].spec).toEqual({
      workflow: 'poster',
      reason: 'leaked',
      engagedBy: 'alice',
    });
    const done = stopReportByWorkflow('Allowed', {}, selected(all));
    expect(done.findings.map(({ type, status }) => `${type} ${status}`)).toEqual([
      'Fenced True',
      'Effective True',
      'Ready True',
    ]);
    expect(done.counts).toEqual({ workflows: { total: 2, stopped: 2, effective: 2 }, fenced: {} });
    const begun = stopReportByWorkflow('Allowed', {}, selected({ 'a/poster': all['a/poster'] }));
    expect(begun.findings[0]).toMatchObject({ status: 'False', reason: 'NotEachFenced' });
    expect(begun.findings[0]?.message).toContain('1 of 2 Workflows: b/poster');
    expect(begun.counts.waiting).toEqual(['b/poster']);
  });

  it('are fenced by the one status, as far as it lists them and the API server goes by it', () => {
    const none = selected({});
    const fenced = fencedWorkflows(undefined, none, []);
    expect(fenced).toEqual({ a: ['poster'], b: ['poster'] });
    const reasonBy = (
      ...answer: [FenceAnswer, FencedWorkflows | undefined]
    ): string | undefined => {
      const { findings, counts } = stopReportByWorkflow(...answer, none);
      expect(counts.fenced).toEqual(answer[1]);
      return findings[0]?.reason;
    };
    expect(reasonBy('Denied', fenced)).toBe('EachFenced');
    expect(reasonBy('Allowed', fenced)).toBe('NotEachFenced');
    expect(reasonBy('Unknown', fenced)).toBe('NotEachFenced');
    expect(reasonBy('Denied', { a: ['poster'] })).toBe('NotEachFenced');
    expect(reasonBy('Denied', undefined)).toBe('NotEachFenced');
  });

  it('are in the list with those whose KillSwitch is one of it, up to a bound', () => {
    const given = member('c', 'clerk', []);
    expect(fencedWorkflows({}, selected({}), [given, standing('d', [])])).toEqual({
      a: ['poster'],
      b: ['poster'],
      c: ['clerk'],
    });
    const many = Array.from({ length: maxFenced + 5 }, (_, n) => ({
      namespace: 'a',
      name: `w${n}`,
    }));
    expect(fencedWorkflows({}, many, [given])['a']).toHaveLength(maxFenced);
    expect(stopReportByWorkflow('Denied', {}, []).findings[0]?.reason).toBe('NothingSelected');
  });

  it('leave the list by nothing that who is stopped does, nor by others that come before them', () => {
    const before = { a: ['other'], z: ['last'] };
    expect(fencedWorkflows(before, [], [])).toEqual(before);
    expect(fencedWorkflows(before, selected({}), [])).toEqual({
      a: ['other', 'poster'],
      b: ['poster'],
      z: ['last'],
    });
    const many = Array.from({ length: maxFenced }, (_, n) => ({ namespace: 'a', name: `w${n}` }));
    const full = fencedWorkflows(before, many, []);
    expect(full['z']).toEqual(['last']);
    expect(full['a']).toContain('other');
    expect(full['a']).toHaveLength(maxFenced - 1);
    expect(fencedWorkflows(full, selected({}), [])).toEqual(full);
  });

  it('are stopped though they were given to another team since they were listed', () => {
    const given = workflow('a', 'poster', { owner: { team: 'sales' } });
    const stopped = { ...by, status: { fenced: { a: ['poster'] } } };
    expect(selectsWorkflow(stopped, given, guarded('a'), operatorNamespace)).toBe(true);
    expect(selectsWorkflow(by, given, guarded('a'), operatorNamespace)).toBe(false);
    expect(selectsWorkflow(stopped, given, namespace('a'), operatorNamespace)).toBe(false);
    const away = workflow('b', 'poster', { owner: { team: 'sales' } });
    expect(selectsWorkflow(stopped, away, guarded('b'), operatorNamespace)).toBe(false);
    const [finding] = stopReportByWorkflow('Denied', { a: ['poster'] }, []).findings;
    expect(finding?.reason).toBe('NothingSelected');
    expect(finding?.message).toContain('is refused until the release');
  });

  it('that are none are no kill: the name may be mistyped', () => {
    const { findings, counts } = stopReportByWorkflow('Denied', {}, []);
    expect(findings.map(({ type, status, reason }) => `${type} ${status} ${reason}`)).toEqual([
      'Fenced False NothingSelected',
      'Effective False NothingSelected',
      'Ready False NothingSelected',
    ]);
    expect(counts).toEqual({ workflows: { total: 0, stopped: 0, effective: 0 }, fenced: {} });
  });

  it('are handed over to another one that stops them, and to none that stops a namespace', () => {
    const one = member('a', 'poster', []);
    const of = workflow('a', 'poster', { ...payments, risk: 'High' });
    const byRisk = cluster({ risks: ['High'] });
    const at = guarded('a');
    expect(partingOf(one, at, of, { others: [byRisk], operatorNamespace })).toEqual({ to: byRisk });
    const whole = cluster({ everything: true });
    expect(partingOf(one, at, of, { others: [whole], operatorNamespace })).toEqual({
      to: 'Release',
    });
    expect(partingOf(one, at, undefined, { others: [byRisk], operatorNamespace })).toEqual({
      to: 'Release',
    });
  });
});

describe('where the operator does not act', () => {
  const selected = [{ namespace: 'sales', name: 'namespace', killSwitch: undefined }];
  const report = stopReport('Denied', selected);

  it('is said wherever something is not reached, and nowhere else', () => {
    const messages = (of: typeof report): string[] =>
      of.findings.map(({ type, message }) => `${type} ${String(message.includes('--namespaces'))}`);
    expect(messages(withUncovered(report, ['sales']))).toEqual([
      'Fenced false',
      'Effective true',
      'Ready true',
    ]);
    expect(withUncovered(report, [])).toBe(report);
  });
});
