import type { Writable } from 'node:stream';
import { createLogger as createWinstonLogger, format, transports } from 'winston';
import { redact } from './redact.ts';

/** Structured log: a static message with metadata. */
export interface Logger {
  debug(message: string, metadata?: object): void;
  info(message: string, metadata?: object): void;
  warn(message: string, metadata?: object): void;
  error(message: string, metadata?: object): void;
  /** A logger that adds `metadata` to every record. */
  child(metadata: object): Logger;
}

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LoggerOptions {
  /** Records below it are dropped. */
  level: LogLevel;
  /** Default: standard output. It is never ended. */
  destination?: Writable;
  /** Milliseconds since the epoch. */
  clock?: () => number;
}

/** The logger of a process, which ends it. */
export interface RootLogger extends Logger {
  /** Writes what is buffered; later records are dropped. Never rejects, and takes 1 s at most. */
  close(): Promise<void>;
}

/** The fields of a record that metadata can't replace. */
interface Header {
  /** RFC 3339, UTC. */
  time: string;
  level: LogLevel;
  message: string;
}

const closeTimeoutMs = 1_000;

/**
 * A logger that writes one JSON object a line: `time`, `level`, `message`, and the metadata beside them.
 * Metadata is copied and redacted, errors in it become name, code, message and stack, so nothing
 * that is logged can fail or be changed afterwards.
 */
export function createLogger({
  level,
  destination = process.stdout,
  clock = Date.now,
}: LoggerOptions): RootLogger {
  const transport = new transports.Stream({ stream: destination, eol: '\n' });
  const winston = createWinstonLogger({
    level,
    format: format.json({ deterministic: false }),
    transports: [transport],
  });
  let isClosed = false;
  // A log that can't be written is no reason to end: there is nowhere left to say so.
  for (const emitter of [winston, transport, destination]) emitter.on('error', () => undefined);

  const write: Write = (header, bound, metadata) => {
    if (isClosed || !winston.isLevelEnabled(header.level)) return;
    const time = new Date(clock()).toISOString();
    const { time: _, level: __, message: ___, ...fields } = { ...bound, ...fieldsOf(metadata) };
    // The form with one argument: with two, winston appends `metadata.message` to the message.
    winston.log({ time, ...header, ...fields } satisfies Header);
  };
  return {
    ...loggerOf(write, {}),
    close: async () => {
      if (isClosed) return;
      isClosed = true;
      const written = Promise.withResolvers<void>();
      const timer = setTimeout(written.resolve, closeTimeoutMs);
      transport.once('finish', () => destination.write('', () => written.resolve()));
      winston.end();
      await written.promise;
      clearTimeout(timer);
    },
  };
}

/** Says nothing; for tests. */
export function silentLogger(): Logger {
  return loggerOf(() => undefined, {});
}

type Fields = Readonly<Record<string, unknown>>;
type Write = (header: Omit<Header, 'time'>, bound: Fields, metadata: object | undefined) => void;

function loggerOf(write: Write, bound: Fields): Logger {
  const at =
    (level: LogLevel) =>
    (message: string, metadata?: object): void =>
      write({ level, message }, bound, metadata);
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (metadata) => loggerOf(write, { ...bound, ...fieldsOf(metadata) }),
  };
}

function fieldsOf(metadata: object | undefined): Fields {
  const copied = redact(metadata instanceof Error ? { error: metadata } : metadata);
  return typeof copied === 'object' && copied !== null ? { ...copied } : {};
}
