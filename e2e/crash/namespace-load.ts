/** Namespace operations under load, a few at a time: CREATE, MKDIR, REMOVE, RMDIR, RENAME (also over a name), LINK, SETATTR of the mode. */
import { FileType, Status } from '../../server/nfsd/file-system.ts';
import type { SeededRandom } from '../random.ts';
import type { FileHandle, StoreClient } from '../store-client.ts';
import { HarnessError, type Weather } from './data-slot.ts';
import { type ModelObject, NamespaceModel, type ObservedEntry } from './namespace-model.ts';

const DIRECTORIES = ['left', 'right'];
const NAMES_PER_DIRECTORY = 24;
const OUTSTANDING = 4;

export class NamespaceLoad {
  readonly #model = new NamespaceModel();
  readonly #random: SeededRandom;
  readonly #violation: (text: string) => void;
  readonly #weather: Weather;
  readonly #directories = new Map<string, FileHandle>();
  readonly #paths: readonly string[];
  operations = 0;

  constructor(random: SeededRandom, violation: (text: string) => void, weather: Weather) {
    this.#random = random;
    this.#violation = violation;
    this.#weather = weather;
    this.#paths = DIRECTORIES.flatMap((directory) => Array.from({ length: NAMES_PER_DIRECTORY }, (_, index) => `${directory}/name ${index}`));
  }

  /** Makes the two directories; once, before the first load. */
  async prepare(client: StoreClient): Promise<void> {
    for (const name of DIRECTORIES) {
      const made = await client.mkdir(client.root, name);
      if (made.status !== Status.OK) throw new HarnessError(`MKDIR ${name}: status ${made.status}`);
      this.#directories.set(name, made.handle);
    }
  }

  async load(client: StoreClient, stopped: () => boolean): Promise<void> {
    await Promise.all(Array.from({ length: OUTSTANDING }, () => this.#work(client, stopped)));
  }

  async #work(client: StoreClient, stopped: () => boolean): Promise<void> {
    while (!stopped()) {
      try {
        const sent = this.#next(client);
        if (sent === null) await new Promise((resolve) => setImmediate(resolve));
        else await sent;
      } catch (error) {
        if (error instanceof HarnessError) throw error;
        return;
      }
    }
  }

  #next(client: StoreClient): Promise<void> | null {
    const source = this.#random.pick(this.#paths);
    const target = this.#random.pick(this.#paths);
    if (source === target || !this.#model.isFree([source, target])) return null;
    const object = this.#model.names.get(source);
    const atTarget = this.#model.names.get(target);
    if (object === undefined) return this.#random.chance(0.8) ? this.#create(client, source) : this.#mkdir(client, source);
    const roll = this.#random.below(10);
    if (object.kind === 'directory') return roll < 5 ? this.#remove(client, source, object) : this.#rename(client, source, target, object, atTarget);
    if (roll < 3) return this.#remove(client, source, object);
    if (roll < 6) return this.#rename(client, source, target, object, atTarget);
    if (roll < 8) return atTarget === undefined ? this.#link(client, object, source, target) : null;
    return this.#chmod(client, source, object);
  }

  #at(path: string): [FileHandle, string] {
    const [directory = '', name = ''] = path.split('/');
    const handle = this.#directories.get(directory);
    if (handle === undefined) throw new HarnessError(`no directory ${directory}`);
    return [handle, name];
  }

  async #create(client: StoreClient, path: string): Promise<void> {
    const object: ModelObject = { kind: 'file', fileid: null, mode: 0o600 + this.#random.below(64) };
    const change = this.#model.begin(`CREATE ${path}`, new Map([[path, object]]));
    const answer = await client.create(...this.#at(path), 'guarded', { mode: object.mode });
    this.#expectOk(change.what, answer.status);
    object.fileid = answer.attributes?.fileid ?? null;
    this.#model.done(change);
  }

  async #mkdir(client: StoreClient, path: string): Promise<void> {
    const object: ModelObject = { kind: 'directory', fileid: null, mode: 0o755 };
    const change = this.#model.begin(`MKDIR ${path}`, new Map([[path, object]]));
    const answer = await client.mkdir(...this.#at(path));
    this.#expectOk(change.what, answer.status);
    object.fileid = answer.attributes?.fileid ?? null;
    this.#model.done(change);
  }

  async #remove(client: StoreClient, path: string, object: ModelObject): Promise<void> {
    const change = this.#model.begin(`REMOVE ${path}`, new Map([[path, null]]));
    const answer = object.kind === 'file' ? await client.remove(...this.#at(path)) : await client.rmdir(...this.#at(path));
    this.#expectOk(change.what, answer.status);
    this.#model.done(change);
  }

  #rename(client: StoreClient, source: string, target: string, object: ModelObject, atTarget: ModelObject | undefined): Promise<void> | null {
    if (atTarget !== undefined && (atTarget === object || atTarget.kind !== object.kind)) return null;
    const change = this.#model.begin(
      `RENAME ${source} to ${target}`,
      new Map<string, ModelObject | null>([
        [source, null],
        [target, object],
      ]),
    );
    return (async () => {
      const answer = await client.rename(...this.#at(source), ...this.#at(target));
      this.#expectOk(change.what, answer.status);
      this.#model.done(change);
    })();
  }

  async #link(client: StoreClient, object: ModelObject, source: string, target: string): Promise<void> {
    const change = this.#model.begin(`LINK ${source} as ${target}`, new Map([[target, object]]));
    const found = await client.lookup(...this.#at(source));
    this.#expectOk(`LOOKUP ${source}`, found.status);
    const answer = await client.link(found.handle, ...this.#at(target));
    this.#expectOk(change.what, answer.status);
    this.#model.done(change);
  }

  async #chmod(client: StoreClient, path: string, object: ModelObject): Promise<void> {
    const mode = 0o600 + this.#random.below(64);
    const change = this.#model.begin(`SETATTR ${path}`, new Map(), { object, after: mode });
    const found = await client.lookup(...this.#at(path));
    this.#expectOk(`LOOKUP ${path}`, found.status);
    const answer = await client.setattr(found.handle, { mode });
    this.#expectOk(change.what, answer.status);
    this.#model.done(change);
  }

  #expectOk(what: string, status: number): void {
    this.operations += 1;
    if (status === Status.OK) return;
    if (this.#weather.dying) throw new Error(`${what}: status ${status} of a dying router`);
    this.#violation(`${what} was answered with status ${status}`);
    throw new HarnessError(`${what}: status ${status}`);
  }

  /** After a restart: lists both directories and judges. Rejects when the connection is lost again. */
  async verify(client: StoreClient): Promise<void> {
    const observed = new Map<string, ObservedEntry>();
    for (const [directory, handle] of this.#directories) {
      for (const { name, attributes } of await client.list(handle)) {
        if (attributes === null) throw new HarnessError(`${directory}/${name} was listed without attributes`);
        const kind = attributes.type === FileType.DIR ? 'directory' : 'file';
        observed.set(`${directory}/${name}`, { fileid: attributes.fileid, kind, mode: attributes.mode & 0o7777, nlink: attributes.nlink });
      }
    }
    for (const violation of this.#model.verifyAndAdopt(observed)) this.#violation(violation);
  }
}
