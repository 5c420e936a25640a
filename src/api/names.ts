/** Names that users, admission policies and other tools rely on. Changing one is an API change. */

export const GROUP = 'automationguardrails.dev';
export const VERSION = 'v1alpha1';
export const API_VERSION = `${GROUP}/${VERSION}`;

/** Field manager of everything that the operator applies. */
export const FIELD_MANAGER = 'automation-guardrails';

/** Value of `app.kubernetes.io/managed-by` on every object that the operator creates. */
export const MANAGED_BY = 'automation-guardrails';

/** Namespace in which the standing probe asks the admission policies, and nothing ever runs. */
export const PROBE_NAMESPACE = 'automation-guardrails-probe';

export const label = {
  /** On a Namespace: it is guarded, and as what (`dev`, `test`, `prod`, …). */
  environment: `${GROUP}/environment`,
  /** Beside the kill-switch annotation, a function of it, written by admission. */
  engaged: `${GROUP}/engaged`,
  /** Beside the kill-switch annotation: a KillSwitch stands for it; written by the operator alone. */
  latched: `${GROUP}/latched`,
  /** On a KillSwitch: the fence is lifted and admission thaws; written by the operator alone. */
  releasing: `${GROUP}/releasing`,
  /** On a KillSwitch: name of the ClusterKillSwitch that it belongs to; written by the operator alone. */
  clusterKillSwitch: `${GROUP}/cluster-kill-switch`,
  /** On a Workflow that needs approval, a function of its spec, written by admission. */
  approval: `${GROUP}/approval`,
  /** On a Workflow: it has limits that admission writes into Jobs; a function of the spec. */
  limited: `${GROUP}/limited`,
  /** On a Workflow: a limit is breached, and no Job of it starts; written by the operator alone. */
  limitBreached: `${GROUP}/limit-breached`,
  /** On children: name of the AutomationIdentity that they belong to. */
  identity: `${GROUP}/identity`,
  /** On children: name of the Workflow that they belong to. */
  workflow: `${GROUP}/workflow`,
  /** On a pod that tries whether NetworkPolicies are enforced. */
  egressProbe: `${GROUP}/egress-probe`,
  /** On an EvidenceSegment: the chain that it is part of. */
  chain: `${GROUP}/chain`,
  /** On an EvidenceSegment: it is complete, and the next one has begun. */
  sealed: `${GROUP}/sealed`,
  /** On a ConfigMap: heads of evidence, written by the operator alone. */
  evidence: `${GROUP}/evidence`,
  /** On a ConfigMap: what was copied to a vault, written by the operator alone. */
  copies: `${GROUP}/copies`,
  managedBy: 'app.kubernetes.io/managed-by',
} as const;

/**
 * ClusterRole by which a ServiceAccount is known to be an identity's: bound to it, it holds the verb
 * `represent` on its AutomationIdentity, and admission asks the authorizer for that.
 */
export const identityRole = 'automation-guardrails-identity';

/** ClusterRole with the most that an identity can be granted: what an administrator widens. */
export const grantableRole = 'automation-guardrails-grantable';

/**
 * Begins the names of the Secrets that hold generated credentials: to admission, a name is all that
 * a pod says of the Secret that it references.
 */
export const secretPrefix = 'aid.';

/** Name of the Secret with the private key that signs evidence, in the operator's own namespace. */
export const signingKeySecret = 'automation-guardrails-evidence-key';

/**
 * Name of the Secret of a generated credential. Its parts have no dots, so that no two credentials
 * share one, and whose it is can be read from it.
 */
export function secretNameOf(identity: string, credential: string): string {
  return `${secretPrefix}${identity}.${credential}`;
}

/** Entry of a DaemonSet's nodeSelector that no node has: with it, none of its pods starts. */
export const stoppedSelector = `${GROUP}/stopped`;

/** Scheduling gate of a pod that waits for approval; the operator alone takes it away. */
export const approvalGate = `${GROUP}/approval`;

