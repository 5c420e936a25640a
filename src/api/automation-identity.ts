import { z } from 'zod';
import { decision, digest } from './access-review.ts';
import {
  conditionsSchema,
  dnsLabel,
  dnsSubdomainPattern,
  duration,
  generation,
  rules,
  sentence,
  time,
  type ValidationRule,
} from './fields.ts';
import { durationPattern } from './duration.ts';
import { GROUP, secretPrefix } from './names.ts';
import { holdsSchema } from './holds.ts';
import type { KubeObject } from './objects.ts';
import { ownerSchema } from './owner.ts';
import { rotationHook } from './rotation-hook.ts';
import { scheduleMaxLength, schedulePattern } from './schedule.ts';
import { markedTokenLength, tokenMarks } from './token-marks.ts';

/**
 * Subresources by which whoever holds them acts in the place of others: runs commands in their
 * pods, reaches their ports, or mints their tokens.
 */
export const refusedResources: readonly string[] = [
  'nodes/proxy',
  'pods/attach',
  'pods/ephemeralcontainers',
  'pods/exec',
  'pods/portforward',
  'pods/proxy',
  'serviceaccounts/token',
  'services/proxy',
];

/** Groups whose objects are the guardrails themselves: an automation may read them, never write. */
export const readOnlyGroups: readonly string[] = [
  'rbac.authorization.k8s.io',
  'admissionregistration.k8s.io',
  GROUP,
];

/**
 * Single resources that are guardrails, by group: the label of its Namespace guards an automation, a
 * Role can allow to write that one, and NetworkPolicies add up.
 */
export const readOnlyResources: Readonly<Record<string, readonly string[]>> = {
  '': ['namespaces', 'namespaces/status', 'namespaces/finalize'],
  'networking.k8s.io': ['networkpolicies'],
};

function list(values: readonly string[]): string {
  return `[${values.map((value) => `'${value}'`).join(', ')}]`;
}

/** Verbs that change nothing. */
export const readVerbs: readonly string[] = ['get', 'list', 'watch'];

const readsOnly = `self.verbs.all(verb, verb in ${list(readVerbs)})`;

function namesOne(group: string, resources: readonly string[]): string {
  return `(self.apiGroups.exists(group, group == '${group}') && self.resources.exists(resource, resource in ${list(resources)}))`;
}

const namesSecrets = namesOne('', ['secrets']);

