/** Something that happens, and the actions of the records that tell it. */
interface EventRow {
  /** What happens, in the words of an auditor. */
  event: string;
  /** `action` of the records; CamelCase, stable. */
  actions: readonly string[];
  /** What a record of it says; Markdown. */
  says: string;
}

/**
 * Everything that is recorded. No record is written whose action isn't among these, and
 * docs/reference/evidence.md is made of it.
 */
export const events = [
  {
    event: 'Change submitted',
    actions: [
      'WorkflowCreated',
      'WorkflowChanged',
      'WorkflowDeleted',
      'AutomationIdentityCreated',
      'AutomationIdentityChanged',
      'AutomationIdentityDeleted',
    ],
    says: 'its spec by digest and generation, and who wrote it',
  },
  {
    event: 'Change or run approved, or rejected',
    actions: ['Approved', 'Rejected'],
    says: 'who decided, on which digest or which run, with the reason and the ticket',
  },
  {
    event: 'Access reviewed',
    actions: ['AccessReviewed'],
    says: 'who decided, on which digest, and why',
  },
  {
    event: 'Decision withdrawn',
    actions: ['DecisionGone'],
    says: 'somebody deleted it, or it was so old that the operator did',
  },
  {
    event: 'Access review overdue',
    actions: ['ReviewOverdue', 'ReviewCaughtUp'],
    says: 'since when, and when it was made up for',
  },
  {
    event: 'Revision activated, or rolled back',
    actions: ['RevisionActivated', 'RevisionRolledBack'],
    says: 'another [revision](../guides/revisions.md) came into force: who changed it, who approved it, and, as asserted, who asked for it',
  },
  {
    event: 'Approval gate lifted, timed out, or closed for good',
    actions: ['GateLifted', 'GateTimedOut', 'RunRejected'],
    says: 'pods that waited for approval may start; a run was not approved in time, or was rejected, and does not start',
  },
  {
    event: 'Run started',
    actions: ['RunsStarted', 'RunStarted'],
    says: 'Jobs, and pods that nothing controls: counted, with first and last; add up `count`. With `approval.per: Run` each by itself',
  },
  {
    event: 'Run succeeded',
    actions: ['RunsSucceeded', 'RunSucceeded'],
    says: 'the same of those that ended well',
  },
  {
    event: 'Runs not counted',
    actions: ['RunsDropped'],
    says: 'records could not be written for so long that starts and successes were dropped: `count` of them at most',
  },
  {
    event: 'Run failed, or timed out',
    actions: ['RunFailed', 'RunTimedOut'],
    says: 'each by itself: when it started, reason, exit codes',
  },
  {
    event: 'Automation held, or released from a hold',
    actions: ['Held', 'NoLongerHeld', 'HoldAcknowledged'],
    says: 'what it lacks; who knows of it, and what is done about it',
  },
  {
    event: 'Limit breached',
    actions: ['LimitBreached', 'LimitHoldEnded'],
    says: 'which limit, and what was counted; who ended the hold, and why',
  },
  {
    event: 'Secret found in a spec',
    actions: ['SecretInSpecFound', 'SecretInSpecGone'],
    says: 'where; never the value',
  },
  {
    event: 'Rule of the GuardrailPolicy violated',
    actions: ['PolicyViolated', 'PolicyKept'],
    says: 'which rule',
  },
  {
    event: 'Kill engaged',
    actions: ['KillEngaged'],
    says: 'who stopped it, why, and how much',
  },
  {
    event: 'Kill: a rung of the ladder reached, or lost',
    actions: [
      'KillFenced',
      'KillFencedLost',
      'KillPaused',
      'KillPausedLost',
      'KillPermissionsRevoked',
      'KillPermissionsRevokedLost',
      'KillPodsGone',
      'KillPodsGoneLost',
      'KillTokensRevoked',
      'KillTokensRevokedLost',
      'KillSecretsWithdrawn',
      'KillSecretsWithdrawnLost',
      'KillIdentityRevoked',
      'KillIdentityRevokedLost',
      'KillEgressClosed',
      'KillEgressClosedLost',
    ],
    says: 'when, and what was found',
  },
  {
    event: 'Kill verified, or contested',
    actions: ['KillEffective', 'KillEffectiveLost', 'KillContested', 'KillContestedLost'],
    says: 'nothing of it runs and nothing of it is let in; somebody works against it',
  },
  {
    event: 'Kill released',
    actions: [
      'ReleaseRequested',
      'ReleaseWithdrawn',
      'ReleaseCancelled',
      'GlassBroken',
      'KillLifted',
    ],
    says: 'who asked for it and why; when the fence was lifted',
  },
  {
    event: 'Kill over, and what it took restored',
    actions: ['KillReleased', 'KillGone', 'NotRestored', 'NotKept', 'JobsNotStarted'],
    says: 'everything is back; or what could not be restored, and which Jobs were left to people',
  },
  {
    event: 'Permissions granted, changed, or revoked',
    actions: ['PermissionsGranted', 'PermissionsChanged', 'PermissionsRevoked'],
    says: 'its Role and RoleBinding, with the rules',
  },
  {
    event: 'Excess permissions found',
    actions: ['ExcessPermissionsFound', 'ExcessPermissionsCleared'],
    says: 'rights that others gave it, and by which binding',
  },
  {
    event: 'Egress changed',
    actions: ['EgressGranted', 'EgressChanged', 'EgressRemoved'],
    says: 'its NetworkPolicies, with the destinations',
  },
  {
    event: 'Egress widened',
    actions: ['EgressWidened', 'EgressAsListed'],
    says: 'a NetworkPolicy of others lets it reach more',
  },
  {
    event: 'Secret issued, rotated, or withdrawn',
    actions: ['SecretIssued', 'SecretRotated', 'SecretWithdrawn'],
    says: 'its name and time',
  },
  {
    event: 'Rotation asked for, or overdue',
    actions: [
      'RotationRequested',
      'EmergencyRotationRequested',
      'RotationOverdue',
      'RotationCaughtUp',
    ],
    says: 'by whom; since when',
  },
  {
    event: 'Previous value kept, and withdrawn',
    actions: ['PreviousValueExpires', 'PreviousValueWithdrawn'],
    says: 'until when',
  },
  {
    event: 'Secret copied to a vault',
    actions: ['SecretCopied', 'CopyWithdrawn'],
    says: 'from before the first copy, until the last is destroyed',
  },
  {
    event: 'Token issued, renewed, or revoked',
    actions: ['TokenIssued', 'TokenRenewed', 'TokenRevoked'],
    says: 'of runners outside of pods: audience and expiry',
  },
  {
    event: 'Drift repaired',
    actions: ['DriftRepaired'],
    says: 'somebody changed a ServiceAccount, Role, RoleBinding or NetworkPolicy of the operator, and it is again as planned: what that client called itself, and digests before and after',
  },
  {
    event: 'Policy changed',
    actions: [
      'GuardrailPolicyCreated',
      'GuardrailPolicyChanged',
      'GuardrailPolicyDeleted',
      'PolicyInstalled',
      'PolicyChanged',
      'PolicyRemoved',
    ],
    says: 'the GuardrailPolicy, by whom; an admission policy or binding, by digest',
  },
  {
    event: 'Policies proven to be in force',
    actions: ['PoliciesProven', 'PoliciesCompared'],
    says: 'what the standing probe found',
  },
  {
    event: 'Operator installed, upgraded, started; leader changed',
    actions: ['OperatorInstalled', 'OperatorUpgraded', 'OperatorStarted', 'LeaderChanged'],
    says: 'version and replica',
  },
  {
    event: 'Signing key used',
    actions: ['SigningKeyUsed'],
    says: 'its fingerprint, of each new one',
  },
  {
    event: 'Chain begun, continued, shortened',
    actions: ['ChainBegun', 'SegmentBegun', 'SegmentsExpired'],
    says: 'of the chain itself',
  },
] as const satisfies readonly EventRow[];

/** What a record is called. */
export type Action = (typeof events)[number]['actions'][number];

/** Markdown: what is recorded, and what it is called. */
export function evidenceReference(): string {
  const rows = events.map(
    ({ event, actions, says }) =>
      `| ${event} | ${actions.map((action) => `\`${action}\``).join(', ')} | ${says} |`,
  );
  return `# What is recorded

Generated from the sources by \`npm run generate\`: no record has an action that isn't here. How to ask, export and verify: [the guide](../guides/evidence.md).

| What happens | \`action\` | What a record says |
|---|---|---|
${rows.join('\n')}

What concerns one automation stands in its own chain; what concerns a whole namespace in the chain \`namespace\`; policies, the operator and the kills of a ClusterKillSwitch in the chain \`operator.cluster\` of the operator's namespace.
`;
}
