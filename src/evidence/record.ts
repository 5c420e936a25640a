import { redactText } from '../observability/redact.ts';
import { canonicalJson, sha256, type Json } from './canonical.ts';

/** Version of the form of a record. A reader refuses one that it doesn't know. */
export const recordVersion = 1;

/** Stands for the hash of the record before, where there is none. */
export const noHash = '0'.repeat(64);

/** Bytes of a record's canonical JSON. */
export const maxRecordBytes = 8_192;

/** What became of an action. */
export type RecordOutcome = 'Succeeded' | 'Failed' | 'Intended' | 'Observed';

/** Who acted. */
export interface Actor {
  /** User name, field manager, or component. */
  name: string;
  /**
   * How that is known. `authenticated`: admission stamped the user whom the API server
   * authenticated. `asserted`: the client said so. `operator`: this program itself. `unknown`:
   * nobody said.
   */
  basis: 'authenticated' | 'asserted' | 'operator' | 'unknown';
}

/** An object, at one version. */
export interface RecordObject {
  apiVersion: string;
  kind: string;
  name: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
}

/** What a record says, before it has its place in a chain. */
export interface RecordDraft {
  /** CamelCase, stable, in docs/guides/evidence.md. */
  action: string;
  outcome: RecordOutcome;
  actor: Actor;
  /** When it happened, as far as the API says; RFC 3339. */
  happened?: string;
  /** CamelCase, of the condition or the event that it came from. */
  reason?: string;
  /** For people; bounded and redacted. */
  message?: string;
  /** Label `environment` of the namespace. */
  environment?: string;
  /** Name of the AutomationIdentity. */
  identity?: string;
  /** The version of the Workflow that it belongs to. */
  change?: string;
  /** The kill that it belongs to. */
  incident?: string;
  objects?: readonly RecordObject[];
  /** What else is known, as texts; never a secret value. */
  details?: Readonly<Record<string, string>>;
}

/** One entry of the log, as its canonical JSON has it. */
export interface EvidenceRecord extends RecordDraft {
  version: typeof recordVersion;
  /** `namespace/name` of the chain. */
  chain: string;
  /** From 1, without gaps. */
  sequence: number;
  /** Hash of the record before; 64 zeros in the first. */
  previous: string;
  /** When it was recorded, RFC 3339 with milliseconds. */
  time: string;
  /** What it is about, stable within the chain. */
  subject?: string;
  /** The state of the subject before and after; digests, or words. */
  before?: string;
  after?: string;
  /** Of a folded record: the subjects that it counts. */
  subjects?: readonly string[];
}

/** A record in its chain. */
export interface Entry {
  sequence: number;
  /** SHA-256 of `record`. */
  hash: string;
  /** Canonical JSON of the {@link EvidenceRecord}. */
  record: string;
}

/** Where a chain ends. */
export interface ChainEnd {
  sequence: number;
  hash: string;
}

/** Bytes of UTF-8 that are kept of a text. */
const maxMessage = 1_024;
const maxText = 512;
const maxObjects = 16;
const maxDetails = 24;

/** Puts a record at the end of a chain. Whatever the draft holds, the entry is bounded. */
export function link(
  end: ChainEnd,
  record: Omit<EvidenceRecord, 'version' | 'sequence' | 'previous'>,
): Entry {
  const sequence = end.sequence + 1;
  const { message, objects, details, ...rest } = record;
  const bounded: Omit<EvidenceRecord, 'details'> = {
    ...mapTexts(rest),
    version: recordVersion,
    sequence,
    previous: end.hash,
    ...(message !== undefined && { message: clean(message, maxMessage) }),
    ...(objects !== undefined && { objects: objects.slice(0, maxObjects).map(mapTexts) }),
  };
  const full = canonicalJson(asJson({ ...bounded, ...(details && { details: cut(details) }) }));
  const text =
    Buffer.byteLength(full) <= maxRecordBytes
      ? full
      : canonicalJson(asJson({ ...bounded, objects: [], details: { truncated: 'true' } }));
  return { sequence, hash: sha256(text), record: text };
}

function cut(details: Readonly<Record<string, string>>): Record<string, string> {
  return mapTexts(Object.fromEntries(Object.entries(details).slice(0, maxDetails)));
}

function asJson(record: object): Json {
  // Interfaces have no index signature, and every field of a record is JSON.
  return { ...record };
}

/** The same object with its texts cleaned, those of nested objects too. */
function mapTexts<T extends object>(object: T): T {
  const entries = Object.entries(object).map(([key, value]: [string, unknown]) => [
    key,
    typeof value === 'string'
      ? clean(value, maxText)
      : typeof value === 'object' && value !== null && !Array.isArray(value)
        ? mapTexts(value)
        : value,
  ]);
  return Object.fromEntries(entries);
}

function clean(text: string, maxBytes: number): string {
  const plain = redactText(text.toWellFormed());
  if (Buffer.byteLength(plain) <= maxBytes) return plain;
  const head = Buffer.from(plain)
    .subarray(0, maxBytes - 3)
    .toString();
  return `${head.replace(/\uFFFD$/, '')}…`;
}

/**
 * The record of an entry, if it is one.
 *
 * @returns `undefined` for a text that is no record of a version that we know
 */
export function readRecord(text: string): EvidenceRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isRecord(value) ? value : undefined;
}

const actorBases: readonly unknown[] = ['authenticated', 'asserted', 'operator', 'unknown'];

function isRecord(value: unknown): value is EvidenceRecord {
  if (typeof value !== 'object' || value === null) return false;
  const record: Partial<Record<keyof EvidenceRecord, unknown>> = value;
  const { version, sequence, previous, chain, time, action, outcome, actor } = record;
  return (
    version === recordVersion &&
    Number.isSafeInteger(sequence) &&
    [previous, chain, time, action, outcome].every((text) => typeof text === 'string') &&
    typeof actor === 'object' &&
    actor !== null &&
    'name' in actor &&
    typeof actor.name === 'string' &&
    'basis' in actor &&
    actorBases.includes(actor.basis) &&
    [record.objects, record.subjects].every((list) => list === undefined || Array.isArray(list))
  );
}
