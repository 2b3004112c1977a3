/**
 * The load generator's process: takes orders over IPC (`GeneratorOrder`) and answers each with a `GeneratorAnswer`. One connection, kept
 * for all runs, so that both servers meet the same warm code.
 */
import type { LoadResult, Workload } from './nfs-load.ts';
import { NfsLoad } from './nfs-load.ts';

export type GeneratorOrder =
  | {
      readonly order: 'connect';
      readonly host: string;
      readonly nfsPort: number;
      readonly mountPort: number;
      readonly exportPath: string;
      readonly fileName: string;
    }
  | { readonly order: 'run'; readonly work: Workload };

export type GeneratorAnswer = { readonly result: LoadResult | null } | { readonly error: string };

let load: NfsLoad | null = null;
let root: Buffer = Buffer.alloc(0);
let file: Buffer = Buffer.alloc(0);

async function obey(order: GeneratorOrder): Promise<LoadResult | null> {
  if (order.order === 'connect') {
    const mounting = await NfsLoad.connect(order.host, order.mountPort);
    root = await mounting.mount(order.exportPath);
    await mounting[Symbol.asyncDispose]();
    load = await NfsLoad.connect(order.host, order.nfsPort);
    file = await load.open(root, order.fileName);
    return null;
  }
  if (load === null) throw new Error('not connected');
  return await load.run(order.work, root, file);
}

process.on('message', (order: GeneratorOrder) => {
  void obey(order).then(
    (result) => process.send?.({ result } satisfies GeneratorAnswer),
    (error: unknown) => process.send?.({ error: error instanceof Error ? error.message : String(error) } satisfies GeneratorAnswer),
  );
});
