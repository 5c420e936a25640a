import { resources, type Resource } from '../api/resources.ts';
import { UsageError } from './command.ts';

const { workflows, automationIdentities, killSwitches } = resources;

/** As kubectl takes them, singular, plural or short, and as people say it. */
const kinds: readonly { words: readonly string[]; resource: Resource }[] = [
  {
    words: ['awf', workflows.plural, 'automationworkflow', 'workflow', 'workflows'],
    resource: workflows,
  },
  {
    words: ['aid', automationIdentities.plural, 'automationidentity'],
    resource: automationIdentities,
  },
  { words: ['ksw', killSwitches.plural, 'killswitch'], resource: killSwitches },
];

/** What an argument names: `NAME`, or `KIND/NAME` as kubectl writes it. */
export interface ObjectName {
  /** `undefined` where the argument doesn't say. */
  resource: Resource | undefined;
  name: string;
}

/** @throws UsageError for a kind that isn't of an automation */
export function objectNameIn(argument: string): ObjectName {
  const [first = '', name, more] = argument.split('/');
  if (name === undefined) return { resource: undefined, name: first };
  // With its group, too, as kubectl prints it.
  const word = first.toLowerCase().split('.', 1)[0] ?? '';
  const resource = kinds.find(({ words }) => words.includes(word))?.resource;
  if (resource === undefined || name === '' || more !== undefined) {
    throw new UsageError(
      `${argument} names no automation: write NAME, or awf/NAME; the namespace is given by -n`,
    );
  }
  return { resource, name };
}
