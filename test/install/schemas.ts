/**
 * JSON Schemas of every kind that an installation brings, for each supported Kubernetes, laid out as
 * kubeconform wants them. Kubernetes publishes its API as one Swagger file a version, in its Go
 * module; CustomResourceDefinitions hold the rest.
 */
import { execFile } from 'node:child_process';
import {
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { loadAll } from 'js-yaml';
import { ProgramsMissingError } from '../go-programs.ts';

/** A file within one version of a Go module; `sum` is what its go.sum line would say. */
interface PublishedFile {
  module: string;
  version: string;
  sum: string;
  file: string;
}

const kubernetes = (version: string, sum: string): PublishedFile => ({
  module: 'k8s.io/kubernetes',
  version,
  sum,
  file: 'api/openapi-spec/swagger.json',
});

/** By minor version: every one that the chart takes. */
const kubernetesApis = {
  '1.30': kubernetes('1.30.14', 'h1:MrlKXh9uhLIJpyxOeXhcndzRVSvwiV9iJ8NgH8nqPsg='),
  '1.31': kubernetes('1.31.14', 'h1:UtjLfqvXLuSVDdJ4+NpQCIfFkKkLnAAVmxAEMsnkhjk='),
  '1.32': kubernetes('1.32.13', 'h1:5TGYdZ6YZqdp6h/Rp1vX/4TIoybMPdgv97LCZCtPuNQ='),
  '1.33': kubernetes('1.33.13', 'h1:bmH31xUdSzeA5vk0wZAK9MZp11mdLuzUSeKk0qN3hPQ='),
  '1.34': kubernetes('1.34.4', 'h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk='),
  '1.35': kubernetes('1.35.4', 'h1:o/8dBC/pHVpYoGV4OAIytAlNPZbdYVTXJHoYvXC4qzM='),
  '1.36': kubernetes('1.36.3', 'h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o='),
} as const satisfies Record<string, PublishedFile>;

/** A supported Kubernetes, as `1.36`. */
export type Minor = keyof typeof kubernetesApis;

/** Every supported Kubernetes, oldest first. */
export const minors: readonly Minor[] = Object.keys(kubernetesApis).filter(
  (minor): minor is Minor => minor in kubernetesApis,
);

const prometheusOperator = (file: string): PublishedFile => ({
  module: 'github.com/prometheus-operator/prometheus-operator',
  version: '0.85.0',
  sum: 'h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=',
  file: `example/prometheus-operator-crd/monitoring.coreos.com_${file}.yaml`,
});
const neighbours = [prometheusOperator('servicemonitors'), prometheusOperator('prometheusrules')];

type Schema = Record<string, unknown>;

interface Swagger {
  definitions: Record<string, Schema>;
}

interface Kind {
  group: string;
  version: string;
  kind: string;
}

interface CustomResourceDefinition {
  spec: {
    group: string;
    names: { kind: string };
    versions: { name: string; schema: { openAPIV3Schema: Schema } }[];
  };
}

/**
 * Writes the schemas of one Kubernetes, of this project's kinds, and of the Prometheus operator's.
 *
 * @param kinds those that are wanted; a Swagger file has hundreds
 * @param folder where to; it exists
 * @param crds folder with this project's CustomResourceDefinitions
 * @returns what kubeconform takes as `-schema-location`
 * @throws ProgramsMissingError where a file is not on this machine and can't be had
 */
export async function writeSchemas(
  minor: Minor,
  { kinds, folder, crds }: { kinds: ReadonlySet<string>; folder: string; crds: string },
): Promise<string> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as published, checked by its sum
  const swagger = JSON.parse(await publishedFile(kubernetesApis[minor])) as Swagger;
  for (const [name, definition] of Object.entries(swagger.definitions)) {
    for (const kind of kindsOf(definition)) {
      if (!kinds.has(kind.kind)) continue;
      const definitions = closure(name, swagger.definitions);
      await write(folder, kind, { $ref: `#/definitions/${name}`, definitions });
    }
  }
  const own = (await readdir(crds)).filter((file) => !file.startsWith('kustomization'));
  const texts = await Promise.all([
    ...own.map((file) => readFile(path.join(crds, file), 'utf8')),
    ...neighbours.map(publishedFile),
  ]);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each is one definition
  for (const { spec } of texts.flatMap((text) => loadAll(text)) as CustomResourceDefinition[]) {
    for (const { name, schema } of spec.versions) {
      const kind = { group: spec.group, version: name, kind: spec.names.kind };
      await write(folder, kind, withTypeMeta(strict(schema.openAPIV3Schema)));
    }
  }
  return path.join(folder, '{{ .ResourceKind }}{{ .KindSuffix }}.json');
}

