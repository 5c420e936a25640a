import type { Command } from './command.ts';
import { whoCanActions } from './commands/who-can.ts';

/** What is completed with. */
export interface CompletionSources {
  commands: readonly Command[];
  /** Flags that every command takes. */
  commonOptions: Command['options'];
  /** Names of Workflows; fails where they can't be asked for. */
  workflowNames: (namespace: string | undefined) => Promise<string[]>;
}

/** Of cobra: the shell completes no files. */
const noFiles = ':4';

/**
 * Candidates for the last word of a command line, a line each.
 *
 * @param words behind `kubectl guardrails`; the last one is being written, and may be empty
 */
export async function complete(
  words: readonly string[],
  { commands, commonOptions, workflowNames }: CompletionSources,
): Promise<string[]> {
  const withValue = new Set(
    [commonOptions, ...commands.map(({ options }) => options)].flatMap((options) =>
      Object.entries(options)
        .filter(([, { type }]) => type === 'string')
        .flatMap(([name, { short }]) => [
          `--${name}`,
          ...(short === undefined ? [] : [`-${short}`]),
        ]),
    ),
  );
  /** Whether the next word is its value; `--flag=value` has it already. */
  const takesValue = (word: string | undefined): boolean =>
    word !== undefined && withValue.has(word);
  const word = words.at(-1) ?? '';
  const before = words.slice(0, -1);
  const plain = before.filter(
    (one, index) => !one.startsWith('-') && !takesValue(before[index - 1]),
  );
  const command = commands.find(({ name }) => name === plain[0]);
  const candidates = await candidatesFor();
  return [...candidates.filter((candidate) => candidate.startsWith(word)).toSorted(), noFiles];

  async function candidatesFor(): Promise<string[]> {
    if (word.startsWith('-')) {
      return Object.keys({ ...commonOptions, ...command?.options }).map((flag) => `--${flag}`);
    }
    if (takesValue(before.at(-1))) return [];
    if (command === undefined) return commands.map(({ name }) => name);
    const form = command.usage[0]?.[0] ?? '';
    if (command.name === 'completion') return ['bash', 'zsh', 'fish', 'kubectl'];
    if (command.name === 'who-can' && plain.length === 1) return whoCanActions;
    if (!form.includes('NAME')) return [];
    return await workflowNames(namespaceIn(before)).catch(() => []);
  }
}

function namespaceIn(words: readonly string[]): string | undefined {
  const at = words.findIndex((word) => word === '-n' || word === '--namespace');
  if (at >= 0) return words[at + 1];
  return words.find((word) => word.startsWith('--namespace='))?.slice('--namespace='.length);
}
