import type { Command } from './command.ts';
import { whoCanActions } from './commands/who-can.ts';

/** What is completed with. */
export interface CompletionSources {
  commands: readonly Command[];
  /** Names of flags that every command takes. */
  commonFlags: readonly string[];
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
  { commands, commonFlags, workflowNames }: CompletionSources,
): Promise<string[]> {
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
      const flags = [...commonFlags, ...Object.keys(command?.options ?? {})];
      return flags.map((flag) => `--${flag}`);
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

/** Whether the next word is its value; `--flag=value` has it already. */
function takesValue(word: string | undefined): boolean {
  return (
    word !== undefined &&
    /^(-n|-o|--(namespace|output|reason|timeout|kubeconfig|context|as))$/.test(word)
  );
}

function namespaceIn(words: readonly string[]): string | undefined {
  const at = words.findIndex((word) => word === '-n' || word === '--namespace');
  if (at >= 0) return words[at + 1];
  return words.find((word) => word.startsWith('--namespace='))?.slice('--namespace='.length);
}
