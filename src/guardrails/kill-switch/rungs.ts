import type { TokenStatus } from '../../api/automation-identity.ts';
import { timestamp, type Finding } from '../../api/conditions.ts';
import { maxRemaining, type Remaining } from '../../api/kill-switch.ts';
import type { Condition, Pod } from '../../api/objects.ts';
import { clip, some, triedAgain } from '../wording.ts';

/**
 * Time from the end of a ServiceAccount until no API server accepts its tokens: each remembers for
 * 10 s that a token was good (k8s.io/apiserver, TokenSuccessCacheTTL). One second more because
 * conditions have whole seconds, and one for the API server to hear of it.
 */
export const tokensDieMs = 12_000;
/** Time for the API server's authorizer to hear that a binding is gone. */
const authorizerLagMs = 5_000;
/** A pod that is still there so long after its grace period has ended: nobody answers for it. */
const overdueMs = 30_000;

/** One rung as it was found, and what of it stays valid. */
export interface Rung {
  finding: Finding;
  remaining: readonly Remaining[];
}

/** Reasons of rungs that only somebody else than the operator can bring on. */
const beyondUs: ReadonlySet<string> = new Set(['GrantedElsewhere', 'ForeignObject']);

/** What could not be asked or done; it is tried again. */
export function notVerified(type: string, error: unknown): Rung {
  return {
    finding: {
      type,
      status: 'Unknown',
      reason: 'NotVerified',
      message: triedAgain(error),
    },
    remaining: [],
  };
}

/** What is known of one subject's permissions. */
export interface PermissionsView {
  subject: string;
  allowed: readonly string[];
}

/**
 * @param previous the condition as it stands
 * @param now milliseconds since the epoch
 */
export function permissionsRung(
  views: readonly PermissionsView[],
  previous: Condition | undefined,
  now: number,
): Rung {
  const type = 'PermissionsRevoked';
  const open = views.filter(({ allowed }) => allowed.length > 0);
  if (open.length === 0) {
    const message =
      'The RoleBinding is gone, and the API server allows nothing that was declared any more.';
    return { finding: { type, status: 'True', reason: 'Revoked', message }, remaining: [] };
  }
  const list = some(open.flatMap(({ subject, allowed }) => allowed.map((a) => `${subject}: ${a}`)));
  const since = previous?.status === 'False' ? Date.parse(previous.lastTransitionTime) : now;
  if (now - since < authorizerLagMs) {
    const message = `The RoleBinding is gone; the API server still allows ${list}.`;
    return { finding: { type, status: 'False', reason: 'Revoking', message }, remaining: [] };
  }
  return {
    finding: {
      type,
      status: 'False',
      reason: 'GrantedElsewhere',
      message: `Somebody else grants what the RoleBinding granted: ${list}. Find the binding: kubectl get rolebindings,clusterrolebindings -A -o wide.`,
    },
    remaining: open.map(({ subject, allowed }) => ({
      what: clip(
        `Permissions of ServiceAccount ${subject} by bindings of others: ${some(allowed)}`,
      ),
    })),
  };
}

/**
 * @param foreign names of Secrets that have the name of a credential and aren't ours
 * @param copies what is left in a store beside Kubernetes, and why
 */
export function secretsRung(
  foreign: readonly string[],
  copies: readonly { what: string; why: string }[],
): Rung {
  const type = 'SecretsWithdrawn';
  const remaining = [
    ...foreign.map((name) => ({ what: clip(`Secret ${name}, made by somebody else`) })),
    ...copies.map(({ what }) => ({ what: clip(what) })),
  ];
  const open = (found: Pick<Finding, 'reason' | 'message'>): Rung => ({
    finding: { type, status: 'False', ...found },
    remaining,
  });
  const [copy] = copies;
  if (copy !== undefined) {
    const left = some(copies.map(({ what }) => what));
    return open({
      reason: 'CopiesRemain',
      message: `Readable still, until it is destroyed: ${left}: ${copy.why}. It is tried again, at least once a minute.`,
    });
  }
  if (foreign.length > 0) {
    return open({
      reason: 'ForeignObject',
      message: `Secrets that the operator didn't make are left alone: ${some(foreign)}. Delete them, if they hold credentials of the automation.`,
    });
  }
  const message = 'No Secret with its credentials is left; the release makes new ones.';
  return { finding: { type, status: 'True', reason: 'Withdrawn', message }, remaining };
}

/** What became of the ServiceAccounts, by name. */
export interface AccountsView {
  foreign: readonly string[];
  /** Kept by a finalizer. */
  deleting: readonly string[];
  /** They wait until the fence is proven. */
  waiting: readonly string[];
}