const permission = z
  .object({
    apiGroups: z
      .array(
        z
          .string()
          .max(253)
          .meta({
            description: 'Name of an API group.',
            ...rules({
              rule: "!self.contains('*')",
              message:
                "apiGroups must not contain '*'; name each group that the automation needs ('' is the core group)",
            }),
          }),
      )
      .min(1)
      .max(16)
      .meta({
        description: "API groups of the resources; `''` is the core group. No `*`.",
        'x-kubernetes-list-type': 'atomic',
      }),
    resources: z
      .array(
        z
          .string()
          .min(1)
          .max(253)
          .meta({
            description: 'Plural name of a resource, or resource/subresource.',
            ...rules(
              {
                rule: "!self.contains('*')",
                message:
                  "resources must not contain '*'; name each resource that the automation needs",
              },
              {
                rule: `!(self in ${list(refusedResources)})`,
                message:
                  'an automation is not granted exec, attach, port-forward, proxy, ephemeral containers or tokens of ServiceAccounts: they let it act in the place of others; remove this resource',
              },
            ),
          }),
      )
      .min(1)
      .max(32)
      .meta({
        description: `Resources, such as \`configmaps\` or \`deployments/scale\`. No \`*\`; refused are ${refusedResources.map((name) => `\`${name}\``).join(', ')}.`,
        'x-kubernetes-list-type': 'atomic',
      }),
    resourceNames: z
      .array(
        z
          .string()
          .min(1)
          .max(253)
          .meta({
            description: 'Name of an object.',
            ...rules({
              rule: "!self.contains('*')",
              message:
                "resourceNames must not contain '*', which stands for nothing here; name each object, or leave resourceNames away",
            }),
          }),
      )
      .min(1)
      .max(64)
      .optional()
      .meta({
        description:
          'Restricts the permission to the objects of these names. Needed for Secrets, except with `create`.',
        'x-kubernetes-list-type': 'atomic',
      }),
    verbs: z
      .array(
        z
          .string()
          .min(1)
          .max(63)
          .meta({
            description: 'A verb.',
            ...rules(
              {
                rule: "!self.contains('*')",
                message:
                  "verbs must not contain '*'; name each verb that the automation needs, such as 'get' or 'list'",
              },
              {
                rule: "!(self in ['escalate', 'bind']) && !self.startsWith('impersonate')",
                message:
                  "an automation is not granted 'escalate', 'bind' or 'impersonate': they lift every other limit; remove this verb",
              },
              {
                rule: "self.contains('*') || self.matches('^[a-z][-a-z:]*$')",
                message: "verbs are written in lower case, such as 'get' or 'list'",
              },
            ),
          }),
      )
      .min(1)
      .max(16)
      .meta({
        description:
          'Verbs, such as `get` or `list`. No `*`; refused are `escalate`, `bind` and `impersonate`.',
        'x-kubernetes-list-type': 'atomic',
      }),
    reason: sentence('reason', 'Why the automation needs this permission.'),
  })
  .meta({
    description: 'One rule of the Role.',
    ...rules(
      {
        rule: `!self.apiGroups.exists(group, group in ${list(readOnlyGroups)}) || ${readsOnly}`,
        message: `an automation may only get, list and watch objects of RBAC, of admission and of ${GROUP}: whoever writes them lifts the guardrails; remove the other verbs`,
      },
      {
        rule: `!(${Object.entries(readOnlyResources)
          .map(([group, resources]) => namesOne(group, resources))
          .join(' || ')}) || ${readsOnly}`,
        message:
          'an automation may only get, list and watch namespaces and networkpolicies: by the label of its Namespace it is guarded, and a NetworkPolicy of its own would add to what it may reach; remove the other verbs, and declare destinations in spec.egress of the Workflow',
      },
      {
        rule: `!(${namesSecrets}) || self.verbs.all(verb, !(verb in ['list', 'watch', 'deletecollection']))`,
        message:
          "an automation is not granted 'list', 'watch' or 'deletecollection' of secrets: each answers with the values of all of them; ask for 'get' with resourceNames",
      },
      {
        rule: `!(${namesSecrets}) || has(self.resourceNames) || self.verbs.all(verb, verb in ['create', 'list', 'watch', 'deletecollection'])`,
        message:
          'secrets need resourceNames, also to update, patch or delete them, since the answer holds the value: name each Secret that the automation needs',
      },
    ),
  });

/** Workloads that a rotation restarts at a time, where the spec doesn't say. */
export const defaultConcurrentRestarts = 3;

const rotation = z
  .object({
    every: duration(
      'every',
      'Longest time from one rotation to the next, a Go-style duration such as `24h`. To spread the rotations of many identities, it is shorter by up to a tenth, half an hour at most: by how much, depends on the UID of the identity. Exactly one of `every` and `schedule`.',
    ).optional(),
    schedule: z
      .string()
      .max(scheduleMaxLength)
      .optional()
      .meta({
        description:
          'Times of rotation, a cron expression of five fields: minute, hour, day of month, month, day of week. A time that clocks skip comes when they have gone on, one that they repeat comes once. To spread the rotations of many identities, one comes later by up to a tenth of the time to the next, half an hour at most. Exactly one of `every` and `schedule`.',
        ...rules({
          rule: `self.matches('${schedulePattern}')`,
          message:
            "schedule must be a cron expression of five fields (minute, hour, day of month, month, day of week), such as '0 3 * * SUN' or '*/30 * * * *'",
        }),
      }),
    timeZone: z
      .string()
      .max(64)
      .optional()
      .meta({
        description:
          'Time zone of `schedule`, a name of the IANA database such as `Europe/Berlin`; UTC if absent. Where it is unknown, the identity is not Ready (`RotationUnreadable`), and nothing is rotated by the schedule.',
        ...rules({
          rule: "self.matches('^[A-Za-z]+([_+/-]+[A-Za-z0-9]+)*$')",
          message:
            "timeZone must be a name of the IANA database, such as 'Europe/Berlin' or 'UTC'; leave it away for UTC",
        }),
      }),
    overlap: duration(
      'overlap',
      'Time after a rotation for which the value before stays readable under the keys `previous.*`. It is longer where a pod that is still running may hold the value before. Shorter than `every`, or than the time between two occurrences of `schedule`. Without it, there is no overlap.',
    ).optional(),
    restartConsumers: z.boolean().optional().meta({
      description:
        'Whether a rotation restarts the Deployments, StatefulSets and DaemonSets whose pods reference the Secret. False if absent.',
    }),
    maxConcurrentRestarts: z
      .int32()
      .min(1)
      .max(100)
      .optional()
      .meta({
        description: `How many of them restart at a time: the next ones follow when those have all their pods available again. ${defaultConcurrentRestarts} if absent.`,
      }),
    refresh: z
      .array(
        z
          .object({
            kind: z
              .enum(['ExternalSecret', 'PushSecret'])
              .meta({ description: 'Kind of the External Secrets Operator.' }),
            name: z
              .string()
              .min(1)
              .max(253)
              .meta({
                description: 'Name of the object, in the same namespace.',
                ...rules({
                  rule: `self.matches('${dnsSubdomainPattern}')`,
                  message:
                    "refresh[].name must be the name of an ExternalSecret or a PushSecret: lower-case letters, digits, '-' and '.'",
                }),
              }),
          })
          .meta({ description: 'An object that is told of each new value by an annotation.' }),
      )
      .max(8)
      .optional()
      .meta({
        description:
          'ExternalSecrets and PushSecrets that read this value, from its Secret or from the vault. They get an annotation with each new value, by which the External Secrets Operator refreshes them at once.',
        'x-kubernetes-list-type': 'atomic',
      }),
    hook: rotationHook.optional().meta({
      ...rotationHook.meta(),
      description:
        'Jobs that make a rotation real in the system that the credential opens: `set` tells it of the new value, `test` finds out whether that works. Only then is it published; where either fails, the value before stays. It runs for the first value too.',
    }),
  })
  .meta({
    description: 'When a new value is generated.',
    ...rules(
      {
        rule: 'has(self.every) != has(self.schedule)',
        message: 'a rotation needs either every or schedule: write exactly one of the two',
      },
      {
        rule: '!has(self.maxConcurrentRestarts) || (has(self.restartConsumers) && self.restartConsumers)',
        message:
          'maxConcurrentRestarts bounds what restartConsumers does, which is not asked for: set restartConsumers: true, or remove maxConcurrentRestarts',
      },
      {
        rule: '!has(self.timeZone) || has(self.schedule)',
        message: 'timeZone says how to read schedule, and there is none: remove timeZone',
      },
      {
        rule: `!has(self.every) || !has(self.overlap) || !self.every.matches('${durationPattern}') || !self.overlap.matches('${durationPattern}') || duration(self.overlap) < duration(self.every)`,
        message:
          'overlap must be shorter than every, or the previous value would never be withdrawn',
      },
    ),
  });

/**
 * Characters of a generated value whose length is not given. No default of the CRD: one inside a
 * list makes every client-side diff of a manifest (kubectl, Argo CD) see a difference.
 */
export const defaultSecretLength = 32;

const atLeast = (what: string) =>
  z
    .int32()
    .min(0)
    .max(256)
    .optional()
    .meta({ description: `At least so many ${what}; 0 if absent.` });

/** Symbols of a password whose policy names none: unreserved in RFC 3986, so nothing is escaped. */
export const defaultSymbols = '-._~';

const characters = z
  .object({
    lowercase: atLeast('letters from a to z'),
    uppercase: atLeast('letters from A to Z'),
    digits: atLeast('digits'),
    symbols: atLeast('symbols'),
    symbolSet: z
      .string()
      .max(32)
      .optional()
      .meta({
        description: `The symbols that a password may have; \`${defaultSymbols}\` if absent, which need no escaping in a URL or a shell. An empty text allows none.`,
        ...rules({
          rule: "self.matches('^[!-~]*$') && !self.matches('[A-Za-z0-9]')",
          message:
            "symbolSet must consist of printable ASCII characters that are neither letters nor digits, such as '!#$%+-_'",
        }),
      }),
  })
  .meta({
    description: 'What a password is made of.',
    ...rules({
      rule: "!has(self.symbols) || self.symbols == 0 || !has(self.symbolSet) || self.symbolSet != ''",
      message: 'symbols are asked for, and symbolSet has none: name some, or leave symbolSet away',
    }),
  });

