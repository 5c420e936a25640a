import type { EvidenceSegmentSpec } from '../api/evidence-segment.ts';
import { digestOf } from '../api/digest.ts';
import { canonicalJson, sha256, type Json } from './canonical.ts';
import { isSigned, type ChainName, type SignedHead } from './head.ts';
import { noHash, readRecord, type EvidenceRecord } from './record.ts';

/** Something that isn't as it was written. */
export interface ProofProblem {
  /** CamelCase, stable. */
  code:
    | 'AnchorMismatch'
    | 'Broken'
    | 'Flipped'
    | 'Gap'
    | 'Malformed'
    | 'NoRecords'
    | 'RolledBack'
    | 'StartMissing'
    | 'Unsigned'
    | 'UntrustedKey';
  message: string;
}

/** A head that was written down outside of the chain. */
export interface Anchor extends ChainName {
  head: SignedHead;
}

export interface ChainProof {
  /** In the order of the chain; those that could be read. */
  records: EvidenceRecord[];
  /** The keys that signed, Base64. */
  keys: string[];
  /** Anchors of this chain that it agrees with. */
  anchored: number;
  problems: ProofProblem[];
}

export interface VerifyOptions {
  /** Heads that stand elsewhere: those of other chains are passed over. */
  anchors?: readonly Anchor[];
  /** Public keys that may sign, Base64; without it any key may, and is reported. */
  trustedKeys?: readonly string[];
  /** What happened before that isn't asked for; RFC 3339. Without it the first record has to be there. */
  since?: string;
}

/**
 * Checks a chain, or the end of one from some segment on: every hash, every link, every signature,
 * and what was written down of it elsewhere.
 *
 * @param chain `namespace/name`
 * @param segments in any order
 */
export function verifyChain(
  chain: string,
  segments: readonly EvidenceSegmentSpec[],
  { anchors = [], trustedKeys, since }: VerifyOptions = {},
): ChainProof {
  const problems: ProofProblem[] = [];
  const found = (code: ProofProblem['code'], message: string): void => {
    problems.push({ code, message: `${chain}: ${message}` });
  };
  const ordered = segments.toSorted((a, b) => a.index - b.index);
  const [oldest] = ordered;
  const records: EvidenceRecord[] = [];
  const hashes = new Map<number, string>();
  const keys = new Set<string>();
  if (oldest === undefined) {
    found('NoRecords', 'there is no record');
    return { records, keys: [], anchored: 0, problems };
  }
  const { incarnation } = oldest;

  let end = { sequence: oldest.first - 1, hash: oldest.previous };
  let index = oldest.index;
  if (oldest.index === 1 && (oldest.first !== 1 || oldest.previous !== noHash)) {
    found('StartMissing', "the first segment doesn't begin with the first record");
  }
  for (const segment of ordered) {
    const where = `segment ${segment.index}`;
    if (segment.index !== index) found('Gap', `segment ${index} is missing`);
    index = segment.index + 1;
    if (
      segment.incarnation !== incarnation ||
      `/${segment.chain}` !== chain.slice(chain.indexOf('/'))
    ) {
      found('Broken', `${where} belongs to another chain`);
    }
    if (segment.first !== end.sequence + 1) {
      found('Gap', `${where} begins at ${segment.first}, after ${end.sequence}`);
    }
    if (segment.previous !== end.hash) {
      found('Broken', `${where} doesn't continue the one before`);
    }
    for (const [position, entry] of segment.records.entries()) {
      const place = `record ${entry.sequence}`;
      const record = readRecord(entry.record);
      if (sha256(entry.record) !== entry.hash) found('Flipped', `${place} isn't what was hashed`);
      if (record === undefined || !isCanonical(entry.record)) {
        found('Malformed', `${place} can't be read`);
      } else {
        if (record.sequence !== entry.sequence || record.chain !== chain) {
          found('Flipped', `${place} says that it is ${record.sequence} of ${record.chain}`);
        }
        if (record.previous !== end.hash)
          found('Broken', `${place} doesn't follow on the one before`);
        if (position === 0 && record.details?.['carried'] !== digestOf(segment.carried)) {
          found('Flipped', `what ${where} took over isn't what was recorded`);
        }
        records.push(record);
      }
      if (entry.sequence !== end.sequence + 1) {
        found('Gap', `${place} stands after ${end.sequence}`);
      }
      end = { sequence: entry.sequence, hash: entry.hash };
      hashes.set(entry.sequence, entry.hash);
    }
    if (segment.head.sequence !== end.sequence || segment.head.hash !== end.hash) {
      found(
        'RolledBack',
        `the signed end of ${where} is ${segment.head.sequence}, and the last record ${end.sequence}`,
      );
    }
    if (!isSigned({ chain, incarnation: segment.incarnation }, segment.head)) {
      found('Unsigned', `the end of ${where} isn't signed`);
    }
    keys.add(segment.head.key);
  }
  if (ordered.slice(0, -1).some(({ sealed }) => !sealed)) {
    found('Broken', 'a segment goes on although the next one has begun');
  }
  if (ordered.at(-1)?.sealed === true) {
    // The record that begins the next segment is written right after the seal.
    found('Gap', 'the last segment is sealed, and the next one is missing');
  }

  checkStart(records, oldest, since, found);
  const anchored = checkAnchors(
    { chain, incarnation, first: oldest.first, end },
    hashes,
    anchors,
    found,
  );
  for (const key of keys) {
    if (trustedKeys !== undefined && !trustedKeys.includes(key)) {
      found('UntrustedKey', `signed with ${key}, which isn't among the trusted keys`);
    }
  }
  return { records, keys: [...keys], anchored, problems };
}