function kindsOf(definition: Schema): Kind[] {
  const kinds = definition['x-kubernetes-group-version-kind'];
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what that field holds
  return kinds === undefined ? [] : (kinds as Kind[]);
}

async function write(
  folder: string,
  { group, version, kind }: Kind,
  schema: Schema,
): Promise<void> {
  // kubeconform names a file by the first part of the group alone.
  const suffix = group === '' ? version : `${group.split('.', 1)[0] ?? ''}-${version}`;
  const file = `${kind}-${suffix}.json`.toLowerCase();
  await writeFile(path.join(folder, file), JSON.stringify(schema));
}

/** A definition and all that it refers to. */
function closure(root: string, all: Swagger['definitions']): Record<string, Schema> {
  const found: Record<string, Schema> = {};
  const open = [root];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    const definition = all[name];
    if (found[name] !== undefined || definition === undefined) continue;
    found[name] = strict(definition);
    for (const [, reference = ''] of JSON.stringify(definition).matchAll(
      /"#\/definitions\/([^"]+)"/g,
    )) {
      open.push(reference);
    }
  }
  return found;
}

/** The same schema, which takes no field that it doesn't name, and a number where it may be one. */
function strict(schema: Schema): Schema {
  return JSON.parse(JSON.stringify(schema), (_, value: unknown) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- an object of JSON
    const node = { ...value } as Schema;
    const isNumberToo =
      node['format'] === 'int-or-string' ||
      node['x-kubernetes-int-or-string'] === true ||
      isQuantity(node);
    if (isNumberToo) return { type: ['integer', 'number', 'string'] };
    const isClosed =
      typeof node['properties'] === 'object' &&
      node['additionalProperties'] === undefined &&
      node['x-kubernetes-preserve-unknown-fields'] !== true &&
      // `metadata` and such of a CustomResourceDefinition, and a property named `properties`.
      (node['type'] === 'object' || node['type'] === undefined);
    return isClosed ? { ...node, additionalProperties: false } : node;
  }) as Schema;
}

function isQuantity({ type, description }: Schema): boolean {
  return type === 'string' && String(description).startsWith('Quantity is a fixed-point');
}

/** A CustomResourceDefinition needs to name neither, and refuses neither. */
function withTypeMeta(schema: Schema): Schema {
  const text = { type: 'string' };
  return {
    ...schema,
    properties: {
      ...(schema['properties'] as object),
      apiVersion: text,
      kind: text,
      metadata: { type: 'object' },
    },
  };
}

/** Fetches all of them into the cache, once. @param log told of the start */
export async function fetchSchemas(log: (line: string) => void): Promise<void> {
  log('Looking for the schemas of every supported Kubernetes.');
  for (const file of [...Object.values(kubernetesApis), ...neighbours]) await publishedFile(file);
}

/** From the cache, or out of the module that Go fetches. */
async function publishedFile({ module, version, sum, file }: PublishedFile): Promise<string> {
  const base = process.env['XDG_CACHE_HOME'] || path.join(os.homedir(), '.cache');
  const cache = path.join(base, 'automation-guardrails', 'schemas');
  const target = path.join(cache, `${path.basename(module)}-${version}-${path.basename(file)}`);
  const cached = await readFile(target, 'utf8').catch(() => undefined);
  if (cached !== undefined) return cached;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(path.join(cache, 'fetching-'));
  try {
    const folder = await downloadedModule({ module, version, sum }, work);
    // By one rename: the file is absent or complete.
    await copyFile(path.join(folder, file), path.join(work, 'file'));
    await rename(path.join(work, 'file'), target);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return readFile(target, 'utf8');
}

async function downloadedModule(
  { module, version, sum }: Omit<PublishedFile, 'file'>,
  cwd: string,
): Promise<string> {
  const args = ['mod', 'download', '-json', `${module}@v${version}`];
  const { stdout } = await promisify(execFile)('go', args, { cwd }).catch((error: unknown) => {
    throw new ProgramsMissingError(
      `No schemas of ${module} ${version} on this machine, and Go could not fetch them.`,
      { cause: error },
    );
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- documented by `go help mod download`
  const { Dir = '', Sum } = JSON.parse(stdout) as { Dir?: string; Sum?: string };
  if (Sum === sum) return Dir;
  throw new ProgramsMissingError(`${module} ${version} isn't what was published: ${String(Sum)}`);
}
