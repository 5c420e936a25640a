/** Makes docs/images/evidence-report.png anew: `node test/pictures/evidence-report.ts`. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { bundleFiles } from '../../src/evidence/bundle.ts';
import { exampleCase } from '../evidence/example-case.ts';
import { startBrowser } from '../install/browser.ts';

const folder = path.join(import.meta.dirname, '../../docs/images');
await mkdir(folder, { recursive: true });
const browser = await startBrowser();
try {
  const page = await browser.newPage({ viewport: { width: 1_000, height: 1_700 } });
  await page.setContent(bundleFiles(await exampleCase()).get('report.html') ?? '');
  await page.screenshot({ path: path.join(folder, 'evidence-report.png') });
} finally {
  await browser.close();
}