const sumOfClasses = ['lowercase', 'uppercase', 'digits', 'symbols']
  .map((name) => `(has(self.characters.${name}) ? self.characters.${name} : 0)`)
  .join(' + ');

const secret = z
  .object({
    name: dnsLabel(
      'the name of a secret',
      'Name of the secret, unique within the identity. The Secret object is called `aid.<identity>.<name>`, and only pods that run as the identity may use it.',
    ),
    type: z.enum(['Password', 'Token', 'BasicAuth', 'SSHKeyPair', 'Existing']).meta({
      description:
        'What is generated, and the keys that hold it: `Password` under `password`, `Token` under `token`, `BasicAuth` under `username` and `password`, `SSHKeyPair` (Ed25519, in the format of OpenSSH) under `ssh-privatekey` and `ssh-publickey`. `Existing` generates nothing: it watches the age of a Secret that somebody else keeps, by its metadata, and never reads or changes its values.',
    }),
    length: z
      .int32()
      .min(16)
      .max(256)
      .optional()
      .meta({
        description: `Characters of a generated password or token; ${defaultSecretLength} if absent. A token of ${markedTokenLength} or more begins with \`${tokenMarks.prod}\`, \`${tokenMarks.test}\` or \`${tokenMarks.dev}\`, by what the environment of the namespace counts as. A change takes effect with the next rotation.`,
      }),
    characters: characters.optional().meta({
      ...characters.meta(),
      description:
        'What a password is made of, for systems that ask for it. Of all passwords that fulfil it, each is as likely as any other. A change takes effect with the next rotation.',
    }),
    username: z
      .string()
      .min(1)
      .max(253)
      .optional()
      .meta({
        description:
          'The user of a `BasicAuth`, which needs it. A change of it generates a new password.',
        ...rules({
          rule: "self.matches('^[!-9;-~]([ -9;-~]*[!-9;-~])?$')",
          message:
            "username must be printable ASCII without ':', which ends it in HTTP, and without a blank at either end",
        }),
      }),
    secretName: z
      .string()
      .min(1)
      .max(253)
      .optional()
      .meta({
        description:
          'Name of the Secret that an `Existing` watches, in the same namespace. No other type has it.',
        ...rules({
          rule: `self.matches('${dnsSubdomainPattern}') && !self.startsWith('${secretPrefix}')`,
          message: `secretName must be the name of a Secret that somebody else keeps: lower-case letters, digits, '-' and '.', not beginning with '${secretPrefix}'`,
        }),
      }),
    store: z.enum(['Kubernetes', 'Vault']).optional().meta({
      description:
        "Where the value is kept. `Kubernetes`, also if absent: in its Secret alone. `Vault`: besides, each version is copied to the key-value engine of the vault that the operator was told of, at `<prefix>/<namespace>/<identity>/<name>`. The Secret stays the record of the value. No new value comes by schedule or request while the vault doesn't take the one that stands. What is there is destroyed at a kill, and when this is taken away again.",
    }),
    rotation: rotation.optional().meta({
      ...rotation.meta(),
      description:
        'When a new value is generated. Besides, it is at once when the annotation `automationguardrails.dev/rotate` gets another value, and when the team or the contact of `owner` changes. The annotation `automationguardrails.dev/rotate-emergency` does the same and withdraws the previous value at once, whatever `overlap` says. Of an `Existing` only `every`: the age at which the identity reports `RotationOverdue`.',
    }),
  })
  .meta({
    description: 'A credential that the operator generates and rotates, or watches.',
    ...rules(
      {
        rule: "has(self.secretName) == (self.type == 'Existing')",
        message:
          'a secret of the type Existing needs secretName, and no other has one: add it, remove it, or change the type',
      },
      {
        rule: "self.type != 'Existing' || !has(self.rotation) || (has(self.rotation.every) && !has(self.rotation.overlap) && !has(self.rotation.restartConsumers) && !has(self.rotation.hook) && !has(self.rotation.refresh))",
        message:
          "the rotation of an Existing secret is somebody else's: of it, only every can be said, the age at which it is overdue",
      },
      {
        rule: "!has(self.store) || self.store == 'Kubernetes' || self.type != 'Existing'",
        message:
          'an Existing secret is watched, and its value never read: it cannot be copied to a vault; remove store',
      },
      {
        rule: "has(self.username) == (self.type == 'BasicAuth')",
        message:
          'a secret of the type BasicAuth needs username, and no other has one: add it, remove it, or change the type',
      },
      {
        rule: "!has(self.characters) || self.type in ['Password', 'BasicAuth']",
        message: 'characters belong to the types Password and BasicAuth: remove them',
      },
      {
        rule: "!has(self.length) || !(self.type in ['SSHKeyPair', 'Existing'])",
        message: 'length belongs to the types Password, Token and BasicAuth: remove it',
      },
      {
        rule: `!has(self.characters) || ${sumOfClasses} <= (has(self.length) ? self.length : ${defaultSecretLength})`,
        message: `characters ask for more than length, which is ${defaultSecretLength} if absent: ask for fewer, or for a longer password`,
      },
    ),
  });

