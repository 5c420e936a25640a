/**
 * `npm run bench`: figures of the kill switch and of memory, each beside what it is compared with,
 * measured in one run. `--json` prints one JSON line a figure.
 */
import { parseArgs } from 'node:util';
import { benchEgress } from './egress.ts';
import { benchEvidence } from './evidence.ts';
import { benchFence } from './fence.ts';
import { benchDefaultLimits, benchKill } from './kill.ts';
import { benchLane } from './lane.ts';
import { benchMemory } from './memory.ts';
import { reportTo } from './report.ts';
import { benchRestart } from './restart.ts';
import { benchRevoke } from './revoke.ts';
import { benchRotation } from './rotation.ts';
import { benchTouch } from './touch.ts';

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    /** Sections, separated by commas. */
    only: { type: 'string', default: 'kill,lane,fence,restart,memory' },
    rounds: { type: 'string', default: '3' },
    sizes: { type: 'string', default: '1,100,1000' },
    workflows: { type: 'string', default: '5000' },
    restarts: { type: 'string', default: '5' },
    revocations: { type: 'string', default: '100' },
    identities: { type: 'string', default: '2000' },
  },
});
const report = reportTo(values.json);
const rounds = Number(values.rounds);
const sizes = values.sizes.split(',').map(Number);
const workflows = Number(values.workflows);

const sections: Record<string, () => Promise<unknown>> = {
  kill: () => benchKill(report, { sizes, rounds }),
  /** Takes minutes for itself: only by name. */
  limits: () => benchDefaultLimits(report, Math.max(...sizes)),
  touch: () => benchTouch(report, { workloads: Math.min(1000, Math.max(...sizes)), rounds }),
  lane: () => benchLane(report, { workflows, rounds }),
  fence: () => benchFence(report, { workflows, rounds: 5 * rounds }),
  evidence: () => benchEvidence(report, { size: Math.min(1000, Math.max(...sizes)), rounds }),
  restart: () => benchRestart(report, Number(values.restarts)),
  /** Waits for the API server's memory of each token: only by name. */
  revoke: () => benchRevoke(report, Number(values.revocations)),
  /** Takes minutes: only by name. */
  rotation: () => benchRotation(report, Number(values.identities)),
  /** Takes minutes: only by name. */
  egress: () => benchEgress(report, Math.min(1000, workflows)),
  memory: () => benchMemory(report, Math.min(1000, workflows)),
};

for (const name of values.only.split(',')) {
  const section = sections[name];
  if (section === undefined) {
    throw new Error(`--only=${name}: there are ${Object.keys(sections).join(', ')}`);
  }
  await section();
}
