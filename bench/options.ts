/** The command line of the benchmark. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { CASES } from './cases.ts';

export interface BenchOptions {
  /** Names or parts of names; empty: all. */
  readonly filters: readonly string[];
  readonly rounds: number;
  readonly seconds: number;
  readonly only: 'vferry' | 'ganesha' | null;
  readonly fileBytes: number;
  /** Both servers keep their data below it. */
  readonly directory: string;
  readonly seed: number;
  readonly writeDocs: boolean;
  /** Name of the one case to profile vferry in. */
  readonly profile: string | null;
  /** See `VferryOptions.command`. */
  readonly vferryCommand: readonly string[] | null;
  readonly fileName: string;
}

export const USAGE = `usage: npm run bench -- [CASE ...] [options]
  CASE               only cases whose name contains it: ${CASES.map((one) => one.name).join(', ')}
  backends           the Storage Backends instead: npm run bench -- backends --help
  --rounds N         measured rounds of each case, servers alternating (3)
  --seconds S        length of one run (2); sequential writes take one pass over the file instead
  --only SERVER      vferry or ganesha
  --size MIB         file size in MiB (1024)
  --dir DIR          where both keep their data (.cache/bench)
  --seed N           of offsets and of the mix (1)
  --profile CASE     CPU profile of vferry in that case: the functions with the largest self time
  --write-docs       write the table to docs/PERFORMANCE.md
  --vferry-command "main.ts --port {nfs} ..."   another NFS server in vferry's place ({nfs}, {admin}, {data} are replaced)
  --file NAME        the file's name (bench-flat.vmdk)
`;

/** @throws Error with a message for the user. */
export function parseOptions(args: readonly string[]): BenchOptions {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '2' },
      only: { type: 'string' },
      size: { type: 'string', default: '1024' },
      dir: { type: 'string', default: join(import.meta.dirname, '..', '.cache', 'bench') },
      seed: { type: 'string', default: '1' },
      profile: { type: 'string' },
      'write-docs': { type: 'boolean', default: false },
      'vferry-command': { type: 'string' },
      file: { type: 'string', default: 'bench-flat.vmdk' },
    },
  });
  if (values.only !== undefined && values.only !== 'vferry' && values.only !== 'ganesha') throw new Error('--only: vferry or ganesha');
  if (values.profile !== undefined && !CASES.some((one) => one.name === values.profile)) throw new Error(`--profile: no case ${values.profile}`);
  for (const filter of positionals) if (!CASES.some((one) => one.name.includes(filter))) throw new Error(`no case is named like ${filter}`);
  return {
    filters: positionals,
    rounds: number('rounds', values.rounds, 1, 100),
    seconds: number('seconds', values.seconds, 0.1, 600),
    only: values.only ?? null,
    fileBytes: Math.floor(number('size', values.size, 64, 65_536)) * 2 ** 20,
    directory: values.dir,
    seed: Math.floor(number('seed', values.seed, 1, 2 ** 31)),
    writeDocs: values['write-docs'],
    profile: values.profile ?? null,
    vferryCommand: values['vferry-command']?.split(' ') ?? null,
    fileName: values.file,
  };
}

function number(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < least || value > most) throw new Error(`--${name}: a number from ${least} to ${most}, not ${text}`);
  return value;
}
