/**
 * Forgets what was set first, until no more than `max` entries are left. A key that is set again
 * keeps its place; delete it before, to have it count as the newest.
 */
export function dropOldest<Key>(map: Map<Key, unknown>, max: number): void {
  for (const oldest of map.keys()) {
    if (map.size <= max) return;
    map.delete(oldest);
  }
}
