import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { anyCredential, credentialFormats } from './credential-formats.ts';
import type { PodTemplate } from './objects.ts';
import { secretHintsOf } from './secret-hints.ts';

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const upper = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** Made here, so that no scanner of repositories finds one. */
const examples = [
  ['an AWS access key', `AKIA${upper.slice(5, 21)}`],
  ['a GitHub token', `ghp_${letters.slice(0, 36)}`],
  ['a GitHub token', `github_pat_${letters.slice(0, 40)}`],
  ['a GitLab token', `glpat-${letters.slice(0, 20)}`],
  ['a Slack token', `xoxb-${letters.slice(0, 24)}`],
  ['a Google API key', `AIza${letters.slice(0, 35)}`],
  ['a Stripe key', `sk_live_${letters.slice(0, 24)}`],
  ['an npm token', `npm_${letters.slice(0, 36)}`],
  ['a key of an AI service', `sk-ant-${letters.slice(0, 40)}`],
  ['a SendGrid key', `SG.${letters.slice(0, 22)}.${letters.slice(0, 43)}`],
  ['a private key', ['-----BEGIN RSA PRIVATE', `KEY-----\n${letters}`].join(' ')],
  [
    'a JSON Web Token',
    `eyJ${letters.slice(0, 20)}.eyJ${letters.slice(0, 30)}.${letters.slice(0, 40)}`,
  ],
  ['a token of an AutomationIdentity', `agprod_${letters.slice(0, 25)}`],
] as const;

const withEnv = (name: string, value: string): PodTemplate => ({
  spec: { containers: [{ name: 'main', env: [{ name, value }] }] },
});
const withArgs = (...args: string[]): PodTemplate => ({
  spec: { initContainers: [{ name: 'main', args }] },
});

describe('what looks like a credential', () => {
  it.each(examples)('is %s, whatever it is called and wherever it stands', (format, value) => {
    const looksLike = format;
    expect(secretHintsOf(withEnv('GREETING', `x ${value}`))).toEqual([
      { place: 'container main, env GREETING', looksLike },
    ]);
    expect(secretHintsOf(withArgs('run', `--with=${value}`))).toEqual([
      { place: 'container main, args[1]', looksLike },
    ]);
    expect(secretHintsOf({ metadata: { annotations: { note: value } } })).toEqual([
      { place: 'annotation note of the pod template', looksLike },
    ]);
    expect(value).toMatch(new RegExp(anyCredential));
  });

  it('has an example of each format', () => {
    expect(new Set(examples.map(([format]) => format))).toEqual(
      new Set(credentialFormats.map(({ name }) => name)),
    );
  });

  it.each([
    ['DB_PASSWORD', 'Tr0ub4dor&3xY!'],
    ['API_KEY', '9f86d081884c7d659a2feaa0c55ad015'],
    ['clientSecret', 'q8~Lw2pXz0Rk5VtY7bNm'],
    ['DATABASE_URL', 'postgres://app:s3cr3t-enough@db:5432/app'],
  ])('is under a telling name: %s', (name, value) => {
    expect(secretHintsOf(withEnv(name, value))).toHaveLength(1);
  });

  it.each([
    [['--db-password=Tr0ub4dor&3xY!']],
    [['--api-key', '9f86d081884c7d659a2feaa0c55ad015']],
  ])('is an argument: %j', (args) => {
    expect(secretHintsOf(withArgs(...args))).toHaveLength(1);
  });

  it.each([
    ['PASSWORD_FILE', '/run/secrets/Tr0ub4dor3xY'],
    ['PASSWORD', '/run/secrets/Tr0ub4dor3xY'],
    ['DB_PASSWORD', '$(DB_PASSWORD_1)'],
    ['DATABASE_URL', 'postgres://app:$(DB_PASSWORD)@db:5432/app'],
    ['DATABASE_URL', 'postgres://db:5432/app'],
    ['TOKEN_SECRET', 'invoice-posting-db-credentials-v2'],
    ['TOKEN_TTL_SECONDS', '86400'],
    ['AUTH_TOKEN', 'changeme'],
    ['API_KEY', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1'],
    ['IMAGE', 'registry.example.com/a@sha256:9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2f'],
    ['GREETING', 'Tr0ub4dor&3xY!'],
    ['MONKEY', 'q8~Lw2pXz0Rk5VtY7bNm'],
  ])('is not %s=%s', (name, value) => {
    expect(secretHintsOf(withEnv(name, value))).toEqual([]);
  });

  it('is not a reference', () => {
    const valueFrom = { secretKeyRef: { name: 'db', key: 'current.password' } };
    const env = [{ name: 'DB_PASSWORD', valueFrom }];
    expect(secretHintsOf({ spec: { containers: [{ name: 'main', env }] } })).toEqual([]);
  });
});

it('hints are bounded, few, and never contain six characters of what they are about', () => {
  const secret = fc.oneof(
    fc.constantFrom(...examples.map(([, value]) => value)),
    fc.string({
      minLength: 10,
      maxLength: 60,
      unit: fc.constantFrom(...letters.split(''), '&', '!', '~'),
    }),
  );
  fc.assert(
    fc.property(fc.array(secret, { minLength: 1, maxLength: 40 }), (secrets) => {
      const hints = secretHintsOf({
        metadata: { annotations: Object.fromEntries(secrets.map((value, n) => [`a${n}`, value])) },
        spec: {
          containers: [
            {
              // Whoever mistakes a name for a value.
              name: secrets[0],
              env: secrets.map((value) => ({ name: 'DB_PASSWORD', value })),
              args: secrets.flatMap((value) => ['--token', value, `--api-key=${value}`]),
            },
          ],
        },
      });
      expect(hints.length).toBeLessThanOrEqual(16);
      const names = new Set(['container', 'DB_PASSWORD']);
      const shown = JSON.stringify(hints).replaceAll(JSON.stringify(secrets[0]).slice(1, -1), '');
      const isKnown = secrets.map((value) => new RegExp(anyCredential).test(value));
      for (const [index, value] of secrets.entries()) {
        if (names.has(value) || (index === 0 && isKnown[0] !== true)) continue;
        for (let at = 0; at + 6 <= value.length; at++) {
          expect(shown).not.toContain(value.slice(at, at + 6));
        }
      }
    }),
  );
});

it.each([
  undefined,
  {},
  { spec: 7 },
  { spec: { containers: [null, 7, { env: 'x', args: [1, null] }] } },
])('anything can stand in a template: %j', (template) => {
  expect(secretHintsOf(template as PodTemplate)).toEqual([]);
});