type Found = (code: ProofProblem['code'], message: string) => void;

/** What is older may be missing where nobody asked for it, or where a record says that it went. */
function checkStart(
  records: readonly EvidenceRecord[],
  oldest: EvidenceSegmentSpec,
  since: string | undefined,
  found: Found,
): void {
  if (oldest.first === 1) return;
  const [first] = records;
  if (since !== undefined && first !== undefined && Date.parse(first.time) <= Date.parse(since))
    return;
  const expired = [
    ...records
      .filter(({ action }) => action === 'SegmentsExpired')
      .map(({ after }) => Number(after)),
    ...oldest.carried
      .filter(({ subject }) => subject === expiredSubject)
      .map(({ state }) => Number(state)),
  ];
  if (expired.some((sequence) => sequence >= oldest.first - 1)) return;
  found(
    'StartMissing',
    `records 1 to ${oldest.first - 1} are missing, and nothing says that they were let go`,
  );
}

/** Subject of the record that says which segments were let go. */
export const expiredSubject = 'expired';

function checkAnchors(
  { chain, incarnation, first, end }: ChainName & { first: number; end: { sequence: number } },
  hashes: ReadonlyMap<number, string>,
  anchors: readonly Anchor[],
  found: Found,
): number {
  let agreed = 0;
  for (const anchor of anchors) {
    if (anchor.chain !== chain || anchor.incarnation !== incarnation) continue;
    const { sequence, hash } = anchor.head;
    if (!isSigned(anchor, anchor.head)) {
      found('Unsigned', `the anchor at ${sequence} isn't signed`);
    } else if (sequence > end.sequence) {
      found('RolledBack', `it once had ${sequence} records, and has ${end.sequence}`);
    } else if (sequence >= first && hashes.get(sequence) !== hash) {
      found('AnchorMismatch', `record ${sequence} was another one when it was anchored`);
    } else if (sequence >= first) {
      agreed += 1;
    }
  }
  return agreed;
}

function isCanonical(text: string): boolean {
  const value: Json = JSON.parse(text);
  return canonicalJson(value) === text;
}
