import { describe, expect, it } from 'vitest';
import type { Command } from './command.ts';
import { complete, type CompletionSources } from './complete.ts';

const command = (name: string, form: string, options = {}): Command => ({
  name,
  usage: [[form, '']],
  options,
  run: () => Promise.resolve(0),
});

const sources: CompletionSources = {
  commands: [
    command('kill', 'kill NAME --reason TEXT', { reason: { type: 'string' } }),
    command('who-can', 'who-can ACTION NAME'),
    command('doctor', 'doctor'),
  ],
  commonOptions: { namespace: { type: 'string', short: 'n' } },
  workflowNames: (namespace = 'default') => Promise.resolve([`${namespace}-invoice`]),
};

describe('completion', () => {
  it.each([
    ['a command', ['k'], ['kill']],
    ['every command', [''], ['doctor', 'kill', 'who-can']],
    ['a flag of the command and of all', ['kill', '--'], ['--namespace', '--reason']],
    ['a Workflow', ['kill', ''], ['default-invoice']],
    ['a Workflow of a namespace', ['kill', '-n', 'finance', ''], ['finance-invoice']],
    ['a Workflow of a namespace behind =', ['kill', '--namespace=hr', ''], ['hr-invoice']],
    ['the value of a flag not at all', ['kill', '--reason', ''], []],
    ['an action', ['who-can', 'rel'], ['release']],
    ['whom an action is about', ['who-can', 'kill', ''], ['default-invoice']],
    ['a command without arguments not at all', ['doctor', ''], []],
  ])('offers %s', async (_, words, expected) => {
    expect(await complete(words, sources)).toEqual([...expected, ':4']);
  });

  it('offers nothing where the cluster does not answer', async () => {
    const workflowNames = () => Promise.reject(new Error('no route'));
    expect(await complete(['kill', ''], { ...sources, workflowNames })).toEqual([':4']);
  });
});
