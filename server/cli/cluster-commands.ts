/** `vferry router`, `volume` and `move`: their arguments and options. */
import { createInterface } from 'node:readline/promises';

import type { Command } from 'commander';

import { type ControlClient, type ControlContext, controlled } from './cluster-control.ts';
import type { ExitCode } from './exit-code.ts';
import { addSettingsOptions, settingsOf } from './settings-options.ts';
import type { Printer } from './status.ts';

/** Makes an action whose result becomes the exit code of the process. */
export type RunAction = (action: (command: Command) => ExitCode | Promise<ExitCode>) => (this: Command) => Promise<void>;

const ADMIN_NOTE = 'asks the router with these settings, over its admin port';

/** Adds the commands to `program`. */
export function addClusterCommands(program: Command, run: RunAction, print: Printer): void {
  const add = (parent: Command, name: string, description: string, action: (client: ControlClient, command: Command) => Promise<ExitCode>): Command =>
    addSettingsOptions(parent.command(name).description(description))
      .option('--json', 'as JSON')
      .action(run((command) => asked(command, print, (client) => action(client, command))));
  const flag = (command: Command, name: string): boolean => command.getOptionValue(name) === true;
  const argument = (command: Command, index: number): string => command.args[index] ?? '';

  const router = program.command('router').description(`routers of the cluster; ${ADMIN_NOTE}`);
  add(router, 'list', 'show all routers, their state and connection', (client) => client.listRouters());
  add(router, 'drain', 'move everything away from this router, for maintenance; it receives nothing until undrain or a restart', (client, command) =>
    client.drain(flag(command, 'wait')),
  ).option('--wait', 'show progress until nothing is left; Ctrl-C leaves the drain running');
  add(router, 'undrain', 'end a drain', (client) => client.undrain());
  add(router, 'forget', 'take a router that does not come back out of the list; not while it lives or owns anything', (client, command) =>
    client.forgetRouter(argument(command, 0)),
  ).argument('<router>', 'id of a router, or its beginning');

  const volume = program.command('volume').description(`volumes and files, and which router has them; ${ADMIN_NOTE}`);
  add(volume, 'list', 'show volumes and files with their router, state and protection', (client, command) => {
    const id: unknown = command.getOptionValue('router');
    return client.listVolumes(typeof id === 'string' ? id : null);
  }).option('--router <id>', 'only those of this router (the beginning of its id is enough)');
  add(volume, 'move', 'move a volume or file to another router while it is used', (client, command) =>
    client.moveVolume(argument(command, 0), argument(command, 1), flag(command, 'wait')),
  )
    .argument('<object>', 'path in the datastore (/vm1/vm1-flat.vmdk), or fileid')
    .argument('<router>', 'id of a router, or its beginning')
    .option('--wait', 'show progress until it is there; Ctrl-C leaves the move running');
  for (const [name, pinned, description] of [
    ['pin', true, 'keep a volume or file where it is, whatever is forwarded'],
    ['unpin', false, 'let it follow its clients again'],
  ] as const) {
    add(volume, name, description, (client, command) => client.pin(argument(command, 0), pinned)).argument(
      '<object>',
      'path in the datastore, or fileid',
    );
  }
  add(volume, 'takeover', 'serve an object of a dead router here; says what would be given up, and does it only with --force', (client, command) =>
    client.takeOver(argument(command, 0), flag(command, 'force'), flag(command, 'yes')),
  )
    .argument('<object>', 'path in the datastore, or fileid')
    .option('--force', 'also if acknowledged data is given up')
    .option('--yes', 'do not ask');

  const move = program.command('move').description(`moves of volumes and files; ${ADMIN_NOTE}`);
  add(move, 'list', 'show the moves that run and those that ended', (client) => client.listMoves());
  add(move, 'abort', 'abort a running move; the object stays where it is', (client, command) => client.abortMove(argument(command, 0))).argument(
    '<id>',
    'id of the move, from move list',
  );
}

async function asked(command: Command, print: Printer, ask: (client: ControlClient) => Promise<ExitCode>): Promise<ExitCode> {
  const controller = new AbortController();
  const interrupt = (): void => controller.abort();
  process.once('SIGINT', interrupt);
  const context: ControlContext = {
    admin: settingsOf(command, process.env).settings.admin,
    json: command.getOptionValue('json') === true,
    print,
    terminal: process.stderr.isTTY,
    interrupted: controller.signal,
    confirm: process.stdin.isTTY ? confirmed : null,
  };
  try {
    return await controlled(context, ask);
  } finally {
    process.off('SIGINT', interrupt);
  }
}

/** Only the whole word counts. */
async function confirmed(question: string): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await lines.question(question)).trim() === 'yes';
  } finally {
    lines.close();
  }
}
