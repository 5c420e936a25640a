import { expect, it } from 'vitest';
import { PROBE_NAMESPACE } from '../api/names.ts';
import { Reach } from './reach.ts';

const operatorNamespace = 'guardrails';

it('is everything where no list was given', () => {
  const reach = new Reach({ namespaces: undefined, operatorNamespace });
  expect(reach.covers('sales')).toBe(true);
  expect(reach.coversKey('sales/invoice')).toBe(true);
});

it.each([
  ['finance/invoice', true],
  ['sales/invoice', false],
  // A name that begins alike is another one.
  ['finance-2/invoice', false],
  [`${operatorNamespace}/who-engages`, true],
  [`${PROBE_NAMESPACE}/canary`, true],
  // What belongs to the whole cluster.
  ['default', true],
])('is the listed namespaces, its own and the probe: %s %s', (key, isCovered) => {
  const reach = new Reach({ namespaces: ['finance'], operatorNamespace });
  expect(reach.coversKey(key)).toBe(isCovered);
});
