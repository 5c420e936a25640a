import { z } from 'zod';
import { rules, time } from './fields.ts';
import type { KubeObject } from './objects.ts';

/** Records in one segment. */
export const maxRecords = 512;
/** Subjects whose state a segment takes over from the one before. */
export const maxCarried = 640;

function hash(description: string): z.ZodString {
  return z
    .string()
    .max(64)
    .meta({
      description,
      ...rules({
        rule: "self.matches('^[0-9a-f]{64}$')",
        message: 'a hash is SHA-256 in 64 lower-case hexadecimal digits',
      }),
    });
}

function sequence(description: string): z.ZodInt {
  return z.int().min(0).meta({ description, format: 'int64' });
}

const entry = z
  .object({
    sequence: sequence('Its place in the chain, from 1 and without gaps.'),
    hash: hash('SHA-256 of `record`.'),
    record: z.string().max(8192).meta({
      description:
        'The record, as canonical JSON (RFC 8785): exactly the bytes that were hashed. It holds the hash of the record before.',
    }),
  })
  .meta({
    description: 'One record.',
    ...rules({
      rule: 'self == oldSelf',
      message: "a record of evidence can't be changed once it is written",
    }),
  });

const head = z
  .object({
    sequence: sequence('Sequence of the last record.'),
    hash: hash('Hash of the last record, and with it of the whole chain.'),
    time: time('When it was signed.'),
    key: z.string().max(64).meta({
      description: 'Public key (Ed25519, 32 bytes, Base64) that the signature is checked with.',
    }),
    signature: z.string().max(128).meta({
      description: 'Signature over chain, incarnation, sequence, hash and time, Base64.',
    }),
  })
  .meta({ description: 'The end of the chain, signed.' });

export const evidenceSegmentSpecSchema = z
  .object({
    chain: z.string().min(1).max(63).meta({
      description:
        'Whose records these are: a Workflow, `namespace` for what concerns the whole namespace, or `operator.cluster` for the cluster, in the namespace of the operator.',
    }),
    incarnation: z.string().max(64).meta({
      description:
        'UID of the namespace in which the chain began: one that was deleted and made anew has another.',
    }),
    index: z.int().min(1).max(99_999_999).meta({
      description: 'Number of the segment within its chain, from 1.',
      format: 'int32',
    }),
    first: sequence('Sequence of the first record.'),
    previous: hash('Hash of the last record of the segment before; 64 zeros in the first segment.'),
    carried: z
      .array(
        z
          .object({
            subject: z.string().max(256).meta({ description: 'What it is about.' }),
            state: z.string().max(128).meta({ description: 'A digest, a time, or a word.' }),
          })
          .meta({ description: 'The state of one subject when the segment began.' }),
      )
      .max(maxCarried)
      .meta({
        description:
          'What earlier segments had said of what still stands, so that older ones can go. The first record holds its digest.',
        'x-kubernetes-list-type': 'atomic',
      }),
    records: z
      .array(entry)
      .min(1)
      .max(maxRecords)
      .meta({
        description: 'The records.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['sequence'],
      }),
    head,
    sealed: z
      .boolean()
      .meta({ description: 'Complete: the next records are in the next segment.' }),
  })
  .meta({
    description: 'A part of a chain of records. It only grows.',
    ...rules(
      // Chain and index are in the name.
      ...(['incarnation', 'first', 'previous', 'carried'] as const).map((field) => ({
        rule: `self.${field} == oldSelf.${field}`,
        message: `${field} of a segment of evidence can't be changed`,
      })),
      {
        // With the next rule and unique keys: every sequence that was there is still there.
        rule: 'self.records.size() >= oldSelf.records.size()',
        message: 'records of evidence are only ever appended: none is taken out',
      },
      {
        rule: 'self.records.all(r, r.sequence >= self.first && r.sequence < self.first + self.records.size())',
        message: 'the sequences of a segment follow on each other, from first',
      },
      {
        rule: '!oldSelf.sealed || self == oldSelf',
        message: 'this segment of evidence is sealed: the next records are in the next one',
      },
      {
        rule: 'self.head.sequence == self.first + self.records.size() - 1',
        message: 'the signed head of a segment is its last record',
      },
    ),
  });

export type EvidenceSegmentSpec = z.infer<typeof evidenceSegmentSpecSchema>;

/** A part of a hash chain of records. */
export interface EvidenceSegment extends KubeObject {
  spec: EvidenceSegmentSpec;
}

/** Chain of what concerns the whole cluster. No Workflow has a dot in its name. */
export const clusterChain = 'operator.cluster';

/** Name of a segment: two writers that begin the same one meet. */
export function segmentName(chain: string, index: number): string {
  return `${chain}.${String(index).padStart(8, '0')}`;
}

export const evidenceSegmentRules = [
  {
    rule: "self.metadata.name.startsWith(self.spec.chain + '.') && self.metadata.name.size() == self.spec.chain.size() + 9 && self.metadata.name.matches('[.][0-9]{8}$') && int(self.metadata.name.substring(self.spec.chain.size() + 1)) == self.spec.index",
    message: 'a segment of evidence is named after its chain, and numbered',
  },
];
