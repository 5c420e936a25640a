import { describe, expect, it } from 'vitest';
import type { KillSwitch } from '../api/kill-switch.ts';
import { PROBE_NAMESPACE } from '../api/names.ts';
import type { Condition } from '../api/objects.ts';
import { attentionOf, type AttentionSources } from './attention.ts';

const owner = { team: 'finance', contact: 'finance@example.com', escalation: 'pager' };

function condition(
  type: string,
  status: Condition['status'],
  reason: string,
  lastTransitionTime = '2026-01-01T00:00:00Z',
): Condition {
  return { type, status, reason, message: '', lastTransitionTime };
}

function object(conditions: Condition[], namespace = 'finance') {
  return { metadata: { name: 'invoice', namespace }, spec: { owner }, status: { conditions } };
}

function killSwitch(conditions: Condition[]): KillSwitch {
  return {
    metadata: {
      name: 'invoice',
      namespace: 'finance',
      creationTimestamp: '2026-01-01T00:00:10Z',
    },
    spec: { workflow: 'invoice', reason: 'runaway' },
    status: { conditions },
  };
}

const none: AttentionSources = {
  workflows: () => [],
  identities: () => [],
  killSwitches: () => [],
};

const said = (sources: Partial<AttentionSources>): string[] =>
  attentionOf({ ...none, ...sources }).map(
    ({ kind, automation, condition: type, reason, team }) =>
      `${kind} ${automation} ${type} ${reason} ${team}`,
  );

describe('what needs attention', () => {
  it.each([
    [
      'is held',
      [condition('Held', 'True', 'OwnerMissing'), condition('Ready', 'False', 'OwnerMissing')],
      ['Held OwnerMissing'],
    ],
    [
      'is not ready',
      [condition('Held', 'False', 'Complete'), condition('Ready', 'False', 'ApplyFailed')],
      ['Ready ApplyFailed'],
    ],
    ['is well', [condition('Ready', 'True', 'Provisioned')], []],
    [
      'is stopped, which its KillSwitch tells',
      [condition('Ready', 'False', 'KillSwitchEngaged')],
      [],
    ],
    ['has just begun', [condition('Ready', 'False', 'Provisioning')], []],
  ])('a Workflow that %s', (_, conditions, expected) => {
    expect(said({ workflows: () => [object(conditions)] })).toEqual(
      expected.map((text) => `Workflow finance/invoice ${text} finance`),
    );
  });

  it('each hold since it began, but for those that somebody has acknowledged', () => {
    const held = object([
      condition('Held', 'True', 'Incomplete'),
      condition('Ready', 'False', 'Incomplete'),
    ]);
    const acknowledged = { by: 'eve', reason: 'asked', time: '2026-01-01T00:00:00Z' };
    const holds = [
      { reason: 'OwnerMissing', message: '', since: '2025-12-01T00:00:00Z' },
      { reason: 'NotApproved', message: '', since: '2025-11-01T00:00:00Z', acknowledged },
      { reason: 'LimitBreached', message: '', since: '2025-10-01T00:00:00Z' },
    ];
    const found = attentionOf({
      ...none,
      workflows: () => [{ ...held, status: { ...held.status, holds } }],
    });
    expect(found.map(({ reason, since }) => [reason, new Date(since).toISOString()])).toEqual([
      ['LimitBreached', '2025-10-01T00:00:00.000Z'],
      ['OwnerMissing', '2025-12-01T00:00:00.000Z'],
    ]);
    const all = holds.map((hold) => ({ ...hold, acknowledged }));
    expect(
      said({ workflows: () => [{ ...held, status: { ...held.status, holds: all } }] }),
    ).toEqual([]);
  });

  it('an identity that is overdue, and may do too much', () => {
    const identity = object([
      condition('Ready', 'True', 'Provisioned'),
      condition('RotationOverdue', 'True', 'SecretOverdue'),
      condition('ExcessPermissions', 'True', 'GrantedElsewhere'),
    ]);
    expect(said({ identities: () => [identity] })).toEqual([
      'AutomationIdentity finance/invoice RotationOverdue SecretOverdue finance',
      'AutomationIdentity finance/invoice ExcessPermissions GrantedElsewhere finance',
    ]);
  });

  it('a kill that nobody has worked on, by the owner of its Workflow, since it was engaged', () => {
    const found = attentionOf({
      ...none,
      workflows: () => [object([condition('Ready', 'True', 'Provisioned')])],
      killSwitches: () => [killSwitch([])],
    });
    expect(found).toEqual(
      ['Fenced', 'Effective'].map((type) => ({
        kind: 'KillSwitch',
        automation: 'finance/invoice',
        condition: type,
        reason: 'NotYet',
        team: 'finance',
        escalation: 'pager',
        since: Date.parse('2026-01-01T00:00:10Z'),
      })),
    );
  });

  it('a kill that is fenced, contested and not effective', () => {
    const engaged = killSwitch([
      condition('Fenced', 'True', 'ProbeDenied'),
      condition('Contested', 'True', 'PausedAgain'),
      condition('Effective', 'False', 'SomethingRemains'),
      condition('Ready', 'False', 'SomethingRemains'),
    ]);
    expect(said({ killSwitches: () => [engaged] })).toEqual([
      'KillSwitch finance/invoice Contested PausedAgain ',
      'KillSwitch finance/invoice Effective SomethingRemains ',
    ]);
  });

  it('a release, and nothing else of what is released', () => {
    const releasing = killSwitch([
      condition('Fenced', 'False', 'Lifted'),
      condition('Ready', 'False', 'Releasing'),
    ]);
    expect(said({ killSwitches: () => [releasing] })).toEqual([
      'KillSwitch finance/invoice Releasing Releasing ',
    ]);
  });

  it('comes in the order in which it has waited, and never from the standing probe', () => {
    const held = (since: string, namespace: string) =>
      object([condition('Held', 'True', 'OwnerMissing', since)], namespace);
    const found = attentionOf({
      ...none,
      workflows: () => [
        held('2026-01-01T00:00:02Z', 'b'),
        held('2026-01-01T00:00:01Z', 'a'),
        held('2026-01-01T00:00:00Z', PROBE_NAMESPACE),
      ],
    });
    expect(found.map(({ automation }) => automation)).toEqual(['a/invoice', 'b/invoice']);
  });
});
