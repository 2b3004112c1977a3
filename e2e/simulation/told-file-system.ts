/** READ and WRITE as nfsd asks for them: told their answer where the file system can do without a promise, so that what is forwarded goes its fast way. */
import type { MaybePromise } from '../../server/core/maybe-promise.ts';
import type { FileSystem, Later } from '../../server/nfsd/file-system.ts';

type Ask = (...args: unknown[]) => MaybePromise<unknown>;

export function toldFileSystem(inner: FileSystem): FileSystem {
  return new Proxy(inner, {
    get(target, method) {
      const value: unknown = Reflect.get(target, method, target);
      if (typeof value !== 'function') return value;
      const ask = (value as Ask).bind(target);
      if (method !== 'read' && method !== 'write') return ask;
      return (...args: unknown[]) =>
        new Promise((resolve, reject) => {
          const later: Later<unknown> = { settle: resolve, broken: reject };
          const answer = ask(...args, later);
          if (answer !== null) resolve(answer);
        });
    },
  });
}