/** Seconds for which a token lives whose `expirationSeconds` is absent, and the most that it may. */
export const maxTokenSeconds = 3_600;

/** Seconds; the API server takes no less (`authentication.k8s.io` TokenRequest). */
const minTokenSeconds = 600;

const outsideToken = z
  .object({
    name: dnsLabel(
      'the name of a token',
      'Name of the token, unique within the identity, also among `secrets`. The Secret object is called `aid.<identity>.<name>`; it has the keys `token`, `audience` and `expirationTimestamp`.',
    ),
    audience: z
      .string()
      .min(1)
      .max(256)
      .meta({
        description:
          'Whom the token is for: the one audience that a reader of the token has to ask for. Not one of the API server itself, unless `allowKubernetesAPI` is true.',
        ...rules({
          rule: "self.matches('^[!-~]+$')",
          message:
            "audience must be one word of visible ASCII characters, as the reader of the token expects it, such as 'https://vault.example.com'",
        }),
      }),
    expirationSeconds: z
      .int32()
      .min(minTokenSeconds)
      .max(maxTokenSeconds)
      .optional()
      .meta({
        description: `Seconds for which each token lives, ${minTokenSeconds} to ${maxTokenSeconds}; ${maxTokenSeconds} if absent. It is renewed after 80 % of the life that the API server gave it. A change shows at the next renewal.`,
      }),
    allowKubernetesAPI: z.boolean().optional().meta({
      description:
        "Whether the token may be one that this cluster's API server accepts itself: whoever reads it can then do through the Kubernetes API what the identity may. False if absent.",
    }),
  })
  .meta({
    description:
      'A short-lived ServiceAccount token for a reader outside of pods, bound to the Secret that holds it.',
  });

