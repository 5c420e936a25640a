import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { tiers, type Tier } from '../api/guardrail-policy.ts';
import { markedTokenLength, tokenMarks } from '../api/token-marks.ts';
import { generateValue } from '../guardrails/credentials/generate.ts';
import { foreignCredentialPolicies } from './foreign-credentials.ts';
import { policyName } from './policies.ts';

interface Searches {
  /** Search for a mark as it is, and the pattern that has to match as well. */
  plain: { mark: string; pattern: string };
  encoded: readonly string[];
}

/** What a policy looks for in each value. */
function searchesOf(policy: string, tier: Tier): Searches {
  const found = foreignCredentialPolicies().find(
    ({ kind, metadata }) => !kind.endsWith('Binding') && metadata.name === policyName(policy),
  );
  const { expression = '' } =
    found?.spec.variables?.find(({ name }) => name === `${tier}Token`) ?? {};
  const [, mark = '', pattern = ''] =
    /m\[k\]\.contains\('(\w+)'\) && m\[k\]\.matches\(r'([^']+)'\)/.exec(expression) ?? [];
  const encoded = [...expression.matchAll(/\|\| m\[k\]\.contains\('(\w+)'\)/g)];
  return { plain: { mark, pattern }, encoded: encoded.flatMap(([, form = '']) => form) };
}

const tokenOf = (tier: Tier, length = markedTokenLength): string =>
  generateValue({ name: 'erp', type: 'Token', length }, randomBytes, 'poster-erp', tier)['token'] ??
  '';

describe.each(['foreign-tokens', 'foreign-tokens-by-policy'])('%s', (policy) => {
  const holds = (tier: Tier, text: string): boolean => {
    const { plain, encoded } = searchesOf(policy, tier);
    return (
      (text.includes(plain.mark) && new RegExp(plain.pattern).test(text)) ||
      encoded.some((form) => text.includes(form))
    );
  };

  it.each(tiers)('finds a token of %s as it is and in base64, and no other', (tier) => {
    for (let round = 0; round < 50; round++) {
      for (const token of [tokenOf(tier), tokenOf(tier, 64)]) {
        for (const text of [token, `token: "${token}"\n`, `A=1\\n${token}`]) {
          expect(tiers.filter((one) => holds(one, text))).toEqual([tier]);
          const encoded = Buffer.from(text).toString('base64');
          expect(tiers.filter((one) => holds(one, encoded))).toEqual([tier]);
        }
      }
    }
  });

  it.each(
    tiers.flatMap((tier) => {
      const mark = tokenMarks[tier];
      return [
        [`a rule that redacts tokens`, `Regex (${mark})[0-9A-Za-z_-]{25,} $1***`],
        [`a page that lists marks`, `${Object.values(tokenMarks).join(', ')} begin tokens`],
        [`another word that ends so`, `if [ "$fl${mark}x" = t${mark}1 ]; then`],
        [`an example`, `token: ${mark}…`],
      ] as const;
    }),
  )('takes %s for none: %s', (_, text) => {
    expect(tiers.filter((tier) => holds(tier, text))).toEqual([]);
  });

  it.each(tiers)('fits into what an expression may cost, of %s in the largest object', (tier) => {
    const { plain, encoded } = searchesOf(policy, tier);
    expect(encoded).toHaveLength(3);
    // As CEL counts it: text by tenths, times a search by tenths or a pattern by quarters.
    const text = Math.ceil(1_048_576 / 10);
    const searches = [plain.mark, ...encoded].map(({ length }) => Math.ceil(length / 10));
    const matches = Math.ceil(plain.pattern.length / 4);
    const cost = text * (searches.reduce((sum, one) => sum + one, 0) + matches);
    expect(cost).toBeLessThan(900_000);
  });
});
