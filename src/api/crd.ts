import { z } from 'zod';
import { kinds, type KindDefinition, type PrinterColumn } from './kinds.ts';
import type { KubeObject } from './objects.ts';

/** A node of an OpenAPI v3 schema, as CustomResourceDefinitions take it ("structural"). */
export interface StructuralSchema {
  description?: string;
  type?: 'object' | 'array' | 'string' | 'integer' | 'boolean';
  format?: string;
  enum?: unknown[];
  default?: unknown;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  maxProperties?: number;
  items?: StructuralSchema;
  additionalProperties?: StructuralSchema;
  properties?: Record<string, StructuralSchema>;
  required?: string[];
  'x-kubernetes-list-type'?: string;
  'x-kubernetes-list-map-keys'?: string[];
  'x-kubernetes-map-type'?: string;
  'x-kubernetes-validations'?: { rule: string; message: string }[];
}

/** Also the order in which they are written. */
const keywords = [
  'description',
  'type',
  'format',
  'enum',
  'default',
  'minimum',
  'maximum',
  'minLength',
  'maxLength',
  'minItems',
  'maxItems',
  'maxProperties',
  'items',
  'additionalProperties',
  'properties',
  'required',
  'x-kubernetes-list-type',
  'x-kubernetes-list-map-keys',
  'x-kubernetes-map-type',
  'x-kubernetes-validations',
] as const satisfies readonly (keyof StructuralSchema)[];

const known: ReadonlySet<string> = new Set(keywords);

/** A schema of ours can't be written as a structural schema of bounded cost, or explained. */
export class SchemaError extends Error {
  readonly code = 'NOT_STRUCTURAL';
  override readonly name = 'SchemaError';
}

/**
 * The structural schema of a zod schema, as the API server sees input before it sets defaults.
 *
 * @throws SchemaError for what a CustomResourceDefinition can't have (unions, intersections), and
 * for a string, list or map without an upper bound, since the API server bounds the cost of rules
 * by them, or a field without a description
 */
export function structuralSchema(schema: z.ZodType): StructuralSchema {
  return structural(z.toJSONSchema(schema, { target: 'openapi-3.0', io: 'input' }), '');
}

function structural(node: object, path: string): StructuralSchema {
  const unknown = Object.keys(node).filter((key) => !known.has(key));
  if (unknown.length > 0) throw new SchemaError(`${path || 'the root'} has ${unknown.join(', ')}`);
  const { items, additionalProperties, properties, ...scalars } = node as StructuralSchema;
  const schema: StructuralSchema = {
    ...(scalars.type === 'integer' ? integer(scalars) : scalars),
    ...(items !== undefined && { items: structural(items, `${path}[]`) }),
    ...(additionalProperties !== undefined && {
      additionalProperties: structural(additionalProperties, `${path}{}`),
    }),
    ...(properties !== undefined && {
      properties: Object.fromEntries(
        Object.entries(properties).map(([key, value]) => [
          key,
          structural(value, `${path}.${key}`),
        ]),
      ),
    }),
  };
  requireBounds(schema, path);
  return Object.fromEntries(
    keywords.flatMap((key) => (schema[key] === undefined ? [] : [[key, schema[key]]])),
  );
}

/** The upper bound of int32 and more is what the format says anyway. */
function integer({ maximum, format = 'int32', ...rest }: StructuralSchema): StructuralSchema {
  const isBound = maximum !== undefined && maximum < 2 ** 31 - 1;
  return { ...rest, format, ...(isBound && { maximum }) };
}

function requireBounds(schema: StructuralSchema, path: string): void {
  const missing = (what: string): never => {
    throw new SchemaError(`${path || 'the root'} has no ${what}`);
  };
  if (schema.description === undefined && !path.endsWith('{}')) missing('description');
  if (schema.type === 'array' && schema.maxItems === undefined) missing('maxItems');
  if (schema.additionalProperties !== undefined && schema.maxProperties === undefined) {
    missing('maxProperties');
  }
  const isFree = schema.enum === undefined && schema.format !== 'date-time';
  if (schema.type === 'string' && isFree && schema.maxLength === undefined) missing('maxLength');
}

/** File name (without folder) and object of each CustomResourceDefinition. */
export function customResourceDefinitions(): { file: string; object: KubeObject }[] {
  return kinds.map((definition) => {
    const { group, plural } = definition.resource;
    return { file: `${group}_${plural}.yaml`, object: customResourceDefinition(definition) };
  });
}

function customResourceDefinition(definition: KindDefinition): KubeObject {
  const { group, version, kind, plural, namespaced } = definition.resource;
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      labels: { 'app.kubernetes.io/name': 'automation-guardrails' },
    },
    spec: {
      group,
      scope: namespaced ? 'Namespaced' : 'Cluster',
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: singularOf(plural),
        shortNames: [definition.shortName],
        categories: ['guardrails'],
      },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          ...(definition.status !== undefined && { subresources: { status: {} } }),
          additionalPrinterColumns: definition.columns.map(printerColumn),
          schema: {
            openAPIV3Schema: {
              description: definition.description,
              type: 'object',
              properties: {
                apiVersion: { type: 'string' },
                kind: { type: 'string' },
                metadata: { type: 'object' },
                spec: structuralSchema(definition.spec),
                ...(definition.status !== undefined && {
                  status: structuralSchema(definition.status),
                }),
              },
              required: ['spec'],
              'x-kubernetes-validations': definition.rules,
            },
          },
        },
      ],
    },
  } as KubeObject;
}

function printerColumn({ name, type, jsonPath, description, priority = 0 }: PrinterColumn): object {
  return { name, type, jsonPath, description, ...(priority > 0 && { priority }) };
}

/** The singular is a name in `kubectl`: that of the plural, not of the kind, so that it can't meet another `workflow`. */
function singularOf(plural: string): string {
  if (plural.endsWith('ies')) return `${plural.slice(0, -3)}y`;
  return plural.endsWith('ches') ? plural.slice(0, -2) : plural.slice(0, -1);
}
