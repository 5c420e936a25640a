import { expect, it } from 'vitest';
import { benchEgress, oneIn } from '../bench/egress.ts';
import { reportTo } from '../bench/report.ts';

/** As many as CI has time for; `npm run bench -- --only=egress` takes more. */
const count = 250;

it('many Workflows write nothing at rest, and of a change only what depends on it', async () => {
  expect(await benchEgress(reportTo(false), count)).toEqual({
    policies: count,
    ofTheApiServer: count / oneIn,
    workflows: 0,
    ofTheDns: count,
  });
}, 900_000);
