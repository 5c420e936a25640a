import { PassThrough, Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { createLogger, silentLogger, type LogLevel } from './logger.ts';

function loggerAt(level: LogLevel) {
  const destination = new PassThrough();
  const logger = createLogger({
    level,
    destination,
    clock: () => Date.UTC(2026, 0, 2, 3, 4, 5, 6),
  });
  /** What was written, once the logger is closed. */
  const records = async (): Promise<Record<string, unknown>[]> => {
    await logger.close();
    const text = String(destination.read() ?? '');
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line): Record<string, unknown> => JSON.parse(line));
  };
  return { logger, records, destination };
}

describe('createLogger', () => {
  it('writes one JSON object a line, with the time in RFC 3339', async () => {
    const { logger, records } = loggerAt('debug');

    logger.debug('One');
    logger.info('Two', { n: 2 });
    logger.warn('Three', { list: ['a\nb'] });
    logger.error('Four', { nested: { a: null } });

    const time = '2026-01-02T03:04:05.006Z';
    expect(await records()).toEqual([
      { time, level: 'debug', message: 'One' },
      { time, level: 'info', message: 'Two', n: 2 },
      { time, level: 'warn', message: 'Three', list: ['a\nb'] },
      { time, level: 'error', message: 'Four', nested: { a: null } },
    ]);
  });

  it.each([
    ['debug', 4],
    ['info', 3],
    ['warn', 2],
    ['error', 1],
  ] as const)('drops what is below %s', async (level, count) => {
    const { logger, records } = loggerAt(level);

    for (const each of ['debug', 'info', 'warn', 'error'] as const) logger[each]('x');

    expect(await records()).toHaveLength(count);
  });

  it('adds the metadata of its parents, the nearest winning', async () => {
    const { logger, records } = loggerAt('info');

    logger.child({ a: 1, b: 1 }).child({ b: 2, c: 2 }).info('x', { c: 3 });

    expect(await records()).toMatchObject([{ a: 1, b: 2, c: 3 }]);
  });

  it('keeps its own fields, whatever the metadata calls its', async () => {
    const { logger, records } = loggerAt('info');

    logger.child({ level: 'debug' }).warn('Static', { message: 'x', level: 'y', time: 'z' });

    expect(await records()).toEqual([
      { time: '2026-01-02T03:04:05.006Z', level: 'warn', message: 'Static' },
    ]);
  });

  it('writes an error as name, code, message and stack', async () => {
    const { logger, records } = loggerAt('info');
    const error = Object.assign(new RangeError('too far'), { code: 'FAR', body: 'response body' });

    logger.error('Failed', { error });
    logger.error('Failed', error);

    const written = { name: 'RangeError', code: 'FAR', message: 'too far', stack: error.stack };
    expect(await records()).toMatchObject([{ error: written }, { error: written }]);
  });

  it('shows no secret, also of a parent', async () => {
    const { logger, records } = loggerAt('info');

    logger
      .child({ token: 'c4n4ry' })
      .info('x', { request: { headers: { authorization: 'c4n4ry' } } });

    expect(JSON.stringify(await records())).not.toContain('c4n4ry');
  });

  it('copies: what is changed later does not change the record', async () => {
    const { logger, records } = loggerAt('info');
    const state = { phase: 'before' };
    const child = logger.child({ state });

    state.phase = 'after';
    child.info('x');

    expect(await records()).toMatchObject([{ state: { phase: 'before' } }]);
  });

  it('never throws', async () => {
    const { logger, records } = loggerAt('info');
    const metadata = {
      n: 1n,
      get broken(): string {
        throw new Error('no');
      },
    };

    logger.info('x', metadata);
    logger.info('y', { n: 1n, self: logger });

    expect(await records()).toMatchObject([{ message: 'x' }, { message: 'y', n: '1' }]);
  });

  it('has written everything when it is closed, and drops what comes later', async () => {
    const written: string[] = [];
    const destination = new Writable({
      highWaterMark: 1,
      write: (chunk, _encoding, done) => {
        setImmediate(() => {
          written.push(String(chunk));
          done();
        });
      },
    });
    const logger = createLogger({ level: 'info', destination });
    for (let n = 0; n < 200; n++) logger.info('x', { n });

    await logger.close();
    logger.info('late');
    await logger.close();

    expect(written.filter((chunk) => chunk !== '')).toHaveLength(200);
    expect(destination.writableEnded).toBe(false);
  });

  it('survives a destination that is gone', async () => {
    const { logger, destination } = loggerAt('info');
    destination.destroy(new Error('EPIPE'));

    logger.info('x');

    await expect(logger.close()).resolves.toBeUndefined();
  });
});

describe('silentLogger', () => {
  it('says nothing', () => {
    const logger = silentLogger();

    expect(logger.child({ a: 1 }).error('x', { b: 2 })).toBeUndefined();
  });
});