export function identityRung({ foreign, deleting, waiting }: AccountsView): Rung {
  const type = 'IdentityRevoked';
  const open = (found: Pick<Finding, 'reason' | 'message'>): Rung => ({
    finding: { type, status: 'False', ...found },
    remaining: [],
  });
  if (waiting.length > 0) {
    const message = `ServiceAccounts are deleted once the fence is proven: ${some(waiting)}.`;
    return open({ reason: 'WaitingForFence', message });
  }
  if (deleting.length > 0) {
    const message = `A finalizer keeps ServiceAccounts that are deleted: ${some(deleting)}. Look at metadata.finalizers.`;
    return open({ reason: 'AccountDeleting', message });
  }
  if (foreign.length > 0) {
    const message = `ServiceAccounts that the operator didn't make are left alone: ${some(foreign)}. To end their tokens, delete them.`;
    return open({ reason: 'ForeignObject', message });
  }
  const message = 'Its ServiceAccount is deleted; the release makes it anew.';
  return { finding: { type, status: 'True', reason: 'AccountDeleted', message }, remaining: [] };
}

/** A rung, and when it changes by itself. */
export interface TimedRung extends Rung {
  /** Milliseconds from now. */
  dueMs: number | undefined;
}

/** What is known of a killed automation's tokens. */
export interface TokensView {
  /** The rung IdentityRevoked, as it was found just now. */
  identity: Rung;
  /** Its condition as it stands: since when the ServiceAccount is gone. */
  previous: Condition | undefined;
  /** Names of ServiceAccounts that are somebody else's. */
  foreign: readonly string[];
  /** What was published for runners outside of pods, as it stood before the kill. */
  published: readonly TokenStatus[];
  /** Secrets that were withdrawn, and of which the API server accepts a token still. */
  accepted: readonly string[];
}

/**
 * Tokens end with their ServiceAccount, as soon as no API server remembers them as good.
 *
 * @param now milliseconds since the epoch
 */
export function tokensRung(view: TokensView, now: number): TimedRung {
  const { previous, foreign, published, accepted } = view;
  const identity = view.identity.finding;
  const type = 'TokensRevoked';
  if (identity.status !== 'True') {
    const isForeign = identity.reason === 'ForeignObject';
    return {
      finding: {
        type,
        status: 'False',
        reason: isForeign ? 'ForeignObject' : 'IdentityStands',
        message: isForeign
          ? `Tokens that were issued before the kill stay valid until they expire, those of token Secrets for ever: ServiceAccount ${some(foreign)}.`
          : 'Tokens that were issued before the kill are valid as long as the ServiceAccount stands.',
      },
      remaining: foreign.map((name) => ({
        what: clip(
          `Tokens of ServiceAccount ${name} from before the kill: until each expires, those of token Secrets for ever`,
        ),
      })),
      dueMs: undefined,
    };
  }
  const since = previous?.status === 'True' ? Date.parse(previous.lastTransitionTime) : now;
  const dueMs = since + tokensDieMs - now;
  if (dueMs > 0) {
    const until = timestamp(now + dueMs);
    return {
      finding: {
        type,
        status: 'False',
        reason: 'Expiring',
        message: `The ServiceAccount is gone; API servers may accept its tokens until ${until}.`,
      },
      remaining: [{ what: 'Tokens from before the kill, in caches of the API server', until }],
      dueMs: Math.min(dueMs, tokensDieMs),
    };
  }
  if (accepted.length > 0) {
    return {
      finding: {
        type,
        status: 'False',
        reason: 'StillAccepted',
        message: `The API server accepts tokens that were withdrawn: those of ${some(accepted)}.`,
      },
      remaining: accepted.map((name) => ({ what: clip(`Tokens of Secret ${name}`) })),
      dueMs: undefined,
    };
  }
  const unexpired = published.filter(
    ({ expirationTime }) => expirationTime !== undefined && Date.parse(expirationTime) > now,
  );
  const message =
    unexpired.length === 0
      ? 'No API server accepts a token of it any more.'
      : `No API server accepts a token of it any more. Who checks the signature alone and asks none takes the published ones until they expire: ${some(unexpired.map(({ name }) => name))}.`;
  return {
    finding: { type, status: 'True', reason: 'TokensDead', message },
    remaining: unexpired.map(({ name, audience, expirationTime }) => ({
      what: clip(`Token ${name} for ${audience}, where its signature alone is checked`),
      ...(expirationTime !== undefined && { until: expirationTime }),
    })),
    dueMs: undefined,
  };
}

