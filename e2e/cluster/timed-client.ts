/** A client whose READs and WRITEs are timed: what the machine behind it feels of what happens to the routers. */
import type { StoreClient } from '../store-client.ts';

/** When the longest operation began and how long it took, in milliseconds; over all clients that share it. */
export class Stalls {
  #longestMs = 0;
  #operations = 0;

  note(ms: number): void {
    this.#operations += 1;
    if (ms > this.#longestMs) this.#longestMs = ms;
  }

  /** Of the time since the last call of this. */
  take(): { readonly longestMs: number; readonly operations: number } {
    const taken = { longestMs: this.#longestMs, operations: this.#operations };
    this.#longestMs = 0;
    this.#operations = 0;
    return taken;
  }
}

export function timedClient(client: StoreClient, stalls: Stalls): StoreClient {
  const timed = async <T>(call: () => Promise<T>): Promise<T> => {
    const began = performance.now();
    const result = await call();
    stalls.note(performance.now() - began);
    return result;
  };
  return {
    root: client.root,
    getattr: (object) => timed(() => client.getattr(object)),
    setattr: (object, changes) => timed(() => client.setattr(object, changes)),
    lookup: (directory, name) => client.lookup(directory, name),
    read: (object, offsetBytes, countBytes) => timed(() => client.read(object, offsetBytes, countBytes)),
    write: (object, offsetBytes, data, stability) => timed(() => client.write(object, offsetBytes, data, stability)),
    commit: (object) => timed(() => client.commit(object)),
    create: (directory, name, how, attributes) => client.create(directory, name, how, attributes),
    mkdir: (directory, name) => client.mkdir(directory, name),
    remove: (directory, name) => client.remove(directory, name),
    rmdir: (directory, name) => client.rmdir(directory, name),
    rename: (fromDirectory, fromName, toDirectory, toName) => client.rename(fromDirectory, fromName, toDirectory, toName),
    link: (object, directory, name) => client.link(object, directory, name),
    list: (directory) => client.list(directory),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}
