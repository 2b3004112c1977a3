// After `npm ci`: puts into node_modules/.bin what npm leaves out. Plain JavaScript: this runs on whatever Node the machine has.
//
// node: npm 11.6 and older (npm 10.8 ships with Node 20) lose the bin link of an optional dependency when they discard its sibling for the
// other CPU (npm/cli#4362). Without it `npm start` would run the system's Node 20 and die on the first .ts file.
// vferry: npm links no bin of the root package. If package.json named one, `npx vferry` would install this directory into npx's cache first,
// over the network, and npm 11.19 refuses that because of this very script (strict-allow-scripts). A link is all that npx needs.
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

const bin = join('node_modules', '.bin');
const node = join('..', `node-linux-${process.arch}`, 'bin', 'node');

mkdirSync(bin, { recursive: true });
if (!existsSync(join(bin, node))) {
  console.error(
    `vferry needs Node 24 from the package node-linux-${process.arch}, which was not installed. ` +
      'Supported: Linux on x64 and arm64, installed without --omit=optional.',
  );
  process.exit(1);
}
if (!existsSync(join(bin, 'node'))) symlinkSync(node, join(bin, 'node'));
if (!existsSync(join(bin, 'vferry'))) symlinkSync(join('..', '..', 'bin', 'vferry.js'), join(bin, 'vferry'));
