import { readFile } from 'node:fs/promises';

/** A line of a tool's log, as far as it is read here. */
export interface LogEntry {
  msg?: string;
  /** Of an event, where the line is one. */
  reason?: string;
  /** The Application that it is about. */
  application?: string;
  /** The Kustomization that it is about. */
  name?: string;
}

/** The lines of a log in which every line is JSON; what is being written is left out. */
export async function logEntries(logPath: string): Promise<LogEntry[]> {
  const text = await readFile(logPath, 'utf8');
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as LogEntry);
}

/**
 * How often a tool was warned that nothing starts of what it stored. The warning itself names the
 * namespace.
 */
export function warningsIn(namespace: string, entries: readonly LogEntry[]): number {
  return entries.filter(
    ({ msg = '' }) => msg.includes('nothing of it starts') && msg.includes(` -n ${namespace} `),
  ).length;
}
