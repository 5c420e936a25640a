import { statSync } from 'node:fs';
import path from 'node:path';
import { loadAll } from 'js-yaml';
import { describe, expect, it } from 'vitest';
import { kinds } from './api/kinds.ts';
import { checkCommandLine } from './cli/run.ts';
import { blocksOf, codeOf, commandsOf, pages, textOf } from './docs.testing.ts';
import { alertGroups } from './install/alerts.ts';
import { userRoles } from './install/rbac.ts';
import { metricsReference } from './observability/metrics.ts';

const root = path.dirname(import.meta.dirname);

/** As GitHub makes them of headings. */
function anchorsOf(page: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, title = ''] of textOf(page).matchAll(/^#+ (.+)$/gm)) {
    const slug = title
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(/\s/g, '-');
    let anchor = slug;
    for (let count = 1; anchors.has(anchor); count++) anchor = `${slug}-${count}`;
    anchors.add(anchor);
  }
  return anchors;
}

/** Every `kubectl guardrails …` in a page's code, split as a shell would. */
function commandLinesOf(page: string): string[][] {
  return (
    codeOf(textOf(page))
      // How the commands are written, rather than commands.
      .filter(({ language }) => language !== 'text')
      .map(({ text }) => text.replaceAll(/\\\n\s*/g, ' '))
      .flatMap((code) => [...code.matchAll(/kubectl guardrails ([a-z][^\n`|)]*)/g)])
      .map(([, rest = '']) => rest.replace(/\s#.*$/, ''))
      .map((rest) =>
        [...rest.matchAll(/"([^"]*)"|'([^']*)'|([^\s"';]+)/g)].map(
          ([, double, single, bare]) => double ?? single ?? bare ?? '',
        ),
      )
  );
}

describe.each(pages)('%s', (page) => {
  it('links to what there is', () => {
    for (const [, target = ''] of textOf(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [file = '', anchor] = target.split('#');
      const to = file === '' ? page : path.join(path.dirname(page), file);
      expect(() => statSync(path.join(root, to)), target).not.toThrow();
      if (anchor !== undefined) expect([...anchorsOf(to)], target).toContain(anchor);
    }
  });

  it('shows commands that there are', () => {
    for (const words of commandLinesOf(page)) {
      if (words.includes('…')) continue;
      // How a command is written, rather than one.
      const argv = words.map((word) => word.replaceAll(/[[\]]/g, ''));
      expect(() => checkCommandLine(argv), words.join(' ')).not.toThrow();
    }
  });

  it('names metrics and alerts that there are', () => {
    const alerts = new Set(alertGroups.flatMap((group) => group.rules.map(({ alert }) => alert)));
    const named = textOf(page).matchAll(/`(automation_guardrails_\w+|AutomationGuardrails\w+)`/g);
    for (const [, name = ''] of named) {
      if (name.startsWith('Auto')) expect(alerts).toContain(name);
      else expect(metricsReference()).toContain(`## ${name}\n`);
    }
  });

  it('names roles for people that there are', () => {
    const roles = new Set(userRoles.map(({ name }) => name));
    for (const [, name = ''] of textOf(page).matchAll(
      /--clusterrole=automation-guardrails-([\w-]+)/g,
    )) {
      expect(roles).toContain(name);
    }
  });

  it('shows objects of our kinds as the schema has them', () => {
    for (const block of blocksOf(textOf(page), 'yaml')) {
      for (const document of loadAll(block)) {
        const { kind: name, apiVersion, spec } = (document ?? {}) as Record<string, unknown>;
        if (!String(apiVersion).startsWith('automationguardrails.dev/')) continue;
        const kind = kinds.find(({ resource }) => resource.kind === name);
        expect(kind, String(name)).toBeDefined();
        const { success, error } = kind?.spec.safeParse(spec) ?? {};
        expect(success, JSON.stringify(error?.issues)).toBe(true);
      }
    }
  });

  it('has blocks of code that parse', () => {
    for (const block of blocksOf(textOf(page), 'yaml')) {
      expect(() => loadAll(block), block.slice(0, 200)).not.toThrow();
    }
  });
});

it('the guide for platform engineers names every role for people', () => {
  const guide = textOf('docs/guides/platform-engineer.md');
  for (const { name } of userRoles)
    expect(guide).toContain(`| \`automation-guardrails-${name}\` |`);
});

it('what people type is told from what is printed, named or explained', () => {
  const page = [
    '`kubectl guardrails kill` names one, `kubectl -n a get b` and `kubectl get a \\| grep b` are typed.',
    '',
    '   ```sh',
    '   # first',
    '   kubectl get a \\',
    '     -o yaml  # all of it',
    '   kubectl create -f - <<END',
    '   kind: A',
    '   END',
    '   ```',
    '',
    '```',
    '$ kubectl get b',
    'NAME',
    '```',
  ];
  expect(commandsOf(page.join('\n'))).toEqual([
    'kubectl -n a get b',
    'kubectl get a | grep b',
    'kubectl get a -o yaml',
    'kubectl create -f - <<END\nkind: A\nEND',
    'kubectl get b',
  ]);
});

it('the pages show commands at all', () => {
  expect(pages.flatMap(commandLinesOf).length).toBeGreaterThan(50);
});

it('the index of the documentation has every page but the decisions', () => {
  const index = textOf('docs/README.md');
  const linked = [...index.matchAll(/\]\(([^)\s#]+)/g)].map(([, target = '']) => target);
  const there = pages
    .filter((page) => page.startsWith('docs/') && !page.startsWith('docs/decisions/'))
    .map((page) => path.relative('docs', page));
  expect(there.filter((page) => page !== 'README.md' && !linked.includes(page))).toEqual([]);
});
