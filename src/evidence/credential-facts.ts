import type { AutomationIdentity } from '../api/automation-identity.ts';
import { digestOf } from '../api/digest.ts';
import { annotation } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import { draftOf, operator, referenceTo, type Place } from './drafts.ts';
import type { Action } from './actions.ts';
import type { Fact, Observation } from './observation.ts';
import type { Actor, RecordDraft } from './record.ts';

const overlapScope = 'overlap/';

/** Credentials and tokens, by their times; never their values. */
export function credentialFacts(identity: AutomationIdentity, place: Place): Observation[] {
  const { automationIdentities } = resources;
  const objects = [referenceTo(automationIdentities, identity)];
  const { secrets = [], tokens = [] } = identity.status ?? {};
  const ofSecrets = secrets.flatMap(({ name, secretName, owner, lastRotationTime }): Fact[] => {
    if (lastRotationTime === undefined) return [];
    const actor: Actor = owner === undefined ? operator : { name: owner, basis: 'asserted' };
    return [
      {
        subject: `secret/${name}/`,
        state: lastRotationTime,
        draft: (before) =>
          draftOf(place, {
            action: before === undefined ? 'SecretIssued' : 'SecretRotated',
            actor,
            happened: lastRotationTime,
            objects,
            details: { secret: secretName },
          }),
      },
    ];
  });
  const ofTokens = tokens.flatMap(
    ({ name, secretName, audience, issuedAt, expirationTime = '' }): Fact[] => {
      if (issuedAt === undefined) return [];
      return [
        {
          subject: `token/${name}/`,
          state: issuedAt,
          draft: (before) =>
            draftOf(place, {
              action: before === undefined ? 'TokenIssued' : 'TokenRenewed',
              happened: issuedAt,
              objects,
              details: { secret: secretName, audience, expires: expirationTime },
            }),
        },
      ];
    },
  );
  const overlaps = secrets.flatMap(({ name, secretName, previousExpirationTime }): Fact[] => {
    if (previousExpirationTime === undefined) return [];
    return [
      {
        subject: `${overlapScope}${name}/`,
        state: previousExpirationTime,
        // What can't be undone is announced, and told once more when it is done.
        draft: () =>
          draftOf(place, {
            action: 'PreviousValueExpires',
            outcome: 'Intended',
            objects,
            details: { secret: secretName, expires: previousExpirationTime },
          }),
      },
    ];
  });
  // It stands in status before the copy is made, and until that is destroyed.
  const copies = secrets.flatMap(({ name, secretName, store }): Fact[] => {
    if (store === undefined) return [];
    return [
      {
        subject: `copy/${name}/`,
        state: store,
        draft: () =>
          draftOf(place, {
            action: 'SecretCopied',
            objects,
            details: { secret: secretName, store },
          }),
      },
    ];
  });
  const gone =
    (action: Action) =>
    (subject: string): RecordDraft =>
      draftOf(place, { action, objects, details: { name: subject.split('/')[1] ?? '' } });
  return [
    { scope: 'secret/', facts: ofSecrets, gone: gone('SecretWithdrawn') },
    { scope: overlapScope, facts: overlaps, gone: gone('PreviousValueWithdrawn') },
    { scope: 'token/', facts: ofTokens, gone: gone('TokenRevoked') },
    { scope: 'copy/', facts: copies, gone: gone('CopyWithdrawn') },
  ];
}

/** What somebody asked for by an annotation, before it is done; it stands there until the next. */
export function rotationRequests(
  identity: AutomationIdentity,
  place: Place,
  authorOf: (of: Resource, object: KubeObject, name: string) => Promise<Actor>,
): Observation {
  const { automationIdentities } = resources;
  const { annotations = {} } = identity.metadata;
  const requests: readonly { action: Action; name: string }[] = [
    { action: 'RotationRequested', name: annotation.rotate },
    { action: 'EmergencyRotationRequested', name: annotation.rotateEmergency },
  ];
  const facts = requests.flatMap(({ action, name }): Fact[] => {
    const nonce = annotations[name];
    if (nonce === undefined) return [];
    return [
      {
        subject: `requested/${action}/`,
        state: digestOf(nonce).slice(0, 16),
        draft: async () =>
          draftOf(place, {
            action,
            outcome: 'Intended',
            actor: await authorOf(automationIdentities, identity, name),
            objects: [referenceTo(automationIdentities, identity)],
          }),
      },
    ];
  });
  return { facts };
}
