import { z } from 'zod';
import { evidenceSegmentSpecSchema, type EvidenceSegmentSpec } from '../api/evidence-segment.ts';
import { redact, redactText } from '../observability/redact.ts';
import { isAnchor } from './anchors.ts';
import { sha256 } from './canonical.ts';
import type { EvidenceRecord } from './record.ts';
import { renderReport, type ReportInput } from './report.ts';
import { ArchiveError } from './tar.ts';
import { version } from '../version.ts';
import { verifyChain, type Anchor, type ChainProof, type ProofProblem } from './verify.ts';

/** Everything of one case. */
export interface Case {
  namespace: string;
  workflow: string;
  /** RFC 3339; absent: from the beginning. */
  since?: string | undefined;
  /** RFC 3339. */
  exportedAt: string;
  /** By the name of the chain, within the namespace. */
  chains: ReadonlyMap<string, readonly EvidenceSegmentSpec[]>;
  anchors: readonly Anchor[];
  /** Public keys that the cluster knows, Base64. */
  keys: readonly string[];
  /** What stands at the time of export: the automation, its rights, its egress. */
  objects: readonly object[];
  /** Names and times; no values. */
  credentials: readonly Readonly<Record<string, string>>[];
  /** Of the period, from a Prometheus; absent: none was asked. */
  metrics?: readonly Series[];
  /** What couldn't be read. */
  notes: readonly string[];
}

const seriesSchema = z.object({
  labels: z.record(z.string(), z.string()),
  points: z.array(z.object({ time: z.string(), value: z.string() })),
});

/** One series of a metric. */
export type Series = z.infer<typeof seriesSchema>;

const format = 'automationguardrails.dev/evidence-bundle/v1';

const manifestSchema = z.object({
  format: z.literal(format),
  /** That rendered the report. */
  version: z.string().optional(),
  namespace: z.string(),
  workflow: z.string(),
  since: z.string().optional(),
  exportedAt: z.string(),
  chains: z.array(z.string()),
  notes: z.array(z.string()),
  files: z.record(z.string(), z.string()),
});

/** The case, and its proof, as it is in a bundle. */
export interface BundleProof {
  namespace: string;
  workflow: string;
  records: EvidenceRecord[];
  problems: ProofProblem[];
  /** Keys that signed, Base64. */
  keys: string[];
  anchored: number;
  /** What isn't wrong, and isn't proven either. */
  remarks: string[];
  /** SHA-256 of the manifest, and with it of everything. */
  digest: string;
}

/** The files of a bundle, by name. Equal cases give equal files. */
export function bundleFiles(given: Case): Map<string, string> {
  const evidence = withoutSecrets(given);
  const { namespace, workflow, since, exportedAt, chains, anchors, keys, notes } = evidence;
  const proofs = proofsOf(namespace, chains, anchors, since, undefined);
  const files = new Map<string, string>();
  for (const [chain, segments] of chains) {
    for (const segment of segments) {
      files.set(`segments/${chain}/${segment.index}.json`, text(segment));
    }
  }
  files.set('anchors.json', text(anchors));
  files.set('keys.json', text(keys));
  // Nobody puts a secret there; this is the second line.
  files.set('objects.json', text(evidence.objects.map(withoutValues)));
  files.set('credentials.json', text(evidence.credentials));
  files.set('metrics.json', text(evidence.metrics ?? []));
  files.set('records.jsonl', linesOf(proofs));
  files.set('report.html', renderReport(reportOf(evidence, proofs)));
  const manifest: z.infer<typeof manifestSchema> = {
    format,
    version,
    namespace,
    workflow,
    ...(since !== undefined && { since }),
    exportedAt,
    chains: [...chains.keys()],
    notes: [...notes],
    files: Object.fromEntries([...files].map(([name, content]) => [name, sha256(content)])),
  };
  return new Map([['manifest.json', text(manifest)], ...files]);
}

export interface VerifyBundleOptions {
  /** Public keys that may sign, Base64; without it any may, and is reported. */
  trustedKeys?: readonly string[] | undefined;
  /** Heads from elsewhere, beside those in the bundle. */
  anchors?: readonly Anchor[];
}

/**
 * Checks a bundle without any cluster: every chain, and that everything else is what was derived
 * from the chains or written down in the manifest.
 *
 * @throws ArchiveError where it isn't a bundle that we know
 */
