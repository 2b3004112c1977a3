// npm 11.6 and older (npm 10.8 ships with Node 20) lose the bin link of an optional dependency when they discard its sibling
// for the other CPU (npm/cli#4362). Without node_modules/.bin/node, `npm start` would run the system's Node 20 and die on
// the first .ts file. Plain JavaScript: this runs on whatever Node the machine has.
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

const bin = join('node_modules', '.bin');
const target = join('..', `node-linux-${process.arch}`, 'bin', 'node');
if (!existsSync(join(bin, 'node'))) {
  if (!existsSync(join(bin, target))) {
    console.error(
      `vferry needs Node 24 from the package node-linux-${process.arch}, which was not installed. ` +
        'Supported: Linux on x64 and arm64, installed without --omit=optional.',
    );
    process.exit(1);
  }
  mkdirSync(bin, { recursive: true });
  symlinkSync(target, join(bin, 'node'));
}
