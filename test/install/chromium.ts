import { execFile } from 'node:child_process';
import { glob, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { isExecutable, ProgramsMissingError } from '../go-programs.ts';
import { unpackedPackages } from './debian-packages.ts';

const exec = promisify(execFile);

/** A browser without a window, for `chromium.launch()` of playwright-core. */
export interface Chromium {
  executablePath: string;
  /** The whole environment that it needs: its libraries and fonts. */
  env: Record<string, string>;
}

const onPath = ['chromium-headless-shell', 'chromium', 'google-chrome', 'chrome'];
const unpacked = 'root/usr/lib/chromium/chromium-headless-shell';

/**
 * Chromium: from the PATH, from the cache, or out of Debian's packages, with the libraries that
 * this machine lacks. Each is started once, since a program that is there need not run.
 *
 * @throws ProgramsMissingError that names the ways out
 */
export async function findChromium(log: (line: string) => void): Promise<Chromium> {
  for (const name of onPath) {
    for (const folder of (process.env['PATH'] ?? '').split(path.delimiter)) {
      const browser = { executablePath: path.resolve(folder, name), env: environment() };
      if (folder !== '' && (await isExecutable(browser.executablePath)) && (await runs(browser))) {
        return browser;
      }
    }
  }
  try {
    const folder = await unpackedPackages(
      {
        cache: 'chromium',
        packages: ['chromium-headless-shell', 'fonts-liberation', 'fonts-dejavu-core'],
        withDependencies: true,
        size: '100 MB',
        keep: async (root, kept) => {
          await rename(root, path.join(kept, 'root'));
          await writeFile(path.join(kept, 'fonts.conf'), fontsConfiguration);
        },
        isComplete: async (kept) =>
          (await isExecutable(path.join(kept, unpacked))) &&
          (await readFile(path.join(kept, 'fonts.conf'), 'utf8').catch(() => '')) ===
            fontsConfiguration,
      },
      log,
    );
    const browser = await unpackedIn(folder);
    if (await runs(browser)) return browser;
    throw new Error(`${browser.executablePath} doesn't run`);
  } catch (error) {
    throw new ProgramsMissingError(
      `Not on this machine: a Chromium that runs; and Debian's packages could not be had. Put one of ${onPath.join(', ')} on the PATH. (${String(error).split('\n', 1)[0]})`,
    );
  }
}

async function unpackedIn(folder: string): Promise<Chromium> {
  const libraries: string[] = [];
  const pattern = 'root/usr/lib/*-linux-gnu*{,/pulseaudio}';
  for await (const found of glob(pattern, { cwd: folder })) {
    libraries.push(path.join(folder, found));
  }
  return {
    executablePath: path.join(folder, unpacked),
    env: environment({
      LD_LIBRARY_PATH: libraries.join(path.delimiter),
      FONTCONFIG_FILE: path.join(folder, 'fonts.conf'),
    }),
  };
}

/** The same letters on every machine, so that what fits on one fits on all. */
const fontsConfiguration = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">root/usr/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <alias><family>Arial</family><prefer><family>Liberation Sans</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>Liberation Sans</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>Liberation Sans</family></prefer></alias>
  <alias><family>serif</family><prefer><family>Liberation Serif</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>Liberation Mono</family></prefer></alias>
</fontconfig>
`;

function environment(own: Record<string, string> = {}): Record<string, string> {
  const inherited = Object.entries(process.env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return { ...Object.fromEntries(inherited), ...own };
}

async function runs({ executablePath, env }: Chromium): Promise<boolean> {
  const page = 'data:text/html,<p>it-runs';
  const options = ['--headless', '--no-sandbox', '--disable-gpu', '--dump-dom', page];
  return exec(executablePath, options, { env, timeout: 60_000 }).then(
    ({ stdout }) => stdout.includes('it-runs'),
    () => false,
  );
}
