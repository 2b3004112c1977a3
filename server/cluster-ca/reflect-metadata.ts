/**
 * What @peculiar/x509 (by way of tsyringe) asks of `Reflect` and no JavaScript engine has: metadata of classes. Imported for its effect, before that
 * package. Loaded only by the commands that make certificates, never by a router that serves.
 */
type Key = string | symbol;

const metadata = new WeakMap<object, Map<Key, unknown>>();

function define(key: Key, value: unknown, target: object): void {
  let own = metadata.get(target);
  if (own === undefined) metadata.set(target, (own = new Map()));
  own.set(key, value);
}

function getOwn(key: Key, target: object): unknown {
  return metadata.get(target)?.get(key);
}

function get(key: Key, target: object): unknown {
  for (let object: object | null = target; object !== null; object = Object.getPrototypeOf(object) as object | null) {
    const value = getOwn(key, object);
    if (value !== undefined) return value;
  }
  return undefined;
}

if (!('getMetadata' in Reflect)) {
  const decorator = (key: Key, value: unknown) => (target: object) => define(key, value, target);
  Object.assign(Reflect, { defineMetadata: define, getOwnMetadata: getOwn, getMetadata: get, metadata: decorator });
}
