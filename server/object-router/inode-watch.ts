/**
 * What is open here says the same as the registry, also when nobody tells: another router that removed, renamed or changed the mode of an object tells its owner,
 * but it may die before it could, or be cut from it for longer than a client waits (ObjectPlaces.inodeChanged). So the owner reads the inodes of what it has
 * open again every LOOK_MS, evenly over that time: of thousands of open objects the registry sees a trickle. By itself, behind no backend: what was answered as
 * removed is not to be shown for longer than half a minute.
 *
 * It never goes back: a registry that failed over may have forgotten what this router was told (decision 0021) until the router that changed it is back. Every
 * change of an inode in the registry moves its ctime on, so only what is later than what is known here is taken over. Left: an owner's copy of its own, later
 * times in a record of which the registry forgot the mode looks like a later mode, until that router is back.
 */
import type { Namespace } from '../../registry/ports.ts';
import { errorCode, isEnvironmentError } from '../core/errors.ts';
import type { FileId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import { compareTimestamp } from '../core/time.ts';
import type { Clock } from '../core/time.ts';
import type { OpenObjects, ServedObject } from './open-objects.ts';

const LOOK_MS = 10_000;
/** Inodes asked for together, mostly. */
const AT_ONCE = 8;
/** Between two such parts: a timer more often than that costs more than what it asks. */
const STEP_MS_MIN = 20;

export class InodeWatch {
  readonly #objects: Pick<OpenObjects, 'all' | 'get' | 'held' | 'observe' | 'unlink'>;
  readonly #namespace: Pick<Namespace, 'inode' | 'tombstones'>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** Ends the present wait. */
  #wake: () => void = () => undefined;
  #running: Promise<void> = Promise.resolve();
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
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    for (let atMs = this.#clock.monotonicMs(); !this.#stopped; atMs = Math.max(atMs + LOOK_MS, this.#clock.monotonicMs())) {
      await this.#round(atMs);
      await this.#until(atMs + LOOK_MS);
    }
  }

  /** Looks at what is open now, each at its own time of a period that began at `atMs`. */
  async #round(atMs: number): Promise<void> {
    const all = [...this.#objects.all()];
    const atOnce = Math.max(AT_ONCE, Math.ceil((all.length * STEP_MS_MIN) / LOOK_MS));
    for (let from = 0; from < all.length; from += atOnce) {
      await this.#until(atMs + (LOOK_MS * from) / all.length);
      if (this.#stopped) return;
      for (const look of await Promise.allSettled(all.slice(from, from + atOnce).map((served) => this.#look(served)))) {
        if (look.status === 'fulfilled') continue;
        const error: unknown = look.reason;
        if (!isEnvironmentError(error)) throw error;
        this.#logger.debug({ err: error }, 'what is open here could not be compared with the registry; it is tried again');
        // The others are not read now, either. Of one record that cannot be read they are.
        if (errorCode(error) === 'registry-unavailable') return;
      }
    }
  }

  /** Resolves at that time (monotonic), or when it stops. */
  async #until(atMs: number): Promise<void> {
    const waitMs = atMs - this.#clock.monotonicMs();
    if (waitMs <= 0 || this.#stopped) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#clock.after(waitMs, resolve);
    this.#wake = () => {
      cancel();
      resolve();
    };
    await promise;
  }

  async #look(served: ServedObject): Promise<void> {
    const { fileid } = served.driven;
    const known = served.inode;
    if (served.unlinked || this.#objects.get(fileid) !== served) return;
    const inode = await this.#namespace.inode(fileid, known.inodeGeneration);
    // A registry that just forgot it, and will be told again, has no tombstone of it.
    if (inode === null && !(await this.#isRemoved(fileid))) return;
    // One that is on its way, or of which something was heard meanwhile, is looked at again the next time: this may be older.
    if (this.#stopped || this.#objects.get(fileid) !== served || served.inode !== known || this.#objects.held(fileid) !== null) return;
    if (inode === null) await this.#objects.unlink(fileid);
    else if (compareTimestamp(inode.ctime, known.ctime) > 0) this.#objects.observe(inode);
  }

  async #isRemoved(fileid: FileId): Promise<boolean> {
    const [first] = await this.#namespace.tombstones((fileid - 1) as FileId, 1);
    return first?.inode.fileid === fileid;
  }
}
