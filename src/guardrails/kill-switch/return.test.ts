import { describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../../api/automation-identity.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { annotation, label } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { readKept } from '../identity/kept.ts';
import { awaitedOf, awaitIdentities, handOverKept, restWaitMs } from './return.ts';

const now = Date.parse('2026-05-01T00:10:00Z');
const time = new Date(now).toISOString();

function identity(ready?: string, held = false): AutomationIdentity {
  const status = held ? 'False' : 'True';
  const conditions = [
    ...(ready === undefined
      ? []
      : [
          {
            type: 'Ready',
            status: ready === 'Provisioned' ? ('True' as const) : ('False' as const),
            reason: ready,
            message: 'as it is',
            lastTransitionTime: time,
          },
        ]),
    ...(held
      ? [
          {
            type: 'Held',
            status: 'True' as const,
            reason: 'OwnerMissing',
            message: '',
            lastTransitionTime: time,
          },
        ]
      : []),
  ];
  return {
    metadata: { name: 'poster', namespace: 'billing', uid: `uid-${status}` },
    spec: {},
    status: { conditions },
  };
}

describe('awaitedOf', () => {
  const back = { hasAccount: true, missingSecrets: [] };
  it.each([
    { what: 'all there', of: { identity: identity('Provisioned'), ...back }, waits: undefined },
    {
      what: 'no ServiceAccount, whatever status says',
      of: { identity: identity('Provisioned'), hasAccount: false, missingSecrets: [] },
      waits: 'the ServiceAccount',
    },
    {
      what: 'not looked at since the kill',
      of: { identity: identity('KillSwitchEngaged'), ...back },
      waits: 'permissions and credentials',
    },
    {
      what: 'never looked at',
      of: { identity: identity(), ...back },
      waits: 'permissions and credentials',
    },
    {
      what: 'a credential under way',
      of: { identity: identity('Provisioning'), ...back },
      waits: 'permissions and credentials',
    },
    {
      what: 'a Secret that status doesn’t know of',
      of: { identity: identity('Provisioned'), hasAccount: true, missingSecrets: ['erp'] },
      waits: 'Secret erp',
    },
    { what: 'broken', of: { identity: identity('PermissionsNotGrantable'), ...back } },
    { what: 'held', of: { identity: identity('OwnerMissing', true), ...back } },
  ])('$what', ({ of, waits }) => {
    const awaited = awaitedOf(of, true);
    if (waits === undefined) expect(awaited).toBeUndefined();
    else expect(awaited).toContain(`Waiting for ${waits} of AutomationIdentity poster`);
  });

  it('waits for the ServiceAccount for as long as it takes, for the rest no longer than a while', () => {
    const waiting = identity('KillSwitchEngaged');
    expect(awaitedOf({ identity: waiting, ...back }, false)).toBeUndefined();
    expect(awaitedOf({ identity: waiting, ...back, hasAccount: false }, false)).toBeDefined();
  });

  it('lets a held identity hold up nothing for long', () => {
    const held = { identity: identity('OwnerMissing', true), ...back, hasAccount: false };
    expect(awaitedOf(held, true)).toBeDefined();
    expect(awaitedOf(held, false)).toBeUndefined();
  });

  it('waits for none that is being deleted', () => {
    const going = identity('KillSwitchEngaged');
    going.metadata.deletionTimestamp = time;
    const of = { identity: going, hasAccount: false, missingSecrets: [] };
    expect(awaitedOf(of, true)).toBeUndefined();
  });
});

function killSwitch(name: string, fields: Partial<KillSwitch['metadata']> = {}): KillSwitch {
  return {
    metadata: { name, namespace: 'billing', uid: `uid-of-${name}`, ...fields },
    spec: {
      ...(name === 'namespace' ? { wholeNamespace: true } : { workflow: name }),
      reason: 'x',
    },
  };
}

describe('a release', () => {
  const client = new MemoryClient(() => now);
  const options = { client, now, signal: new AbortController().signal };

  it('waits for no identity that another kill still stops', async () => {
    const stopped = client.put(resources.automationIdentities, identity('KillSwitchEngaged'));
    const ours = killSwitch('poster');
    const others = [killSwitch('namespace')];
    expect(await awaitIdentities(ours, [stopped], [], options)).toHaveLength(1);
    expect(await awaitIdentities(ours, [stopped], others, options)).toEqual([]);
    const releasing = [killSwitch('namespace', { labels: { [label.releasing]: 'true' } })];
    expect(await awaitIdentities(ours, [stopped], releasing, options)).toHaveLength(1);
  });

  it('has patience from the lifting of the fence on', async () => {
    client.put(resources.serviceAccounts, { metadata: { name: 'poster', namespace: 'billing' } });
    const lifted = (ago: number): KillSwitch => ({
      ...killSwitch('poster'),
      status: {
        conditions: [
          {
            type: 'Fenced',
            status: 'False',
            reason: 'Lifted',
            message: '',
            lastTransitionTime: new Date(now - ago).toISOString(),
          },
        ],
      },
    });
    const which = [identity()];
    expect(await awaitIdentities(lifted(restWaitMs - 1), which, [], options)).toHaveLength(1);
    expect(await awaitIdentities(lifted(restWaitMs), which, [], options)).toEqual([]);
  });

  it('hands over what it keeps for ServiceAccounts that stay away', async () => {
    const kept = { poster: { annotations: { a: 'b' } }, other: {} };
    const ours = killSwitch('poster', {
      annotations: { [annotation.restoreServiceAccount]: JSON.stringify(kept) },
    });
    const whole = client.put(resources.killSwitches, killSwitch('namespace'));
    const stranger = client.put(resources.killSwitches, killSwitch('stranger'));
    await handOverKept(ours, [whole, stranger], options);
    const key = { namespace: 'billing', name: 'namespace' };
    expect(readKept(client.find(resources.killSwitches, key)!)).toEqual(kept);
    expect(client.writes).toHaveLength(1);
    await handOverKept(ours, [client.find(resources.killSwitches, key)!], options);
    expect(client.writes).toHaveLength(1);
  });
});
