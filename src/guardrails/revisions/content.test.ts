import { describe, expect, it } from 'vitest';
import { maxContent } from '../../api/workflow-revision.ts';
import { contentOf } from './content.ts';

const secret = 'hunter2-hunter2';

function container(fields: object): object {
  return { spec: { containers: [{ name: 'main', image: 'poster:1', ...fields }] } };
}

describe('what is recorded of a pod template', () => {
  it.each<[string, object, string]>([
    [
      'a variable with a telling name',
      { env: [{ name: 'DB_PASSWORD', value: secret }] },
      'env[0].value',
    ],
    [
      'a variable of another',
      { env: [{ name: 'AWS_SECRET_ACCESS_KEY', value: secret }] },
      'env[0].value',
    ],
    [
      'a URL with a password',
      { env: [{ name: 'DB', value: `postgres://me:${secret}@db/x` }] },
      'env[0].value',
    ],
    ['a flag', { args: [`--db-password=${secret}`] }, 'args[0]'],
    ['a flag with its value behind it', { args: ['--api-key', secret] }, 'args[1]'],
    ['a bearer token', { command: ['curl', `Authorization: Bearer ${secret}`] }, 'command[1]'],
    [
      'a header of a probe',
      { livenessProbe: { httpGet: { httpHeaders: [{ name: 'Authorization', value: secret }] } } },
      'livenessProbe.httpGet.httpHeaders[0].value',
    ],
  ])('leaves out %s', (_, fields, path) => {
    const { text = '', redacted } = contentOf(container(fields));
    expect(text).not.toContain(secret);
    expect(text).toContain('poster:1');
    expect(redacted).toEqual([`spec.containers[0].${path}`]);
  });

  it('leaves out what has a known format, whatever it is called', () => {
    const key = `AKIA${'A'.repeat(16)}`;
    const { text, redacted } = contentOf(
      container({ env: [{ name: 'WHERE', value: `x ${key}` }] }),
    );
    expect(text).not.toContain(key);
    expect(redacted).toHaveLength(1);
  });

  it('keeps what only names a Secret, and numbers and booleans of any name', () => {
    const template = container({
      env: [
        { name: 'DB_PASSWORD', valueFrom: { secretKeyRef: { name: 'aid.x.db', key: 'password' } } },
      ],
      automountServiceAccountToken: false,
      args: ['--db-password=$(DB_PASSWORD)', '--token', '$(TOKEN)'],
      volumes: [{ secret: { secretName: 'aid.x.db' } }, { serviceAccountToken: { path: 'token' } }],
    });
    const { text = '', redacted } = contentOf(template);
    expect(JSON.parse(text)).toEqual(template);
    expect(redacted).toEqual([]);
  });

  it('is bounded: by its length, by each text in it, and by the fields that it names', () => {
    expect(contentOf(container({ args: ['x'.repeat(1_000_000)] }))).toMatchObject({
      redacted: ['spec.containers[0].args[0]'],
    });
    const many = Array.from({ length: 100 }, (_, index) => ({
      name: `T${index}_TOKEN`,
      value: secret,
    }));
    const { redacted } = contentOf(container({ env: many }));
    expect(redacted).toHaveLength(16);
    expect(redacted.at(-1)).toBe('…');
    const long = Array.from({ length: 40_000 }, (_, index) => `--port=${index}`);
    expect(contentOf(container({ args: long }))).toEqual({ text: undefined, redacted: [] });
    expect((contentOf(container({ args: long.slice(0, 2_000) })).text ?? '').length).toBeLessThan(
      maxContent,
    );
    let deep: unknown = secret;
    for (let depth = 0; depth < 10_000; depth++) deep = { a: deep };
    expect(contentOf(deep).redacted).toHaveLength(1);
  });
});
