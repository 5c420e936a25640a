import {
  prunePolicies,
  uninstallPolicies,
  type RetirementOptions,
} from '../../install/retirement.ts';
import { exit, type Command, type Session } from '../command.ts';

/** Takes away what an earlier version left. */
export const pruneCommand: Command = {
  name: 'prune',
  usage: [
    ['prune', 'after an upgrade: take away the admission policies that an earlier version left'],
  ],
  options: { timeout: { type: 'string' } },
  maxNames: 0,
  run: async (session) => {
    await prunePolicies(optionsOf(session));
    return exit.ok;
  },
};

/** Takes away all policies. */
export const uninstallCommand: Command = {
  name: 'uninstall',
  usage: [
    [
      'uninstall',
      'take away all admission policies, which comes before everything else of an uninstallation',
    ],
  ],
  options: { force: { type: 'boolean' }, timeout: { type: 'string' } },
  maxNames: 0,
  run: async (session) => {
    await uninstallPolicies(optionsOf(session), { force: session.flag('force') });
    return exit.ok;
  },
};

function optionsOf({ client, stdout, timeoutMs }: Session): RetirementOptions {
  return { client, log: stdout, timeoutMs };
}
