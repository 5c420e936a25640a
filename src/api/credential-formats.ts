/**
 * Formats by which a credential is known for what it is, whatever it is called. The patterns mean
 * the same in JavaScript and in RE2, which admission uses.
 *
 * @see https://github.com/gitleaks/gitleaks/blob/master/config/gitleaks.toml for most of them
 */
export const credentialFormats: readonly { name: string; pattern: string }[] = [
  // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
  { name: 'an AWS access key', pattern: '(AKIA|ASIA)[A-Z2-7]{16}' },
  // https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github
  { name: 'a GitHub token', pattern: 'gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{22}' },
  // https://docs.gitlab.com/security/tokens/#token-prefixes
  { name: 'a GitLab token', pattern: 'gl(pat|dt|rt|ptt)-[0-9A-Za-z_-]{20}' },
  // https://docs.slack.dev/authentication/tokens
  { name: 'a Slack token', pattern: 'xox[abeprs]-[0-9A-Za-z-]{10}' },
  { name: 'a Google API key', pattern: 'AIza[0-9A-Za-z_-]{35}' },
  // https://docs.stripe.com/keys
  { name: 'a Stripe key', pattern: '[rs]k_live_[0-9A-Za-z]{20}' },
  { name: 'an npm token', pattern: 'npm_[0-9A-Za-z]{36}' },
  { name: 'a key of an AI service', pattern: 'sk-(ant|proj)-[0-9A-Za-z_-]{20}' },
  { name: 'a SendGrid key', pattern: 'SG[.][0-9A-Za-z_-]{22}[.][0-9A-Za-z_-]{43}' },
  { name: 'a token of an AutomationIdentity', pattern: 'ag(dev|test|prod)_[0-9A-Za-z_-]{25}' },
  // RFC 7468
  { name: 'a private key', pattern: '-----BEGIN [A-Z ]*PRIVATE KEY' },
  // RFC 7519: two parts that begin a JSON object, and a signature.
  {
    name: 'a JSON Web Token',
    pattern: 'eyJ[0-9A-Za-z_-]{10,}[.]eyJ[0-9A-Za-z_-]{10,}[.][0-9A-Za-z_-]{10}',
  },
];

/** Not in the middle of a longer word. */
const begins = '(^|[^0-9A-Za-z])';

/** What finds any of them. */
export const anyCredential = `${begins}(${credentialFormats.map(({ pattern }) => pattern).join('|')})`;

const expressions = credentialFormats.map(({ name, pattern }) => ({
  name,
  expression: new RegExp(`${begins}(${pattern})`),
}));

/** Which of them a text contains; never what stands there. */
export function knownFormatOf(text: string): string | undefined {
  return expressions.find(({ expression }) => expression.test(text))?.name;
}
