import { chromium, type Browser } from 'playwright-core';
import { findChromium } from './chromium.ts';

/**
 * A headless browser. Whoever starts it closes it.
 *
 * @throws ProgramsMissingError where there is none
 */
export async function startBrowser(log: (line: string) => void = console.log): Promise<Browser> {
  return chromium.launch(await findChromium(log));
}
