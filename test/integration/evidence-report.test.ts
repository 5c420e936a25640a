import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderReport } from '../../src/evidence/report.ts';
import { startBrowser } from '../install/browser.ts';

let browser: Browser;

beforeAll(async () => {
  browser = await startBrowser();
});

afterAll(async () => {
  await browser?.close();
});

describe('the report of a case in a browser', () => {
  it('renders', async () => {
    const page = await browser.newPage();
    await page.setContent(
      renderReport({
        namespace: 'finance',
        workflow: 'invoice-posting',
        exportedAt: '2026-01-31T12:00:00.000Z',
        records: [],
        proof: { problems: [], keys: [], anchored: 0 },
        notes: [],
        credentials: [],
      }),
    );
    expect(await page.title()).toBe('Evidence of finance/invoice-posting');
    expect(await page.innerText('body')).toContain('The chain is unbroken');
  });
});
