/**
 * What is open here says the same as the registry, also when nobody tells: another router that removed, renamed or changed the mode of an object tells its owner,
 * but it may die before it could, or be cut from it for longer than a client waits (ObjectPlaces.inodeChanged). So the owner reads the inodes of what it has
 * open again every LOOK_MS. By itself, behind no backend: what was answered as removed is not to be shown for longer than half a minute.
 */
import type { Inode } from '../../registry/inode.ts';
import type { Namespace } from '../../registry/ports.ts';
import { isEnvironmentError } from '../core/errors.ts';
import type { FileId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import type { OpenObjects, ServedObject } from './open-objects.ts';

const LOOK_MS = 10_000;
/** Inodes asked for together. */
const AT_ONCE = 64;

export class InodeWatch {
  readonly #objects: Pick<OpenObjects, 'all' | 'get' | 'held' | 'observe' | 'unlink'>;
  readonly #namespace: Pick<Namespace, 'inode' | 'tombstones'>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #cancelNext: () => void = () => undefined;
  #running: Promise<void> | null = null;
  #stopped = false;

  constructor(components: {
    objects: Pick<OpenObjects, 'all' | 'get' | 'held' | 'observe' | 'unlink'>;
    namespace: Pick<Namespace, 'inode' | 'tombstones'>;
    clock: Clock;
    logger: Logger;
  }) {
    this.#objects = components.objects;
    this.#namespace = components.namespace;
    this.#clock = components.clock;
    this.#logger = components.logger;
  }

  start(): void {
    if (this.#stopped) return;
    this.#cancelNext = this.#clock.after(LOOK_MS, () => {
      this.#running = this.#round()
        .catch((error: unknown) => {
          if (!isEnvironmentError(error)) throw error;
          this.#logger.debug({ err: error }, 'what is open here could not be compared with the registry; it is tried again');
        })
        .finally(() => {
          this.#running = null;
          this.start();
        });
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelNext();
    await this.#running;
  }

  async #round(): Promise<void> {
    const all = [...this.#objects.all()];
    for (let from = 0; from < all.length && !this.#stopped; from += AT_ONCE) {
      await Promise.all(all.slice(from, from + AT_ONCE).map((served) => this.#look(served)));
    }
  }

  async #look(served: ServedObject): Promise<void> {
    const { fileid } = served.driven;
    const known = served.inode;
    if (served.unlinked) return;
    const inode = await this.#namespace.inode(fileid, known.inodeGeneration);
    // A registry that just forgot it, and will be told again, has no tombstone of it.
    if (inode === null && !(await this.#isRemoved(fileid))) return;
    // One that is on its way, or of which something was heard meanwhile, is looked at again the next time: this may be older.
    if (this.#stopped || this.#objects.get(fileid) !== served || served.inode !== known || this.#objects.held(fileid) !== null) return;
    if (inode === null) await this.#objects.unlink(fileid);
    else if (!isSame(inode, known)) this.#objects.observe(inode);
  }

  async #isRemoved(fileid: FileId): Promise<boolean> {
    const [first] = await this.#namespace.tombstones((fileid - 1) as FileId, 1);
    return first?.inode.fileid === fileid;
  }
}

/** In all that the registry decides and an open object shows. */
function isSame(a: Inode, b: Inode): boolean {
  return (
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.nlink === b.nlink &&
    a.parent === b.parent &&
    a.ctime.seconds === b.ctime.seconds &&
    a.ctime.nanoseconds === b.ctime.nanoseconds
  );
}
