import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Condition } from '../../api/objects.ts';
import { conditionsPage } from '../next-steps.generated.ts';
import { parseConditionsPage } from '../next-steps.ts';
import { explanationsOf } from './explain.ts';

function condition(type: string, status: Condition['status'], reason: string): Condition {
  return { type, status, reason, message: `because ${reason}`, lastTransitionTime: '' };
}

const said = (kind: string, ...conditions: Condition[]): string[] =>
  explanationsOf(kind, { metadata: { name: 'invoice' }, status: { conditions } }).map(
    ({ condition: type, reason }) => `${type} ${reason}`,
  );

describe('what is explained', () => {
  it.each([
    [
      'nothing, where all is well',
      'Workflow',
      [
        condition('Ready', 'True', 'Provisioned'),
        condition('Held', 'False', 'Complete'),
        condition('Stopped', 'False', 'NotEngaged'),
      ],
      [],
    ],
    [
      'a hold, once',
      'Workflow',
      [condition('Ready', 'False', 'OwnerMissing'), condition('Held', 'True', 'OwnerMissing')],
      ['Held OwnerMissing'],
    ],
    [
      'a stop, once',
      'Workflow',
      [
        condition('Ready', 'False', 'KillSwitchEngaged'),
        condition('Held', 'False', 'Complete'),
        condition('Stopped', 'True', 'KillSwitchEngaged'),
      ],
      ['Stopped KillSwitchEngaged'],
    ],
    ['a failure', 'Workflow', [condition('Ready', 'False', 'ApplyFailed')], ['Ready ApplyFailed']],
    [
      'rights that are not known',
      'AutomationIdentity',
      [condition('ExcessPermissions', 'Unknown', 'BindingsNotRead')],
      ['ExcessPermissions BindingsNotRead'],
    ],
    [
      'rungs that are not reached',
      'KillSwitch',
      [
        condition('Fenced', 'True', 'ProbeDenied'),
        condition('PodsGone', 'False', 'PodsTerminating'),
        condition('Contested', 'False', 'NotContested'),
      ],
      ['PodsGone PodsTerminating'],
    ],
    [
      'a release, and no rung of it',
      'KillSwitch',
      [condition('Fenced', 'False', 'Lifted'), condition('Ready', 'False', 'Releasing')],
      ['Ready Releasing'],
    ],
  ])('%s', (_, kind, conditions, expected) => {
    expect(said(kind, ...conditions)).toEqual(expected);
  });

  it('says what to do', () => {
    const [explanation] = explanationsOf('Workflow', {
      metadata: { name: 'invoice' },
      status: { conditions: [condition('Held', 'True', 'NamespaceNotGuarded')] },
    });
    expect(explanation?.action).toBe(
      'kubectl label namespace NAME automationguardrails.dev/environment=prod',
    );
  });

  it('says of what no operator has seen that it is so', () => {
    const [explanation] = explanationsOf('Workflow', { metadata: { name: 'invoice' } });
    expect(explanation?.message).toBe('No operator has worked on it yet.');
  });
});

describe('the steps', () => {
  it('come from the reference page, each row of it', () => {
    const page = readFileSync(
      new URL('../../../docs/reference/conditions.md', import.meta.url),
      'utf8',
    );
    expect(conditionsPage).toEqual(parseConditionsPage(page));
    const rows = page.split('\n').filter((line) => /^\| (True|False|Unknown) \| .*`/.test(line));
    const reasons = rows.flatMap((row) => row.split('|')[2]?.match(/(?<=`)[A-Z]\w+(?=`)/g) ?? []);
    expect(new Set(conditionsPage.reasons.map(({ reason }) => reason))).toEqual(new Set(reasons));
    expect(conditionsPage.reasons.length).toBeGreaterThanOrEqual(reasons.length);
    expect(reasons.length).toBeGreaterThan(60);
  });
});
