import type { PolicyRule } from '../../api/objects.ts';
import type { Permission } from '../../api/automation-identity.ts';

/** The rules of a Role that grants exactly `permissions`, in their order. */
export function rulesOf(permissions: readonly Permission[]): PolicyRule[] {
  return permissions.map(({ apiGroups, resources, resourceNames = [], verbs }) => ({
    apiGroups,
    resources,
    ...(resourceNames.length > 0 && { resourceNames }),
    verbs,
  }));
}

/**
 * What `wanted` and `granted` both allow, so that replacing `granted` by it only ever takes away.
 * Wanted rules that are granted as they are stay as they are: what equals itself isn't rewritten.
 */
export function intersectRules(
  wanted: readonly PolicyRule[],
  granted: readonly PolicyRule[],
): PolicyRule[] {
  const kept = wanted.filter((rule) => granted.some((other) => areCovered([rule], [other])));
  for (const rule of wanted) {
    for (const other of granted) {
      const part = intersection(rule, other);
      if (part !== undefined && !kept.some((standing) => areCovered([part], [standing]))) {
        kept.push(part);
      }
    }
  }
  return kept;
}

/** Whether `granted` allows whatever `rules` allow, several of its rules together included. */
export function areCovered(rules: readonly PolicyRule[], granted: readonly PolicyRule[]): boolean {
  return subtractRules(rules, granted).length === 0;
}

/**
 * What `rules` allow beyond `granted`, as rules that don't overlap where the given ones didn't. Who
 * covers whom is as the API server has it when somebody grants (`Covers` in `k8s.io/component-helpers`,
 * auth/rbac/validation): `*` is covered by `*` alone, a subresource by the same one of `*`, a rule without
 * names only by one without names, a path of URLs by a shorter one that ends in `*`.
 *
 * A rule that falls into more than a thousand pieces is answered with all that is left of it by
 * then: never less than the truth.
 */
export function subtractRules(
  rules: readonly PolicyRule[],
  granted: readonly PolicyRule[],
): PolicyRule[] {
  const taken = granted.map((rule) => ({
    resources: boxOf(rule).map((axis) => new Set(axis)),
    urls: urlBoxOf(rule).map((axis) => new Set(axis)),
  }));
  return rules.flatMap((rule) => [
    ...subtract(
      boxOf(rule),
      taken.map(({ resources }) => resources),
      resourceAxes,
    ).map(ruleOf),
    ...subtract(
      urlBoxOf(rule),
      taken.map(({ urls }) => urls),
      urlAxes,
    ).map(urlRuleOf),
  ]);
}

/** One list of items for each axis; what it allows is every combination of one item of each. */
type Box = readonly (readonly string[])[];

/** Whether what is granted along an axis covers one item. */
type Axis = (granted: ReadonlySet<string>, item: string) => boolean;

/** Pieces of one rule that are looked at. */
const maxPieces = 1_000;

/** Stands for every name; no name of an object has such a character. */
const everyName = '\u0000';

const orAny: Axis = (granted, item) => granted.has('*') || granted.has(item);

const resource: Axis = (granted, item) => {
  if (orAny(granted, item)) return true;
  const slash = item.indexOf('/');
  return slash >= 0 && granted.has(`*${item.slice(slash)}`);
};

const objectName: Axis = (granted, item) => granted.has(everyName) || granted.has(item);

const url: Axis = (granted, item) => {
  if (granted.has(item)) return true;
  for (const known of granted) {
    if (known.endsWith('*') && item.startsWith(known.replace(/\*+$/, ''))) return true;
  }
  return false;
};

const resourceAxes: readonly Axis[] = [orAny, resource, objectName, orAny];
const urlAxes: readonly Axis[] = [url, orAny];

function boxOf({ apiGroups = [], resources = [], resourceNames = [], verbs }: PolicyRule): Box {
  return [apiGroups, resources, resourceNames.length === 0 ? [everyName] : resourceNames, verbs];
}