const accessReview = z
  .object({
    every: duration(
      'every',
      'Longest time from one review to the next, a Go-style duration in hours such as `2160h` for a quarter. The first one is due so long after the identity was created.',
    ),
    onOverdue: z.enum(['Warn', 'Hold']).optional().meta({
      description:
        'What comes of an overdue review. `Warn`, also if absent: the condition `ReviewOverdue`, an event and a metric. `Hold`: besides, nothing new is granted until it is done, as with anything else that is missing.',
    }),
    gracePeriod: duration(
      'gracePeriod',
      'Time from when a review is overdue until `onOverdue: Hold` holds, a Go-style duration such as `168h`. Without it, there is none.',
    ).optional(),
  })
  .meta({
    description: 'When somebody looks at what the identity may do.',
    ...rules({
      rule: "!has(self.gracePeriod) || (has(self.onOverdue) && self.onOverdue == 'Hold')",
      message:
        'gracePeriod says how long a hold waits, and an overdue review only warns: set onOverdue: Hold, or remove gracePeriod',
    }),
  });

export const automationIdentitySpecSchema = z
  .object({
    purpose: z.string().max(1024).optional().meta({
      description:
        'What the automation needs an identity for. While it is missing, the object is Held.',
    }),
    owner: ownerSchema.optional(),
    permissions: z.array(permission).max(64).optional().meta({
      description:
        'What the automation may do in its namespace through the Kubernetes API; becomes one Role. Without any entry, nothing. It can be granted only what the installation allows at most (the ClusterRole `automation-guardrails-grantable`).',
      'x-kubernetes-list-type': 'atomic',
    }),
    secrets: z
      .array(secret)
      .max(32)
      .optional()
      .meta({
        description:
          'Credentials that the operator generates and rotates, each in a Secret of its own, or watches.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['name'],
      }),
    tokens: z
      .array(outsideToken)
      .max(16)
      .optional()
      .meta({
        description:
          'Short-lived tokens of the ServiceAccount for runners outside of pods, each in a Secret of its own, renewed before they expire. The annotation `automationguardrails.dev/rotate`, a kill, and the removal of an entry revoke all that were published in its Secret. Pods need none: they mount a projected volume.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['name'],
      }),
    accessReview: accessReview.optional().meta({
      ...accessReview.meta(),
      description:
        'When somebody else than who changed it last looks at what the identity may do, and says so by an AccessReview (`kubectl guardrails review`). A review is void, and the next one due at once, when that changes.',
    }),
  })
  .meta({
    description: 'Who the automation is, and what it may do.',
    ...rules({
      rule: '!has(self.tokens) || !has(self.secrets) || self.tokens.all(token, self.secrets.all(secret, secret.name != token.name))',
      message:
        'tokens and secrets share their names, since each becomes the Secret aid.<identity>.<name>: give the token another name',
    }),
  });

