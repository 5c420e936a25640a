import { expect, it } from 'vitest';
import type { EvidenceSegment } from '../api/evidence-segment.ts';
import type { KubeClient } from '../runtime/client.ts';
import { segmentsOf } from './evidence-log.ts';

function segment(index: number, sealed: boolean): EvidenceSegment {
  const spec = { chain: 'invoice', index, sealed };
  return { metadata: { name: `invoice-${index}` }, spec } as EvidenceSegment;
}

it('a look between a seal and the next segment is taken again', async () => {
  const looks = [[segment(0, true)], [segment(0, true)], [segment(0, true), segment(1, false)]];
  let taken = 0;
  const client = {
    list: () => Promise.resolve(looks[taken++] ?? []),
  } as unknown as KubeClient;
  const chains = await segmentsOf({ client, namespace: 'finance' }, 'invoice');
  expect(chains.get('invoice')?.map(({ spec }) => spec.index)).toEqual([0, 1]);
  expect(taken).toBe(3);
});
