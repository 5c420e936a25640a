import { z } from 'zod';
import { durationMaxLength, durationPattern } from './duration.ts';

/** Building blocks of the kinds' schemas: fields that several kinds have, with their rules. */

/** A CEL rule that the API server evaluates, and the sentence that it answers with. */
export interface ValidationRule {
  readonly rule: string;
  /** What is wrong and what to write instead. */
  readonly message: string;
}

/** Metadata of a zod schema that becomes `x-kubernetes-validations`. */
export function rules(...validations: readonly ValidationRule[]): Record<string, unknown> {
  return { 'x-kubernetes-validations': validations };
}

const dnsLabelPattern = '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$';

const subdomain = '[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*';

/** RFC 1123 subdomain, what most objects of Kubernetes may be called. */
export const dnsSubdomainPattern = `^${subdomain}$`;

const labelKeyPattern = `^(${subdomain}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`;

/** RFC 1123 label; the message calls it `what`. */
export function dnsLabel(what: string, description: string): z.ZodString {
  return z
    .string()
    .min(1)
    .max(63)
    .meta({
      description,
      ...rules({
        rule: `self.matches('${dnsLabelPattern}')`,
        message: `${what} must be a DNS label: lower-case letters, digits and '-', beginning and ending with a letter or digit, such as 'invoice-posting'`,
      }),
    });
}

/** Rules at the root of a kind whose name becomes the name of a ServiceAccount. */
export function identityNameRules(kind: string): readonly ValidationRule[] {
  return [
    {
      rule: `self.metadata.name.size() <= 63 && self.metadata.name.matches('${dnsLabelPattern}')`,
      message: `the name of ${kind} must be a DNS label of at most 63 characters (lower-case letters, digits and '-'), since it becomes the name of a ServiceAccount and the value of labels; choose a shorter or simpler name`,
    },
    {
      rule: "!(self.metadata.name in ['default', 'namespace'])",
      message: `${kind} can't be called 'default' or 'namespace': every pod without a ServiceAccount of its own runs as 'default', and 'namespace' is reserved; choose the automation's own name`,
    },
  ];
}

/** One sentence for people, which must say something. */
export function sentence(what: string, description: string): z.ZodString {
  return z
    .string()
    .max(1024)
    .meta({
      description,
      ...rules({
        rule: "self.matches('[^[:space:]]')",
        message: `${what} must not be blank; write one sentence for whoever reads it in an incident`,
      }),
    });
}

/** A Go-style duration of at least one second. */
export function duration(what: string, description: string): z.ZodString {
  return z
    .string()
    .max(durationMaxLength)
    .meta({
      description,
      ...rules({
        rule: `self.matches('${durationPattern}') && duration(self) >= duration('1s')`,
        message: `${what} must be a duration of at least one second, in hours, minutes and seconds, such as '24h', '1h30m' or '90s'; there is no unit for days`,
      }),
    });
}

/** An IPv4 or IPv6 network. */
export function cidr(what: string, description: string): z.ZodString {
  return z
    .string()
    .max(43)
    .meta({
      description,
      ...rules(
        {
          rule: 'isCIDR(self)',
          message: `${what} must be an IPv4 or IPv6 network in CIDR notation, such as '203.0.113.10/32', '10.20.0.0/16' or '2001:db8::/32'`,
        },
        {
          rule: '!isCIDR(self) || cidr(self) == cidr(self).masked()',
          message: `${what} has address bits beyond its prefix length; write the network's own address ('10.0.0.0/8', not '10.0.0.1/8'), or '/32' or '/128' for a single address`,
        },
      ),
    });
}

/** A selector by labels, which must name at least one: the empty one would select everything. */
export function labelSelector(description: string) {
  return z
    .object({
      matchLabels: z.record(z.string(), z.string().max(63)).meta({
        description: 'Labels that must all be there, with these values.',
        maxProperties: 16,
        ...rules(
          {
            rule: 'self.size() > 0',
            message:
              'matchLabels must name at least one label; an empty selector would select everything',
          },
          {
            rule: `self.all(key, key.size() <= 317 && key.indexOf('/') <= 253 && key.matches('${labelKeyPattern}'))`,
            message:
              "the keys of matchLabels must be label keys, such as 'app' or 'app.kubernetes.io/name'",
          },
          {
            rule: `self.all(key, self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))`,
            message:
              "the values of matchLabels must be label values: letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
          },
        ),
      }),
    })
    .meta({ description, 'x-kubernetes-map-type': 'atomic' });
}

/** Hexadecimal SHA-256. */
export function sha256(description: string): z.ZodString {
  return z.string().max(64).meta({ description });
}

/** RFC 3339, as the API server writes `metav1.Time`. */
export function time(description: string): z.ZodString {
  return z.string().meta({ description, format: 'date-time' });
}

/** A number of things, from 0. */
export function count(description: string): z.ZodInt {
  return z.int().min(0).max(2_147_483_647).meta({ description, format: 'int32' });
}

/** `status.conditions`, as in the Kubernetes API conventions. */
export const conditionsSchema = z
  .array(
    z
      .object({
        type: z
          .string()
          .min(1)
          .max(64)
          .meta({ description: 'Type of the condition, in CamelCase.' }),
        status: z
          .enum(['True', 'False', 'Unknown'])
          .meta({ description: 'Whether the condition holds.' }),
        reason: z.string().min(1).max(256).meta({
          description:
            'Why, in one CamelCase word that is stable and documented in docs/reference/conditions.md.',
        }),
        message: z.string().max(32_768).meta({ description: 'Why, for people.' }),
        lastTransitionTime: time('When `status` last changed.'),
        observedGeneration: generation('`metadata.generation` that the condition speaks of.'),
      })
      .meta({ description: 'One aspect of the current state.' }),
  )
  .max(16)
  .meta({
    description: 'Current state, one condition an aspect.',
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['type'],
  });

/** An optional generation in a status. */
export function generation(description: string) {
  return z.int().min(0).meta({ description, format: 'int64' }).exactOptional();
}