/** Rules over the whole object: what a permission may ask for depends on whose it is. */
export const automationIdentityRules: readonly ValidationRule[] = [
  {
    rule: `!has(self.spec.permissions) || self.spec.permissions.all(permission, !(permission.apiGroups.exists(group, group == '') && permission.resources.exists(resource, resource == 'secrets') && has(permission.resourceNames)) || permission.resourceNames.all(name, !name.startsWith('${secretPrefix}') || name.split('.', 3)[1] == self.metadata.name))`,
    message: `an automation is not granted the credentials of another one: a Secret ${secretPrefix}IDENTITY.NAME is for the automation of that name alone; take it out of resourceNames`,
  },
];

export type AutomationIdentitySpec = z.infer<typeof automationIdentitySpecSchema>;
export type AccessReviewSettings = z.infer<typeof accessReview>;
export type Permission = z.infer<typeof permission>;
export type OutsideToken = z.infer<typeof outsideToken>;
export type SecretEntry = z.infer<typeof secret>;
/** One whose value is the operator's. */
export type GeneratedSecret = Omit<SecretEntry, 'type'> & {
  type: Exclude<SecretEntry['type'], 'Existing'>;
};

/** Whether its value is the operator's. */
export function isGenerated(entry: SecretEntry): entry is SecretEntry & GeneratedSecret {
  return entry.type !== 'Existing';
}

/** How far a rotation has come, in their order. */
const rotationStates = ['Minted', 'Set', 'Published', 'Converging', 'Retired'] as const;

/** Those of the spec, and as many that have left it and can't be ended yet. */
export const maxSecretStatuses = 64;

const secretStatus = z
  .object({
    name: z.string().max(63).meta({ description: 'Name of the secret within the identity.' }),
    secretName: z.string().max(253).meta({ description: 'Name of the Secret object.' }),
    store: z.enum(['Vault']).exactOptional().meta({
      description:
        'Where else the value is, or may be: it is said before the first copy is made, and until the last one is destroyed.',
    }),
    state: z.enum(rotationStates).exactOptional().meta({
      description:
        'How far the last rotation has come. With a hook, `Minted`: the new value is in the Secret under `next.*`, and the step `set` of the hook is next or under way; `Set`: that is done, and the step `test` is. `Published`: the new value is in the Secret, and who reads it is being restarted. `Converging`: those restarts are done; the value before stays readable until the overlap is over and no running pod may hold it any more. `Retired`: there is no other value than the current one. Absent before the first rotation.',
    }),
    owner: z.string().max(512).exactOptional().meta({
      description:
        'Of an `Existing`: who keeps it, its controller or else the field manager that wrote its data last.',
    }),
    lastRotationTime: time(
      'When the value was last generated; of an `Existing`, when it was last changed, as far as its metadata tells.',
    ).exactOptional(),
    nextRotationTime: time(
      'When the next value is due; rotations of many identities are spread, and this one has its own time.',
    ).exactOptional(),
    previousExpirationTime: time(
      'When the overlap is over, and the previous value is withdrawn unless a running pod may still hold it; present while it is readable.',
    ).exactOptional(),
  })
  .meta({ description: 'State of one credential; never its value.' });

