/**
 * Packs `kubectl guardrails` for Krew: one archive for every system with Node, and the manifest that
 * names it. The same sources give the same bytes.
 *
 * Usage: node src/release/plugin.ts --url URL --homepage URL [--out FOLDER]
 *   --url       where the archive will be downloaded from
 *   --homepage  of the project
 *   --out       default: dist/krew
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { dump } from 'js-yaml';
import { version } from '../version.ts';
import { krewManifest, launcher } from './krew.ts';

const exec = promisify(execFile);
const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));

/** What a file needs to be the same in each archive of the same sources; as GNU tar has it. */
const reproducible = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner'];

async function pack({
  url,
  homepage,
  out,
}: Record<'url' | 'homepage' | 'out', string>): Promise<void> {
  const work = await mkdtemp(path.join(os.tmpdir(), 'kubectl-guardrails-'));
  try {
    const content = path.join(work, 'content');
    await mkdir(content);
    await exec('tsc', ['-p', 'tsconfig.build.json', '--outDir', path.join(content, 'dist')], {
      cwd: root,
    });
    for (const file of ['package.json', 'package-lock.json', '.npmrc', 'LICENSE']) {
      await cp(path.join(root, file), path.join(content, file));
    }
    await exec('npm', ['install', '--omit=dev', '--omit=optional', '--ignore-scripts'], {
      cwd: content,
    });
    // Krew takes no links, and npm's own record of the installation is of no use.
    for (const surplus of ['.bin', '.package-lock.json']) {
      await rm(path.join(content, 'node_modules', surplus), { recursive: true, force: true });
    }
    await rm(path.join(content, '.npmrc'));
    await writeFile(path.join(content, 'kubectl-guardrails'), launcher);
    await chmod(path.join(content, 'kubectl-guardrails'), 0o755);

    await mkdir(out, { recursive: true });
    const archive = path.join(out, path.basename(new URL(url).pathname));
    const tar = path.join(work, 'plugin.tar');
    await exec('tar', [...reproducible, '--mode=u=rwX,go=rX', '-cf', tar, '-C', content, '.']);
    // Without name and time in the head of the archive.
    await exec('gzip', ['-n', '-9', tar]);
    await cp(`${tar}.gz`, archive);
    const sha256 = createHash('sha256')
      .update(await readFile(archive))
      .digest('hex');
    const manifest = krewManifest({ version, url, homepage, sha256 });
    await writeFile(path.join(out, 'guardrails.yaml'), dump(manifest, { lineWidth: 100 }));
    console.log(`${archive}\n${path.join(out, 'guardrails.yaml')}`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    homepage: { type: 'string' },
    out: { type: 'string', default: path.join(root, 'dist/krew') },
  },
});
const { url, homepage, out } = values;
if (url === undefined || homepage === undefined || !url.endsWith('.tar.gz')) {
  console.error(
    'Usage: npm run pack:plugin -- --url https://….tar.gz --homepage https://… [--out FOLDER]',
  );
  process.exitCode = 2;
} else {
  await pack({ url, homepage, out });
}
