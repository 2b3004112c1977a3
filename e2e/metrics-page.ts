/** What /metrics says, as numbers. */

/** Sum of the samples of `name` whose labels include `labels`; 0 without any. */
export function metric(page: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  let sum = 0;
  for (const line of page.split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match === null || match[1] !== name) continue;
    if (Object.entries(labels).every(([label, value]) => (match[2] ?? '').includes(`${label}="${value}"`))) sum += Number(match[3]);
  }
  return sum;
}