/** How the egress of a killed automation was closed. */
export interface ClosedView {
  /** NetworkPolicies that were found or made closed. */
  policies: number;
  /** The kind of policy that denies whatever others allow, where one stands. */
  deniedBy: string | undefined;
  /** Kinds and names of such policies that can't be made to stand, each with why. */
  refused: readonly string[];
  /** NetworkPolicies of others that still allow something, each with what, in words. */
  allowing: readonly string[];
}

/** Begins what {@link egressRung} tells of policies of others. */
const policyOfOthers = 'NetworkPolicy ';

/** Of what remains, policies of others that allow something, and those that can't deny it. */
export function isOfEgress({ what }: Remaining): boolean {
  return /^(Cilium|Cluster)?NetworkPolicy /.test(what);
}

/** What remains of policies of others. */
export function remainingPolicies(allowing: readonly string[]): Remaining[] {
  return allowing.map((words) => ({ what: clip(`${policyOfOthers}${words}`) }));
}

/**
 * Policies of others are for pods, of which the rungs before leave none: they keep nothing open, and
 * neither does what can't deny them.
 */
export function egressRung({ policies, deniedBy, refused, allowing }: ClosedView): Rung {
  const closed =
    policies === 0
      ? 'It has no NetworkPolicy that could be closed.'
      : `${policies} ${policies === 1 ? 'NetworkPolicy allows' : 'NetworkPolicies allow'} nothing any more, not even DNS.`;
  const isDenied = deniedBy !== undefined && refused.length === 0;
  const denied = isDenied
    ? [`A ${deniedBy} denies everything, whatever policies of others allow.`]
    : [];
  const notDenied =
    refused.length === 0
      ? []
      : [
          `What would deny everything, whatever policies of others allow, can't be written: ${some(refused.map((why) => clip(why)))}. It is tried again.`,
        ];
  const others =
    allowing.length === 0
      ? []
      : [
          `NetworkPolicies of others would let its pods out, if there were any, and nothing overrides them: ${some(allowing)}.`,
        ];
  return {
    finding: {
      type: 'EgressClosed',
      status: 'True',
      reason: isDenied ? 'Denied' : 'Closed',
      message: [closed, ...denied, ...notDenied, ...others].join(' '),
    },
    remaining: [...refused.map((why) => ({ what: clip(why) })), ...remainingPolicies(allowing)],
  };
}

/**
 * Whether nobody answers for the end of a pod: its grace period is long over, or its node was
 * given up.
 *
 * @param now milliseconds since the epoch
 */
export function isUnanswered({ metadata, status }: Pod, now: number): boolean {
  if (status?.phase === 'Unknown' || status?.reason === 'NodeLost') return true;
  const { deletionTimestamp } = metadata;
  return deletionTimestamp !== undefined && now - Date.parse(deletionTimestamp) > overdueMs;
}

/** Pods that are left, with the end of their grace where they have one. */
export function remainingPods(pods: readonly Pod[]): Remaining[] {
  return pods.slice(0, maxRemaining).map(({ metadata: { name, deletionTimestamp } }) => ({
    what: clip(`Pod ${name}`),
    ...(deletionTimestamp !== undefined && { until: deletionTimestamp }),
  }));
}

/** `Effective`, and `Ready` after it. */
export function effectiveFindings(rungs: readonly Finding[]): Finding[] {
  const open = rungs.filter(({ status }) => status !== 'True');
  if (open.length === 0) {
    return [
      {
        type: 'Effective',
        status: 'True',
        reason: 'Verified',
        message: 'Every rung was verified: the cluster accepts nothing of it any more.',
      },
      {
        type: 'Ready',
        status: 'True',
        reason: 'Stopped',
        message: 'Nothing of this automation runs, and nothing of it can start.',
      },
    ];
  }
  const message = open
    .map((finding) => finding.message)
    .join(' ')
    .slice(0, 8192);
  const known = open.filter(({ status }) => status === 'False');
  const { status, reason } = verdictOf(known);
  return [
    { type: 'Effective', status, reason, message },
    { type: 'Ready', status: 'False', reason, message },
  ];
}

function verdictOf(known: readonly Finding[]): Pick<Finding, 'status' | 'reason'> {
  if (known.length === 0) return { status: 'Unknown', reason: 'Unverified' };
  const isBeyondUs = known.every(({ reason }) => beyondUs.has(reason));
  return isBeyondUs
    ? { status: 'False', reason: 'SomethingRemains' }
    : { status: 'False', reason: 'Stopping' };
}