function urlBoxOf({ nonResourceURLs = [], verbs }: PolicyRule): Box {
  return [nonResourceURLs, verbs];
}

function ruleOf([apiGroups = [], resources = [], names = [], verbs = []]: Box): PolicyRule {
  return {
    apiGroups: [...apiGroups],
    resources: [...resources],
    ...(!names.includes(everyName) && { resourceNames: [...names] }),
    verbs: [...verbs],
  };
}

function urlRuleOf([nonResourceURLs = [], verbs = []]: Box): PolicyRule {
  return { nonResourceURLs: [...nonResourceURLs], verbs: [...verbs] };
}

function subtract(
  box: Box,
  granted: readonly (readonly ReadonlySet<string>[])[],
  axes: readonly Axis[],
): Box[] {
  const whole = box.map((axis) => [...new Set(axis)]);
  if (whole.some((axis) => axis.length === 0)) return [];
  let left: Box[] = [whole];
  for (const other of granted) {
    if (left.length > maxPieces) break;
    left = left.flatMap((piece) => cut(piece, other, axes));
  }
  return left;
}

/** What lies outside of `granted` along one axis is left; what lies inside is cut along the next. */
function cut(box: Box, granted: readonly ReadonlySet<string>[], axes: readonly Axis[]): Box[] {
  const pieces: Box[] = [];
  let inside = box;
  for (const [index, isCovered] of axes.entries()) {
    const items = inside[index] ?? [];
    const covered = items.filter((item) => isCovered(granted[index] ?? new Set(), item));
    if (covered.length === 0) return [box];
    if (covered.length < items.length) {
      const kept = new Set(covered);
      const outside = items.filter((item) => !kept.has(item));
      pieces.push(inside.with(index, outside));
      inside = inside.with(index, covered);
    }
  }
  return pieces;
}

function intersection(a: PolicyRule, b: PolicyRule): PolicyRule | undefined {
  const apiGroups = common(a.apiGroups, b.apiGroups);
  const resources = common(a.resources, b.resources);
  const verbs = common(a.verbs, b.verbs);
  if (apiGroups.length === 0 || resources.length === 0 || verbs.length === 0) return undefined;
  if (isUnnamed(a) && isUnnamed(b)) return { apiGroups, resources, verbs };
  const resourceNames = isUnnamed(a)
    ? (b.resourceNames ?? [])
    : isUnnamed(b)
      ? (a.resourceNames ?? [])
      : a.resourceNames?.filter((name) => b.resourceNames?.includes(name));
  // An empty list would mean every name.
  if (resourceNames === undefined || resourceNames.length === 0) return undefined;
  return { apiGroups, resources, resourceNames: [...resourceNames], verbs };
}

/** No names at all means every name. */
function isUnnamed({ resourceNames }: PolicyRule): boolean {
  return resourceNames === undefined || resourceNames.length === 0;
}

function common(a: readonly string[] = [], b: readonly string[] = []): string[] {
  if (b.includes('*')) return [...a];
  if (a.includes('*')) return [...b];
  return a.filter((item) => b.includes(item));
}

/** Items of a list that a message shows. */
const maxItems = 3;

/**
 * A rule in words, such as `get, list configmaps of apps named settings`.
 *
 * @param list how many items are written; default: a few of them
 */
export function ruleText(
  { apiGroups = [], resources = [], resourceNames = [], nonResourceURLs = [], verbs }: PolicyRule,
  list: (items: readonly string[]) => string = few,
): string {
  if (nonResourceURLs.length > 0) return `${list(verbs)} ${list(nonResourceURLs)}`;
  const groups = list(apiGroups.filter((group) => group !== ''));
  const names = resourceNames.length === 0 ? '' : ` named ${list(resourceNames)}`;
  return `${list(verbs)} ${list(resources)}${groups === '' ? '' : ` of ${groups}`}${names}`;
}

function few(items: readonly string[]): string {
  const shown = items.slice(0, maxItems).map((item) => item.slice(0, 80));
  return `${shown.join(', ')}${items.length > maxItems ? ', …' : ''}`;
}
