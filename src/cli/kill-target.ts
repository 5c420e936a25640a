import { wholeNamespaceName } from '../api/kill-switch.ts';
import { required, UsageError, type Session } from './command.ts';

/** What `kill` and `release` take instead of a name. */
export const scopeOptions = { 'whole-namespace': { type: 'boolean' } } as const;

/**
 * @param form of the command, for the error
 * @returns the name of the KillSwitch that is meant
 * @throws UsageError for none, two, or the reserved name written as a Workflow's
 */
export function killTarget(session: Session, form: string): string {
  const [name] = session.names;
  if (!session.flag('whole-namespace')) {
    if (name !== wholeNamespaceName) return required(name, form);
    throw new UsageError('to mean everything in the namespace, write --whole-namespace');
  }
  if (name !== undefined) throw new UsageError('either NAME or --whole-namespace, not both');
  return wholeNamespaceName;
}
