import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { label } from '../../api/names.ts';
import type { Pod } from '../../api/objects.ts';
import type { EgressProbe } from '../../api/workflow.ts';
import {
  enforcedFinding,
  latestOf,
  probePod,
  probeScript,
  probeValidMs,
  resultOf,
  validForMs,
} from './probe.ts';

const now = Date.UTC(2030, 0, 8);
const time = '2030-01-07T00:00:00Z';

describe('the script of the pod', () => {
  let folder: string;
  let server: Server;
  let open: string;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'automation-guardrails-probe-'));
    server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    const address = server.address();
    open = `127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
  });

  afterAll(async () => {
    server.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function wordsOf(env: Record<string, string>): Promise<string> {
    const log = path.join(folder, 'termination-log');
    const child = spawn(process.execPath, ['-e', probeScript], {
      env: { WAIT: '0', LOG: log, ...env },
      stdio: 'inherit',
    });
    await new Promise((resolve) => {
      child.once('exit', resolve);
    });
    return await readFile(log, 'utf8');
  }

  // A port of loopback on which nobody listens answers, and so was reached.
  it.each([
    { denied: 'nowhere.invalid:443', allowed: 'open', words: 'denied=failed allowed=reached' },
    { denied: 'open', allowed: 'open', words: 'denied=reached allowed=reached' },
    {
      denied: '127.0.0.1:1',
      allowed: 'nowhere.invalid:53',
      words: 'denied=reached allowed=failed',
    },
    { denied: '[::ffff:127.0.0.1]:1', allowed: 'open', words: 'denied=reached allowed=reached' },
  ])('says $words of $denied and $allowed', async ({ denied, allowed, words }) => {
    const at = (name: string): string => (name === 'open' ? open : name);
    expect(await wordsOf({ DENIED: at(denied), ALLOWED: at(allowed) })).toBe(words);
  });

  it('tries the API server by default', async () => {
    const [host = '', port = ''] = open.split(':');
    const words = await wordsOf({
      KUBERNETES_SERVICE_HOST: host,
      KUBERNETES_SERVICE_PORT: port,
      ALLOWED: open,
    });
    expect(words).toBe('denied=reached allowed=reached');
  });
});

function ended(message: string | undefined, finishedAt = time): Pod {
  const pod = probePod({ name: 'poster', namespace: 'billing', podName: 'p', image: 'node' });
  const terminated = {
    ...(message !== undefined && { message }),
    finishedAt,
  };
  const status = { phase: 'Succeeded', containerStatuses: [{ state: { terminated } }] };
  return { ...pod, status };
}

describe('the result of a pod', () => {
  it.each<[message: string | undefined, denied: string, allowed: string]>([
    ['denied=failed allowed=reached', 'Failed', 'Reached'],
    ['denied=reached allowed=failed', 'Reached', 'Failed'],
    ['denied=failed allowed=reached ', 'Unknown', 'Unknown'],
    ['', 'Unknown', 'Unknown'],
    [undefined, 'Unknown', 'Unknown'],
  ])('of the last words %j', (message, denied, allowed) => {
    expect(resultOf(ended(message))).toEqual({ time, denied, allowed });
  });

  it('is there when it has ended, and of no other pod', () => {
    const pod = probePod({ name: 'poster', namespace: 'billing', podName: 'p', image: 'node' });
    expect(resultOf(pod)).toBeUndefined();
    expect(resultOf(ended('denied=failed allowed=reached', 'x'))).toBeUndefined();
    const other = ended('denied=failed allowed=reached');
    const labels = { [label.identity]: 'poster' };
    expect(resultOf({ ...other, metadata: { ...other.metadata, labels } })).toBeUndefined();
  });

  it('is that of the last one', () => {
    const at = (when: string): EgressProbe => ({ time: when, denied: 'Failed', allowed: 'Failed' });
    const [old, known, latest] = ['2029-01-01', '2030-01-01', '2030-01-02'].map((day) =>
      at(`${day}T00:00:00Z`),
    );
    if (old === undefined || latest === undefined) throw new Error('no results');
    expect(latestOf(known, [{ egressProbe: old }, {}])).toBe(known);
    expect(latestOf(known, [{ egressProbe: latest }])).toBe(latest);
    expect(latestOf(undefined, [{}])).toBeUndefined();
  });
});

describe('EgressEnforced', () => {
  it.each<[denied: EgressProbe['denied'], allowed: EgressProbe['allowed'], says: string]>([
    ['Failed', 'Reached', 'True Enforced'],
    ['Reached', 'Reached', 'False NotEnforced'],
    ['Reached', 'Failed', 'False NotEnforced'],
    ['Failed', 'Failed', 'Unknown ProbeInconclusive'],
    ['Unknown', 'Unknown', 'Unknown ProbeInconclusive'],
  ])('where what is denied was %s and what is allowed %s: %3$s', (denied, allowed, says) => {
    const { status, reason } = enforcedFinding('poster', { time, denied, allowed }, now);
    expect(`${status} ${reason}`).toBe(says);
  });

  it('is unknown before anybody has tried, and when that is long ago', () => {
    const probe: EgressProbe = { time, denied: 'Failed', allowed: 'Reached' };
    const end = Date.parse(time) + probeValidMs;
    expect(enforcedFinding('poster', undefined, now)).toMatchObject({ reason: 'NotProbed' });
    expect(enforcedFinding('poster', probe, end - 1).status).toBe('True');
    expect(enforcedFinding('poster', probe, end)).toMatchObject({
      status: 'Unknown',
      reason: 'NotProbed',
      message: expect.stringContaining(`since ${time}`),
    });
    expect(validForMs(probe, end - 5)).toBe(5);
  });
});
