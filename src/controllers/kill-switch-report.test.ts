import { beforeEach, describe, expect, it } from 'vitest';
import type { Finding } from '../api/conditions.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { annotation } from '../api/names.ts';
import type { Pod } from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { silentLogger } from '../observability/logger.ts';
import { StatusWriter } from '../runtime/status-writer.ts';
import { KillSwitchReport } from './kill-switch-report.ts';

const log = { ...silentLogger(), info: (message: string) => logged.push(message) };
const key = { namespace: 'finance', name: 'invoice' };
const engagedAt = Date.parse('2026-05-01T00:00:00Z');

let now: number;
let client: MemoryClient;
let report: KillSwitchReport;
let told: string[];
let logged: string[];

beforeEach(() => {
  now = engagedAt;
  told = [];
  logged = [];
  client = new MemoryClient(() => now);
  client.put(resources.killSwitches, {
    metadata: { ...key, uid: 'uid-1' },
    spec: { workflow: 'invoice', reason: 'runaway' },
  });
  report = new KillSwitchReport({
    statusWriter: new StatusWriter({ client }),
    events: {
      normal: ({ kind }, reason, message) => told.push(`${kind} ${reason}: ${message}`),
      warning: ({ kind }, reason, message) => told.push(`! ${kind} ${reason}: ${message}`),
    },
    metrics: {
      observeStop: (rung, seconds) => told.push(`${rung} after ${seconds} s`),
      countBreakGlass: () => told.push('break-glass'),
    },
    clock: () => now,
  });
});

function killSwitch(annotations: Record<string, string> = {}): KillSwitch {
  const found = client.find(resources.killSwitches, key);
  if (found === undefined) throw new Error('no KillSwitch');
  return { ...found, metadata: { ...found.metadata, annotations } };
}

const finding = (type: string, status: Finding['status'], reason = 'X'): Finding => ({
  type,
  status,
  reason,
  message: 'why',
});

describe('the progress of a kill', () => {
  it('is told once, with the time that each rung took', async () => {
    now += 2_500;
    const findings = [finding('Fenced', 'True'), finding('Paused', 'False')];
    await report.progress(killSwitch(), findings, {}, log);
    await report.progress(killSwitch(), findings, {}, log);
    expect(told).toEqual(['KillSwitch Fenced: why', 'Fenced after 2.5 s']);
    expect(logged).toHaveLength(findings.length);
    expect(client.writes).toHaveLength(1);
  });

  it('says that the fence was lost, and not that it never stood', async () => {
    const open = [finding('Fenced', 'False', 'ProbeAllowed')];
    await report.progress(killSwitch(), open, {}, log);
    expect(told).toEqual([]);
    await report.progress(killSwitch(), [finding('Fenced', 'True')], {}, log);
    told = [];
    await report.progress(killSwitch(), open, {}, log);
    expect(told).toEqual(['! KillSwitch FenceLost: why']);
  });

  it('counts no rung that is reached again because something wakes what is paused', async () => {
    const findings = [finding('Contested', 'True'), finding('Paused', 'True')];
    await report.progress(killSwitch(), findings, {}, log);
    expect(told).toEqual(['! KillSwitch Contested: why', 'KillSwitch Paused: why']);
  });

  it('is told by nobody who could not write it down', async () => {
    const stale = killSwitch();
    client.put(resources.killSwitches, { ...stale, metadata: { ...stale.metadata, labels: {} } });
    const findings = [finding('Fenced', 'True')];
    await expect(report.progress(stale, findings, {}, log)).rejects.toThrow('Conflict');
    client.remove(resources.killSwitches, key);
    await report.progress(stale, findings, {}, log);
    expect(told).toEqual([]);
  });
});

describe('what does not come back', () => {
  it('are the pods that nothing creates again, as far as they went by this kill', () => {
    const pod = (name: string, metadata: Partial<Pod['metadata']> = {}): Pod => ({
      metadata: { name, ...metadata },
    });
    const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'r', uid: 'r' };
    report.podsDeleted(killSwitch(), [
      { item: pod('bare'), result: undefined },
      {
        item: pod('owned', { ownerReferences: [{ ...owner, controller: true }] }),
        result: undefined,
      },
      { item: pod('going', { deletionTimestamp: '2026-05-01T00:00:00Z' }), result: undefined },
      { item: pod('failed'), error: new Error('busy') },
    ]);
    expect(told).toEqual([
      '! KillSwitch NotRestored: Deleted, and nothing creates them again: Pod bare.',
    ]);
  });

  it('is told at the release, with who broke the glass', () => {
    const workflow = { metadata: { name: 'invoice', namespace: 'finance' } };
    report.released(
      killSwitch({
        [annotation.release]: 'fixed',
        [annotation.releasedBy]: 'bob',
        [annotation.breakGlass]: 'nobody else is awake',
      }),
      {
        carriers: [subjectOf(resources.workflows, workflow)],
        notRestored: [{ name: 'Deployment a', why: 'it changed' }],
        held: [
          {
            name: 'AutomationIdentity invoice',
            lacks: 'RoleBinding',
            reason: 'OwnerMissing',
            message: 'Missing spec.owner.team.',
          },
        ],
        workloads: [],
        log,
      },
    );
    expect(told).toEqual([
      'break-glass',
      '! KillSwitch BreakGlass: bob broke the glass: nobody else is awake',
      '! KillSwitch NotRestored: Deployment a was not put back: it changed.',
      '! KillSwitch NotRestored: Held, and so not put back before the hold ends: RoleBinding of AutomationIdentity invoice (OwnerMissing).',
      'Workflow KillSwitchReleased: Released by bob: fixed',
    ]);
  });
});