const tokenStatus = z
  .object({
    name: z.string().max(63).meta({ description: 'Name of the token within the identity.' }),
    secretName: z.string().max(253).meta({ description: 'Name of the Secret object.' }),
    audience: z.string().max(256).meta({ description: 'Whom the token is for.' }),
    issuedAt: time(
      'When the published token was issued, by the clock of the API server.',
    ).exactOptional(),
    expirationTime: time(
      'When the published token expires (its `exp`). While killed, when the one that was revoked would have.',
    ).exactOptional(),
    renewTime: time('When a new one takes its place.').exactOptional(),
  })
  .meta({ description: 'State of one token; never the token itself.' });

const accessReviewStatus = z
  .object({
    digest: digest(
      'digest',
      'Digest of what the ServiceAccount may do: what is declared, and what others grant beyond it. An AccessReview names it.',
    ).exactOptional(),
    review: z
      .string()
      .max(253)
      .exactOptional()
      .meta({ description: 'Name of the AccessReview that decides: the latest.' }),
    decision: decision.exactOptional().meta({ description: 'What it decided.' }),
    by: z.string().max(1024).exactOptional().meta({ description: 'Who reviewed.' }),
    lastReviewed: time('When.').exactOptional(),
    changed: time(
      'When it was first seen that it may do something else than what that review was of. It stays, also when that is over, until the next review.',
    ).exactOptional(),
    due: time('When the next review is due, or was.').exactOptional(),
  })
  .meta({ description: 'What was reviewed last, and when the next review is due.' });

export const automationIdentityStatusSchema = z
  .object({
    observedGeneration: generation('`metadata.generation` that the status speaks of.'),
    conditions: conditionsSchema.exactOptional().meta({
      ...conditionsSchema.meta(),
      description:
        '`Ready`; `Held`, whose message lists what is missing; `ExcessPermissions`, whose message names the bindings that give more than is declared; `RotationOverdue` while a credential is; `ReviewOverdue` where reviews are asked for; `PolicyViolation` where the GuardrailPolicy sets ceilings; and `RequesterAllowed`, whether who asked for it is allowed that himself.',
    }),
    holds: holdsSchema.exactOptional(),
    lastHandledRotation: z.string().max(1024).exactOptional().meta({
      description:
        'Value of the annotation `automationguardrails.dev/rotate` that was last carried out.',
    }),
    lastHandledEmergencyRotation: z.string().max(1024).exactOptional().meta({
      description:
        'Value of the annotation `automationguardrails.dev/rotate-emergency` that was last carried out.',
    }),
    secrets: z
      .array(secretStatus)
      .max(maxSecretStatuses)
      .exactOptional()
      .meta({
        description: 'State of the credentials.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['name'],
      }),
    tokens: z
      .array(tokenStatus)
      .max(16)
      .exactOptional()
      .meta({
        description: 'State of the tokens for runners outside of pods.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['name'],
      }),
    accessReview: accessReviewStatus.exactOptional(),
    requester: z.string().max(64).exactOptional().meta({
      description:
        'Digest of what was asked about who changed the spec: his name, his groups and the rights. The same is not asked again.',
    }),
  })
  .meta({ description: 'What the operator found and did. Written by the operator.' });

export type SecretStatus = z.infer<typeof secretStatus>;
export type AccessReviewStatus = z.infer<typeof accessReviewStatus>;
export type TokenStatus = z.infer<typeof tokenStatus>;
export type AutomationIdentityStatus = z.infer<typeof automationIdentityStatusSchema>;

/** Who an automation is: its ServiceAccount, permissions and generated credentials. */
export interface AutomationIdentity extends KubeObject {
  spec: AutomationIdentitySpec;
  status?: AutomationIdentityStatus;
}
