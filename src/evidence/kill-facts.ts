import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import { digestOf } from '../api/digest.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { annotation, label } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import {
  unknown,
  incidentOf,
  referenceTo,
  draftOf,
  conditionFact,
  type Place,
  type Words,
} from './drafts.ts';
import type { Fact, Observation } from './observation.ts';
import type { RecordDraft } from './record.ts';

/** Rungs of the ladder, and what is told of them. */
const rungs: Readonly<Record<string, Words>> = {
  Fenced: { on: 'KillFenced', off: 'KillFencedLost' },
  Paused: { on: 'KillPaused', off: 'KillPausedLost' },
  PermissionsRevoked: { on: 'KillPermissionsRevoked', off: 'KillPermissionsRevokedLost' },
  PodsGone: { on: 'KillPodsGone', off: 'KillPodsGoneLost' },
  SecretsWithdrawn: { on: 'KillSecretsWithdrawn', off: 'KillSecretsWithdrawnLost' },
  IdentityRevoked: { on: 'KillIdentityRevoked', off: 'KillIdentityRevokedLost' },
  TokensRevoked: { on: 'KillTokensRevoked', off: 'KillTokensRevokedLost' },
  EgressClosed: { on: 'KillEgressClosed', off: 'KillEgressClosedLost' },
  Effective: { on: 'KillEffective', off: 'KillEffectiveLost' },
  Contested: { on: 'KillContested', off: 'KillContestedLost' },
};

/** What stands of one kill, from the request to the release. */
export function killFacts(killSwitch: KillSwitch | ClusterKillSwitch, where: Place): Observation {
  const { metadata, spec, status } = killSwitch;
  const isOfCluster = metadata.namespace === undefined;
  const { annotations = {}, labels = {}, creationTimestamp } = metadata;
  const place = { ...where, incident: incidentOf(killSwitch) };
  const of = isOfCluster ? resources.clusterKillSwitches : resources.killSwitches;
  const objects = [referenceTo(of, killSwitch)];
  const subject = (name: string): string => `${killScope(killSwitch)}${name}/`;
  const { engagedBy } = spec;
  const facts: Fact[] = [
    {
      subject: subject('engaged'),
      state: engagedBy?.slice(0, 120) ?? 'unknown',
      draft: () =>
        draftOf(place, {
          action: 'KillEngaged',
          // What was done of it, the rungs say.
          outcome: 'Intended',
          actor: engagedBy === undefined ? unknown : { name: engagedBy, basis: 'authenticated' },
          message: spec.reason,
          objects,
          details: { scope: scopeOf(spec) },
          ...(creationTimestamp !== undefined && { happened: creationTimestamp }),
        }),
    },
  ];
  for (const condition of status?.conditions ?? []) {
    const words = rungs[condition.type];
    if (words === undefined) continue;
    facts.push(conditionFact(subject(condition.type), condition, words, place, { objects }));
  }
  const asked = annotations[annotation.release];
  const askedBy = annotations[annotation.releasedBy];
  facts.push({
    subject: subject('release'),
    state:
      asked === undefined ? '-' : `${digestOf(asked).slice(0, 8)} ${askedBy ?? ''}`.slice(0, 120),
    draft: (before) =>
      asked === undefined && before === undefined
        ? undefined
        : draftOf(place, {
            action: asked === undefined ? 'ReleaseWithdrawn' : 'ReleaseRequested',
            outcome: asked === undefined ? 'Succeeded' : 'Intended',
            actor: askedBy === undefined ? unknown : { name: askedBy, basis: 'authenticated' },
            objects,
            ...(asked !== undefined && { message: asked }),
          }),
  });
  const broken = annotations[annotation.breakGlass];
  if (broken !== undefined) {
    facts.push({
      subject: subject('break-glass'),
      state: digestOf(broken),
      draft: () =>
        draftOf(place, {
          action: 'GlassBroken',
          actor: { name: askedBy ?? 'unknown', basis: 'authenticated' },
          message: broken,
          objects,
        }),
    });
  }
  if (labels[label.releasing] !== undefined) {
    facts.push({
      subject: subject('lifted'),
      state: 'lifted',
      draft: () => draftOf(place, { action: 'KillLifted', objects }),
    });
  }
  return { facts };
}

function scopeOf(spec: KillSwitch['spec'] | ClusterKillSwitch['spec']): string {
  if ('reason' in spec && 'workflow' in spec) return spec.workflow ?? 'the whole namespace';
  if ('wholeNamespace' in spec) return 'the whole namespace';
  const { reason: _, engagedBy: __, ...selected } = spec;
  return JSON.stringify(selected);
}

const killsScope = 'kill/';

function killScope({ metadata }: KubeObject): string {
  return `${killsScope}${metadata.uid ?? ''}/`;
}

/**
 * All kills that stand for a chain: those that the chain knows and that aren't among them are over.
 *
 * @param standing of a Workflow's chain at most one, since it has the chain's name
 */
export function killsFacts(
  standing: readonly (KillSwitch | ClusterKillSwitch)[],
  place: Place,
): Observation {
  return {
    scope: killsScope,
    facts: standing.flatMap((one) => killFacts(one, place).facts),
    gone: (subject, state) => released(subject, state, place),
  };
}

/** One kill that is over. */
export function killGone(killSwitch: KillSwitch | ClusterKillSwitch, place: Place): Observation {
  return {
    scope: killScope(killSwitch),
    facts: [],
    gone: (subject, state) => released(subject, state, place),
  };
}

function released(
  subject: string,
  state: ReadonlyMap<string, string>,
  place: Place,
): RecordDraft | undefined {
  const [, uid = '', name] = subject.split('/');
  if (name !== 'engaged') return undefined;
  const asked = state.get(`${killsScope}${uid}/release/`)?.split(' ').slice(1).join(' ');
  const isReleased = state.has(`${killsScope}${uid}/lifted/`);
  return draftOf(
    { ...place, incident: uid.slice(0, 8) },
    {
      action: isReleased ? 'KillReleased' : 'KillGone',
      outcome: isReleased ? 'Succeeded' : 'Observed',
      details: { engagedBy: state.get(subject) ?? '', releasedBy: asked ?? '' },
      message: isReleased
        ? 'Everything is restored, and the KillSwitch is gone.'
        : 'The KillSwitch is gone without a release that was seen: with its namespace, or by force.',
    },
  );
}
