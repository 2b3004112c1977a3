/** A client that does with NFS3ERR_JUKEBOX what kernels and ESXi do: it comes back later, and its user hears nothing of it. */
import { Status } from '../server/nfsd/file-system.ts';
import { connectStore, type StoreAddress } from './datastore-client.ts';
import type { StoreClient } from './store-client.ts';

const PAUSE_MS = 100;

/** How often calls were told to come back. */
export class Patience {
  times = 0;
}

/** Like `connectStore`; every call is sent again until it is answered with something else than JUKEBOX. */
export async function connectPatiently(
  address: StoreAddress,
  options: { readonly timeoutMs?: number } = {},
  patience = new Patience(),
): Promise<StoreClient> {
  const client = await connectStore(address, options);
  const again = async <T extends { readonly status: number }>(call: () => Promise<T>): Promise<T> => {
    for (;;) {
      const answer = await call();
      if (answer.status !== Status.JUKEBOX) return answer;
      patience.times += 1;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  };
  return {
    root: client.root,
    getattr: (object) => again(() => client.getattr(object)),
    setattr: (object, changes) => again(() => client.setattr(object, changes)),
    lookup: (directory, name) => again(() => client.lookup(directory, name)),
    read: (object, offsetBytes, countBytes) => again(() => client.read(object, offsetBytes, countBytes)),
    write: (object, offsetBytes, data, stability) => again(() => client.write(object, offsetBytes, data, stability)),
    commit: (object) => again(() => client.commit(object)),
    create: (directory, name, how, attributes) => again(() => client.create(directory, name, how, attributes)),
    mkdir: (directory, name) => again(() => client.mkdir(directory, name)),
    remove: (directory, name) => again(() => client.remove(directory, name)),
    rmdir: (directory, name) => again(() => client.rmdir(directory, name)),
    rename: (fromDirectory, fromName, toDirectory, toName) => again(() => client.rename(fromDirectory, fromName, toDirectory, toName)),
    link: (object, directory, name) => again(() => client.link(object, directory, name)),
    list: (directory) => client.list(directory),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}
