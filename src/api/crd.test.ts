import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { customResourceDefinitions, SchemaError, structuralSchema } from './crd.ts';

const described = { description: 'A field.' };

describe('structuralSchema', () => {
  it('keeps bounds, defaults, enums and rules, and gives numbers a format', () => {
    const rule = { rule: 'self > 1', message: 'more' };
    const schema = z
      .object({
        port: z
          .int32()
          .min(1)
          .max(65_535)
          .meta({ ...described, 'x-kubernetes-validations': [rule] }),
        protocol: z.enum(['TCP', 'UDP']).default('TCP').meta(described),
        generation: z
          .int()
          .min(0)
          .meta({ ...described, format: 'int64' })
          .optional(),
      })
      .meta(described);

    expect(structuralSchema(schema)).toEqual({
      ...described,
      type: 'object',
      properties: {
        port: {
          ...described,
          type: 'integer',
          format: 'int32',
          minimum: 1,
          maximum: 65_535,
          'x-kubernetes-validations': [rule],
        },
        protocol: { ...described, type: 'string', enum: ['TCP', 'UDP'], default: 'TCP' },
        generation: { ...described, type: 'integer', format: 'int64', minimum: 0 },
      },
      required: ['port'],
    });
  });

  it.each([
    ['a union', z.union([z.string().max(1), z.int32()]).meta(described), 'anyOf'],
    ['a string without a bound', z.string().meta(described), 'maxLength'],
    ['a list without a bound', z.array(z.int32().meta(described)).meta(described), 'maxItems'],
    ['a map without a bound', z.record(z.string(), z.string().max(1)).meta(described), 'maxProp'],
    ['a field without a description', z.int32(), 'description'],
    ['a pattern, which has no sentence', z.string().max(1).regex(/a/).meta(described), 'pattern'],
  ])('refuses %s', (_what, field, named) => {
    const schema = z.object({ field }).meta(described);

    expect(() => structuralSchema(schema)).toThrow(SchemaError);
    expect(() => structuralSchema(schema)).toThrow(named);
  });
});

describe('customResourceDefinitions', () => {
  it('names files and objects after plural and group', () => {
    expect(
      customResourceDefinitions().map(({ file, object }) => [file, object.metadata.name]),
    ).toEqual([
      [
        'automationguardrails.dev_automationidentities.yaml',
        'automationidentities.automationguardrails.dev',
      ],
      [
        'automationguardrails.dev_automationworkflows.yaml',
        'automationworkflows.automationguardrails.dev',
      ],
      ['automationguardrails.dev_killswitches.yaml', 'killswitches.automationguardrails.dev'],
      [
        'automationguardrails.dev_clusterkillswitches.yaml',
        'clusterkillswitches.automationguardrails.dev',
      ],
      [
        'automationguardrails.dev_guardrailpolicies.yaml',
        'guardrailpolicies.automationguardrails.dev',
      ],
      ['automationguardrails.dev_approvals.yaml', 'approvals.automationguardrails.dev'],
      ['automationguardrails.dev_accessreviews.yaml', 'accessreviews.automationguardrails.dev'],
      [
        'automationguardrails.dev_workflowrevisions.yaml',
        'workflowrevisions.automationguardrails.dev',
      ],
      [
        'automationguardrails.dev_evidencesegments.yaml',
        'evidencesegments.automationguardrails.dev',
      ],
    ]);
  });
});
