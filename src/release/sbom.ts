/**
 * Prints what the image consists of, as CycloneDX: every package of npm that it holds, with version,
 * license and checksum. The same packages give the same bytes.
 *
 * Usage: node src/release/sbom.ts   (in a folder with package.json and package-lock.json)
 */
import { execFileSync } from 'node:child_process';

/** The part of a CycloneDX document that is changed here. */
interface Bom {
  serialNumber?: string;
  metadata: { timestamp?: string; [field: string]: unknown };
  [field: string]: unknown;
}

// Of the lock file, which the packages were installed by: npm takes those that were left out for missing.
const args = [
  'sbom',
  '--package-lock-only',
  '--sbom-format=cyclonedx',
  '--omit=dev',
  '--omit=optional',
];
const text = execFileSync('npm', args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what npm documents
const { serialNumber: _, ...bom } = JSON.parse(text) as Bom;
// Both differ at each call, and say nothing of what is inside.
const { timestamp: __, ...metadata } = bom.metadata;
console.log(JSON.stringify({ ...bom, metadata }, undefined, 2));