export function verifyBundle(
  files: ReadonlyMap<string, string>,
  { trustedKeys, anchors: others = [] }: VerifyBundleOptions = {},
): BundleProof {
  const manifestText = files.get('manifest.json') ?? '';
  const manifest = parse(manifestSchema, 'manifest.json', files);
  const problems: ProofProblem[] = [];
  for (const [name, content] of files) {
    if (name === 'manifest.json' || manifest.files[name] === sha256(content)) continue;
    problems.push({ code: 'Flipped', message: `${name} isn't what was exported` });
  }
  for (const name of Object.keys(manifest.files)) {
    if (!files.has(name)) problems.push({ code: 'Gap', message: `${name} is missing` });
  }
  const { namespace, workflow, since, exportedAt, notes } = manifest;
  const chains = new Map(
    manifest.chains.map((chain) => {
      const names = [...files.keys()].filter((name) => name.startsWith(`segments/${chain}/`));
      return [chain, names.map((name) => parse(evidenceSegmentSpecSchema, name, files))];
    }),
  );
  const anchors = parse(z.array(z.unknown()), 'anchors.json', files).filter(isAnchor);
  const credentials = parse(z.array(z.record(z.string(), z.string())), 'credentials.json', files);
  const proofs = proofsOf(namespace, chains, anchors, since, undefined);
  const metrics = parse(z.array(seriesSchema), 'metrics.json', files);
  const report = reportOf(
    { namespace, workflow, since, exportedAt, notes, credentials, metrics },
    proofs,
  );
  if (files.get('records.jsonl') !== linesOf(proofs)) {
    problems.push({ code: 'Flipped', message: "records.jsonl isn't what the chains say" });
  }
  const isRenderedAlike = files.get('report.html') === renderReport(report);
  if (!isRenderedAlike && manifest.version === version) {
    problems.push({ code: 'Flipped', message: "report.html isn't what the chains say" });
  }
  const remarks =
    isRenderedAlike || manifest.version === version
      ? []
      : [
          `report.html was rendered by version ${manifest.version ?? 'unknown'} and can't be compared with the records by version ${version}. The records are what is proven.`,
        ];
  const trusted = proofsOf(namespace, chains, [...anchors, ...others], since, trustedKeys);
  return {
    namespace,
    workflow,
    records: [...report.records],
    problems: [...problems, ...trusted.flatMap((proof) => proof.problems)],
    keys: [...report.proof.keys],
    anchored: trusted.reduce((sum, proof) => sum + proof.anchored, 0),
    remarks,
    digest: sha256(manifestText),
  };
}

function proofsOf(
  namespace: string,
  chains: ReadonlyMap<string, readonly EvidenceSegmentSpec[]>,
  anchors: readonly Anchor[],
  since: string | undefined,
  trustedKeys: readonly string[] | undefined,
): ChainProof[] {
  return [...chains].map(([chain, segments]) =>
    verifyChain(`${namespace}/${chain}`, segments, {
      anchors,
      ...(since !== undefined && { since }),
      ...(trustedKeys !== undefined && { trustedKeys }),
    }),
  );
}

function reportOf(
  evidence: Omit<ReportInput, 'records' | 'proof'>,
  proofs: readonly ChainProof[],
): ReportInput {
  const { since } = evidence;
  const records = proofs
    .flatMap((proof) => proof.records)
    .filter(({ time }) => since === undefined || Date.parse(time) >= Date.parse(since))
    .toSorted((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : a.sequence - b.sequence));
  const { namespace, workflow, exportedAt, notes, credentials, metrics = [] } = evidence;
  return {
    namespace,
    workflow,
    since,
    exportedAt,
    notes,
    credentials,
    metrics,
    records,
    proof: {
      problems: proofs.flatMap(({ problems }) => problems),
      keys: [...new Set(proofs.flatMap(({ keys }) => keys))],
      anchored: proofs.reduce((sum, { anchored }) => sum + anchored, 0),
    },
  };
}

/** Every record of every segment, one a line. */
function linesOf(proofs: readonly ChainProof[]): string {
  return proofs
    .flatMap(({ records }) => records.map((record) => `${JSON.stringify(record)}\n`))
    .join('');
}

function text(value: unknown): string {
  return `${JSON.stringify(value, undefined, 1)}\n`;
}

/** What isn't of the chain, which is clean as it is: nobody puts a secret there; a second line. */
function withoutSecrets({ credentials, metrics = [], notes, ...rest }: Case): Case {
  const clean = (texts: Readonly<Record<string, string>>): Record<string, string> =>
    Object.fromEntries(Object.entries(texts).map(([name, value]) => [name, redactText(value)]));
  return {
    ...rest,
    credentials: credentials.map(clean),
    metrics: metrics.map(({ labels, points }) => ({ labels: clean(labels), points })),
    notes: notes.map(redactText),
  };
}

function withoutValues(object: object): unknown {
  return redact(object);
}

function parse<S extends z.ZodType>(
  schema: S,
  name: string,
  files: ReadonlyMap<string, string>,
): z.infer<S> {
  let value: unknown;
  try {
    value = JSON.parse(files.get(name) ?? '');
  } catch {
    throw new ArchiveError(`${name} can't be read`);
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new ArchiveError(`${name} isn't what it should be`);
  return parsed.data;
}
