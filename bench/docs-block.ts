/** The parts of docs/PERFORMANCE.md that the benchmarks write. */
import * as fs from 'node:fs';
import { join } from 'node:path';

const PAGE = join(import.meta.dirname, '..', 'docs', 'PERFORMANCE.md');

/** Replaces what is between the marks of `name` by `text`. @throws Error when the page lacks them. */
export function writeDocsBlock(name: 'bench' | 'bench-backends' | 'bench-cluster', text: string): void {
  const page = fs.readFileSync(PAGE, 'utf8');
  const begin = new RegExp(`<!-- ${name}: written by .*-->`).exec(page);
  const end = page.indexOf(`<!-- ${name}: end -->`);
  if (begin === null || end < begin.index) throw new Error(`${PAGE} lacks the marks of ${name}`);
  const from = begin.index + begin[0].length;
  fs.writeFileSync(PAGE, `${page.slice(0, from)}\n\n${text}\n\n${page.slice(end)}`);
  process.stdout.write(`written: ${PAGE}\n`);
}
