import type { Finding } from '../../api/conditions.ts';
import { sentencesOf, type Problem } from '../requirements.ts';
import { some } from '../wording.ts';

/** What is known of a Workflow's egress. */
export interface EgressView {
  /** Entries of the allowlist that are in force. */
  destinations: number;
  sources: number;
  /** Entries that have ended, in words. */
  expired: readonly string[];
  /** Named peers that could not be looked up. */
  unknownPeers: readonly string[];
  /** Hosts that could not be looked up, and why. */
  unresolved: readonly string[];
  /** Hosts that are looked up for the first time. */
  pending: readonly string[];
  /** Nothing is granted that isn't there yet. */
  isWithheld: boolean;
  /** The kill switch is engaged, and nothing is allowed. */
  isClosed: boolean;
  /** What keeps the policies from standing, the most important first. */
  problems: readonly Problem[];
}

/** Whether policies stand that say what the allowlist says. */
export function declaredFinding(view: EgressView): Finding {
  const { destinations, sources, expired, unknownPeers, problems } = view;
  const type = 'EgressDeclared';
  const [first] = problems;
  if (first !== undefined) {
    return { type, status: 'False', reason: first.reason, message: sentencesOf(problems) };
  }
  if (view.isClosed) {
    const message = 'The kill switch is engaged: its NetworkPolicies allow nothing, not even DNS.';
    return { type, status: 'False', reason: 'KillSwitchEngaged', message };
  }
  if (view.isWithheld) {
    const message =
      'Nothing is granted that was not granted before: see Held and Ready for what is missing.';
    return { type, status: 'False', reason: 'Withheld', message };
  }
  if (unknownPeers.length > 0) {
    const message = `The addresses of ${some(unknownPeers)} can't be looked up: those that were last known stay, and no others are allowed.`;
    return { type, status: 'False', reason: 'PeersUnknown', message };
  }
  const { unresolved, pending } = view;
  if (unresolved.length > 0) {
    const message = `Of hosts, the addresses that were last known stay, and no others are allowed: ${some(unresolved)}.`;
    return { type, status: 'False', reason: 'HostsUnresolved', message };
  }
  if (pending.length > 0) {
    const message = `The addresses of ${some(pending)} are being looked up.`;
    return { type, status: 'False', reason: 'ResolvingHosts', message };
  }
  const counts = `Its NetworkPolicies allow DNS and ${destinations} listed ${destinations === 1 ? 'destination' : 'destinations'}, and connections from ${sources === 0 ? 'nobody' : `${sources} listed ${sources === 1 ? 'source' : 'sources'}`}.`;
  if (expired.length > 0) {
    const message = `${counts} Ended, and not allowed any more: ${some(expired)}. Take them out of the spec, or give them a later expires.`;
    return { type, status: 'True', reason: 'EntriesExpired', message };
  }
  return { type, status: 'True', reason: 'Declared', message: counts };
}
