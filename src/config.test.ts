import { hostname } from 'node:os';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ConfigError,
  configurationReference,
  helpText,
  parseConfig,
  type Config,
} from './config.ts';

const prefix = 'AUTOMATION_GUARDRAILS_';

function configOf(argv: string[] = [], env: Record<string, string> = {}): Config {
  const command = parseConfig(argv, env);
  if (command.kind !== 'run') throw new Error(`the command is ${command.kind}`);
  return command.config;
}

function problemsOf(argv: string[], env: Record<string, string> = {}): readonly string[] {
  try {
    parseConfig(argv, env);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe('parseConfig', () => {
  it('has a default for everything', () => {
    expect(configOf()).toEqual({
      kubeconfig: undefined,
      context: undefined,
      namespaces: undefined,
      logLevel: 'info',
      bindAddress: '0.0.0.0',
      metricsPort: 8080,
      healthPort: 8081,
      leaderElect: true,
      leaseName: 'automation-guardrails',
      operatorNamespace: 'automation-guardrails',
      instance: hostname(),
      workers: 8,
      killSwitchWorkers: 16,
      killSwitchParallelism: 64,
      podGraceSeconds: 30,
      clusterDns: { namespace: 'kube-system', name: 'kube-dns' },
      watchStaleAfterMs: 300_000,
      shutdownTimeoutMs: 5_000,
      evidence: true,
      revisionHistoryLimit: 10,
      evidenceSegments: 16,
      evidenceRetentionMs: 7_776_000_000,
      evidenceRequireExport: false,
      evidenceKeyRotationMs: 7_776_000_000,
      vault: undefined,
    });
  });

  it('knows a vault by its address, and has a default for all else of it', () => {
    expect(configOf(['--vault-address=https://vault.example.com:8200']).vault).toEqual({
      address: 'https://vault.example.com:8200',
      caFile: undefined,
      namespace: undefined,
      mount: 'secret',
      pathPrefix: 'automation-guardrails',
      authMount: 'kubernetes',
      roles: { identity: 'automation-guardrails-identity', operator: 'automation-guardrails' },
      audience: 'vault',
      tokenFile: '/var/run/secrets/automation-guardrails/vault/token',
    });
  });

  it.each([
    '--vault-address=vault.example.com',
    '--vault-address=http://vault.example.com',
    '--vault-address=file:///etc/passwd',
    '--vault-address=https://user:word@vault.example.com',
    '--vault-address=https://vault.example.com/v1/other',
    '--vault-address=https://vault.example.com?x=y',
    '--vault-mount=secret/../sys',
    '--vault-mount=/secret',
    '--vault-path-prefix=a//b',
    '--vault-auth-mount=kubernetes?x',
    '--vault-namespace=..',
    '--vault-role=a/b',
    '--vault-audience=two words',
  ])('refuses %s', (flag) => {
    const address = flag.startsWith('--vault-address') ? [] : ['--vault-address=https://v.example'];
    expect(problemsOf([...address, flag])).toHaveLength(1);
  });

  it('sends credentials over plain HTTP only where that is said', () => {
    const argv = ['--vault-address=http://127.0.0.1:8200', '--vault-allow-http'];
    expect(configOf(argv).vault?.address).toBe('http://127.0.0.1:8200');
  });

  it.each([
    [['--metrics-port=0'], { metricsPort: 0 }],
    [['--metrics-port', '0'], { metricsPort: 0 }],
    [['--health-port=off'], { healthPort: 'off' }],
    [['--metrics-port=off', '--health-port=off'], { metricsPort: 'off', healthPort: 'off' }],
    [['--metrics-port=0', '--health-port=0'], { metricsPort: 0, healthPort: 0 }],
    [['--leader-elect'], { leaderElect: true }],
    [['--leader-elect=false', '--workers=3'], { leaderElect: false, workers: 3 }],
    [['--shutdown-timeout=1m30s'], { shutdownTimeoutMs: 90_000 }],
    [['--context', 'a=b'], { context: 'a=b' }],
    [['--kubeconfig=/a=b'], { kubeconfig: '/a=b' }],
    [['--namespaces=finance, sales,finance'], { namespaces: ['finance', 'sales'] }],
  ])('reads %j', (argv, expected) => {
    expect(configOf(argv)).toMatchObject(expected);
  });

  it('lets flags win over variables, and those over defaults', () => {
    const env = { [`${prefix}WORKERS`]: '5', [`${prefix}LOG_LEVEL`]: 'debug' };

    expect(configOf(['--workers=7'], env)).toMatchObject({ workers: 7, logLevel: 'debug' });
  });

  it('knows its pod and namespace from the downward API', () => {
    const pod = { POD_NAME: 'operator-7f9', POD_NAMESPACE: 'guardrails' };

    expect(configOf([], pod)).toMatchObject({
      instance: 'operator-7f9',
      operatorNamespace: 'guardrails',
    });
    expect(configOf([], { ...pod, [`${prefix}OPERATOR_NAMESPACE`]: 'other' })).toMatchObject({
      operatorNamespace: 'other',
    });
  });

  it('takes an empty variable as not set', () => {
    expect(configOf([], { [`${prefix}WORKERS`]: '', POD_NAMESPACE: '' })).toEqual(configOf());
  });

  it('passes over the variables that Kubernetes sets for Services', () => {
    const links = {
      [`${prefix}METRICS_PORT`]: 'tcp://10.0.0.1:8080',
      [`${prefix}METRICS_PORT_8080_TCP`]: 'tcp://10.0.0.1:8080',
      [`${prefix}METRICS_PORT_8080_TCP_ADDR`]: '10.0.0.1',
      [`${prefix}METRICS_SERVICE_HOST`]: '10.0.0.1',
      [`${prefix}METRICS_SERVICE_PORT_METRICS`]: '8080',
    };

    expect(configOf([], links)).toEqual(configOf());
  });

  it('lists all that is wrong, and where it was said', () => {
    const env = { [`${prefix}LOG_LEVEL`]: 'loud', [`${prefix}WORKER`]: '3' };

    expect(problemsOf(['--metrics-prt=1', 'start', '--workers=0', '--context'], env)).toEqual([
      'Unknown flag: --metrics-prt. Did you mean --metrics-port?',
      'Unexpected argument: "start".',
      '--context needs a value: NAME.',
      `Unknown environment variable: ${prefix}WORKER. Did you mean ${prefix}WORKERS?`,
      `${prefix}LOG_LEVEL must be one of debug, info, warn, error, not "loud".`,
      '--workers must be a whole number from 1 to 256, not "0".',
    ]);
  });

  it.each([
    ['--workers=1e2'],
    ['--workers=-1'],
    ['--workers='],
    ['--workers= 5'],
    ['--metrics-port=65536'],
    ['--metrics-port=none'],
    ['--leader-elect=yes'],
    ['--watch-stale-after=30'],
    ['--watch-stale-after=0s'],
    ['--shutdown-timeout=-1s'],
    ['--operator-namespace=Über'],
    ['--lease-name=a/b'],
    ['--cluster-dns=kube-dns'],
    ['--namespaces=finance,'],
    ['--namespaces=Finance'],
    ['--namespaces=*'],
    ['--cluster-dns=a/b/c'],
    ['--instance=a b'],
    ['--frobnicate'],
    ['-x'],
    ['--'],
    ['--workers=1', '--workers=2'],
    ['--metrics-port=9000', '--health-port=9000'],
    ['--leader-elect', 'false'],
  ])('refuses %s %s', (...argv) => {
    expect(problemsOf(argv)).toHaveLength(1);
  });

  it.each([
    ['--help', 'help'],
    ['-h', 'help'],
    ['--version', 'version'],
  ])('answers %s whatever else is wrong', (flag, kind) => {
    expect(parseConfig(['--workers=0', flag], { [`${prefix}X`]: '1' })).toEqual({ kind });
  });

  it('throws an error with a stable code whose message is all problems', () => {
    expect(() => parseConfig(['--a', '--b'], {})).toThrow(
      expect.objectContaining({
        code: 'INVALID_CONFIG',
        message: expect.stringMatching(/a.*\n.*b/),
      }),
    );
  });

  it('throws nothing but ConfigError, whatever it is given', () => {
    const argument = fc.oneof(
      fc.string(),
      fc.constantFrom('--workers', '--leader-elect', '--log-level', '--instance'),
      fc.string().map((value) => `--${value}`),
      fc.string().map((value) => `--shutdown-timeout=${value}`),
    );
    const variable = fc.oneof(
      fc.string(),
      fc.string().map((name) => prefix + name),
    );
    fc.assert(
      fc.property(fc.array(argument), fc.dictionary(variable, fc.string()), (argv, env) => {
        try {
          expect(parseConfig(argv, env).kind).toMatch(/run|help|version/);
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
        }
      }),
    );
  });
});

describe('texts', () => {
  it('document every option, with its default', () => {
    const help = helpText();
    const reference = configurationReference();

    for (const key of Object.keys(configOf())) {
      const flag = (key === 'vault' ? 'vaultAddress' : key)
        .replace(/Ms$/, '')
        .replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      expect(help).toContain(`--${flag}`);
      expect(reference).toContain(`| \`--${flag}\` | \`${prefix}`);
    }
    expect(reference).toContain('| `5m` |');
  });

  it('fit into a terminal', () => {
    expect(
      Math.max(
        ...helpText()
          .split('\n')
          .map(({ length }) => length),
      ),
    ).toBeLessThanOrEqual(100);
  });
});