export const annotation = {
  /**
   * On a Workflow or AutomationIdentity: the authenticated user who last changed its spec, stamped
   * by admission.
   */
  changedBy: `${GROUP}/changed-by`,
  /**
   * Beside it: the groups of that user, one a line, stamped by admission; empty where they are too
   * many to be kept.
   */
  changedByGroups: `${GROUP}/changed-by-groups`,
  /**
   * On a Job of a CronJob, and on what the CronJob makes Jobs from: the authenticated user who last
   * said when, stamped by admission where each run is approved by itself.
   */
  scheduledBy: `${GROUP}/scheduled-by`,
  /** On a Workflow or AutomationIdentity: the namespace that it was promoted from; asserted. */
  promotedFrom: `${GROUP}/promoted-from`,
  /** On a Workflow, AutomationIdentity or Namespace: engages; the value is the reason. */
  killSwitch: `${GROUP}/kill-switch`,
  /** The authenticated user who engaged, stamped by admission together with the annotation. */
  killSwitchEngagedBy: `${GROUP}/kill-switch-engaged-by`,
  /** On a KillSwitch: asks for release; the value is the reason. */
  release: `${GROUP}/release`,
  /** On a KillSwitch: the authenticated user who asked for release, stamped by admission. */
  releasedBy: `${GROUP}/released-by`,
  /**
   * On a KillSwitch that is being released: without a second person, or without an operator; on
   * what carries the kill-switch annotation: to take that away before it is latched. The value is
   * the reason.
   */
  breakGlass: `${GROUP}/break-glass`,
  /** On a KillSwitch, in dry-run requests only: asks the fence whether it is in force. */
  probe: `${GROUP}/probe`,
  /**
   * On a KillSwitch: what others had on the ServiceAccounts that it deleted, and release puts back;
   * on the mark of an identity whose access was revoked, the same. JSON, written by the operator
   * alone.
   */
  restoreServiceAccount: `${GROUP}/restore-service-account`,
  /** On a paused workload: the replicas that release puts back. */
  restoreReplicas: `${GROUP}/restore-replicas`,
  /** On a paused workload: the `suspend` that release puts back. */
  restoreSuspend: `${GROUP}/restore-suspend`,
  /** On a paused DaemonSet: whether it was stopped before, which is what release puts back. */
  restoreStopped: `${GROUP}/restore-stopped`,
  /** On a paused object of another project's kind: the value that release puts back, as JSON. */
  restoreValue: `${GROUP}/restore-value`,
  /** On a Job created under the fence: it was born suspended, and release lists it instead of starting it. */
  bornSuspended: `${GROUP}/born-suspended`,
  /** On a workload: the operator's touch, a nonce; admission answers it with freeze or thaw. */
  touch: `${GROUP}/touch`,
  /** On an AutomationIdentity: rotate everything now; the value is a nonce. */
  rotate: `${GROUP}/rotate`,
  /**
   * On an AutomationIdentity: rotate everything now, and withdraw the values before at once; the
   * value is a nonce.
   */
  rotateEmergency: `${GROUP}/rotate-emergency`,
  /** On a Workflow: which limit is breached, and the numbers; written by the operator alone. */
  limitBreach: `${GROUP}/limit-breach`,
  /** On a Workflow that a limit holds: ends the hold; the value is the reason. */
  acknowledge: `${GROUP}/acknowledge`,
  /** The authenticated user who acknowledged, stamped by admission together with the annotation. */
  acknowledgedBy: `${GROUP}/acknowledged-by`,
  /**
   * On a Workflow or AutomationIdentity: a person knows of a hold. `REASON: what is done about it`;
   * the operator moves it into the status.
   */
  acknowledgeHold: `${GROUP}/acknowledge-hold`,
  /** The authenticated user who acknowledged it, stamped by admission together with the annotation. */
  holdAcknowledgedBy: `${GROUP}/hold-acknowledged-by`,
  /** On a workload: what looks like a credential in it is none; the value is why. */
  allowSecretInSpec: `${GROUP}/allow-secret-in-spec`,
  /** On a Job that was suspended instead of run: who rejected it, or that its time was over. */
  runRejected: `${GROUP}/run-rejected`,
  /** On a generated Secret: RFC 3339 time of the last rotation. */
  rotatedAt: `${GROUP}/rotated-at`,
  /** On a generated Secret: number of rotations so far, from 0. */
  rotation: `${GROUP}/rotation`,
  /** On a generated Secret: RFC 3339 time at which `previous.*` is withdrawn. */
  previousExpiresAt: `${GROUP}/previous-expires-at`,
  /** On a generated Secret: the `rotate` nonce that this value answers. */
  handledRotation: `${GROUP}/handled-rotation`,
  /** On a generated Secret: the `rotate-emergency` nonce that this value answers. */
  handledEmergency: `${GROUP}/handled-emergency`,
  /** On a generated Secret: digest of the owner for whom this value was made. */
  ownerDigest: `${GROUP}/owner-digest`,
  /**
   * On a generated Secret whose rotation has a hook: how far the value under `next.*` has come.
   * JSON, written by the operator alone.
   */
  pendingRotation: `${GROUP}/pending-rotation`,
  /** On a Job of a hook: its step, `Set` or `Test`; by it, it is known to be one. */
  rotationHook: `${GROUP}/rotation-hook`,
  /** On a generated Secret: the rotation whose consumers were all restarted. */
  consumersRestarted: `${GROUP}/consumers-restarted`,
  /**
   * On a NetworkPolicy of ours: the rules of named peers as they were last known, JSON; what stands
   * by them stays while they can't be looked up.
   */
  namedPeers: `${GROUP}/named-peers`,
  /**
   * On a NetworkPolicy of ours: digests of rules that end, by RFC 3339 time, JSON. They are withdrawn
   * then, also where the Workflow that said so is gone.
   */
  egressExpiries: `${GROUP}/egress-expiries`,
  /**
   * On an object of ours that no garbage collector is to take: UID of the Workflow that it was made
   * for. Policies outlive it, as long as pods run that they hold back.
   */
  ownerUid: `${GROUP}/owner-uid`,
  /** On an EvidenceSegment: hash of its last record, set by whoever took a copy of it elsewhere. */
  exported: `${GROUP}/exported`,
  /** On a consumer's pod template: RFC 3339 time of the rotation that restarted it. */
  restartedAt: `${GROUP}/restarted-at`,
} as const;
