import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundleFiles } from '../../src/evidence/bundle.ts';
import { exampleCase } from '../evidence/example-case.ts';
import { startBrowser } from '../install/browser.ts';

let browser: Browser;
let folder: string;
let url: string;

/** What others write reaches the report: markup, and words that no line has room for. */
const hostile =
  '<img src="https://elsewhere.example/x" onerror="alert(1)"><script>alert(2)</script>';
const long = 'x'.repeat(400);

beforeAll(async () => {
  browser = await startBrowser();
  folder = await mkdtemp(path.join(tmpdir(), 'automation-guardrails-report-'));
  const more = [
    { at: '2026-01-31T11:58:00Z', action: 'Held', message: `${hostile} ${long}` },
    {
      at: '2026-01-31T11:59:00Z',
      action: 'KillEngaged',
      subject: 'again',
      actor: { name: `${hostile}${long}`, basis: 'asserted' as const },
      incident: '0b7f2c11',
      message: long,
    },
  ];
  const report = bundleFiles(await exampleCase(more)).get('report.html') ?? '';
  const file = path.join(folder, 'report.html');
  await writeFile(file, report);
  url = pathToFileURL(file).href;
});

afterAll(async () => {
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

/** Opens the report, and lists whatever it asks for and whatever goes wrong in it. */
async function open(
  options: BrowserContextOptions,
): Promise<{ page: Page; requests: string[]; complaints: string[] }> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const requests: string[] = [];
  const complaints: string[] = [];
  page.on('request', (request) => requests.push(request.url()));
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('dialog', (dialog) => {
    complaints.push(dialog.message());
    void dialog.dismiss();
  });
  await page.goto(url);
  return { page, requests, complaints };
}

const phone = { width: 360, height: 780 };
const desktop = { width: 1_280, height: 900 };

/** Each element with a text of its own. */
const texts = `[...document.querySelectorAll('body *')].filter((element) =>
  [...element.childNodes].some(({ nodeType, data }) => nodeType === 3 && data.trim() !== ''))`;

const openAll = `document.querySelectorAll('details').forEach((one) => { one.open = true })`;

const tooWide = `[...document.querySelectorAll('body *')]
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5)
  .map(({ tagName, textContent }) => tagName + ' ' + textContent.slice(0, 40))`;

const smallest = `Math.min(...${texts}.map((element) => parseFloat(getComputedStyle(element).fontSize)))`;

/** The lowest contrast of a text with what is behind it, as WCAG computes it. */
const lowestContrast = `(() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((of) => of / 255)
    .map((of) => of <= 0.04045 ? of / 12.92 : ((of + 0.055) / 1.055) ** 2.4)
    .reduce((sum, of, at) => sum + of * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    const color = rgb(getComputedStyle(element).backgroundColor);
    return color[3] === 0 && element.parentElement ? behind(element.parentElement) : color;
  };
  return Math.min(...${texts}.map((element) => {
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()`;

describe('the report of a case in a browser', () => {
  for (const [device, viewport] of Object.entries({ phone, desktop })) {
    for (const colorScheme of ['light', 'dark'] as const) {
      it(`is readable on a ${device}, ${colorScheme}`, async () => {
        const { page } = await open({ viewport, colorScheme });
        await page.evaluate(openAll);
        expect(await page.evaluate<number>('document.documentElement.scrollWidth')).toBe(
          viewport.width,
        );
        expect(await page.evaluate<string[]>(tooWide)).toEqual([]);
        expect(await page.evaluate<number>(smallest)).toBeGreaterThanOrEqual(12);
        expect(await page.evaluate<number>(lowestContrast)).toBeGreaterThanOrEqual(4.5);
        await page.context().close();
      });
    }
  }

  it('asks nobody, complains of nothing, and runs nothing that others wrote', async () => {
    const { page, requests, complaints } = await open({ viewport: desktop });
    await page.evaluate(openAll);
    expect(await page.locator('img, script, link, iframe, form').count()).toBe(0);
    expect(await page.innerText('body')).toContain(hostile);
    expect(requests).toEqual([url]);
    expect(complaints).toEqual([]);
    const policy = page.locator('meta[http-equiv="Content-Security-Policy"]');
    expect(await policy.getAttribute('content')).toContain("default-src 'none'");
    await page.context().close();
  });

  it('says everything without JavaScript', async () => {
    const { page, complaints } = await open({ viewport: phone, javaScriptEnabled: false });
    const report = await page.innerText('body');
    for (const part of [
      'The chain is unbroken',
      'Summary',
      'Kills',
      'What was held or found',
      'Who did what',
      'What it was allowed to do',
      'Timeline',
      'Posted the same credit note twice',
      'CHG-2217',
    ]) {
      expect(report).toContain(part);
    }
    const record = page.locator('details', { hasText: 'KillEngaged' }).first();
    await record.locator('summary').click();
    expect(await record.locator('dl').isVisible()).toBe(true);
    expect(complaints).toEqual([]);
    await page.context().close();
  });
});
