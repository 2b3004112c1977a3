/** One round of fuzzing: `node e2e/fuzzing/run-module.ts MODULE SEED ITERATIONS`. Exits with an error when the module finds something. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

type Fuzz = (seed: number, iterations: number) => unknown;

const [path = '', seed = '', iterations = ''] = process.argv.slice(2);
const exported = (await import(pathToFileURL(resolve(path)).href)) as Record<string, unknown>;
const targets = Object.entries(exported).filter(([name, value]) => name.startsWith('fuzz') && typeof value === 'function');
if (targets.length === 0) throw new Error(`${path} exports no function fuzz...(seed, iterations)`);
for (const [, fuzz] of targets) await (fuzz as Fuzz)(Number(seed), Number(iterations));
// What a module left open (a listening server) is its bug, but not what this round is about.
process.exit();
