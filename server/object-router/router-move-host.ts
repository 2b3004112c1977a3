/** The object-router as moves of ownership see it: holds, hand-overs of open objects, and who owns what. */
import type { Inode } from '../../registry/inode.ts';
import type { Namespace, OwnerRecord } from '../../registry/ports.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import type { FileId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import type { ArrivedCalls } from './arrived-calls.ts';
import type { DrivenObject } from './driver-port.ts';
import type { ArrivingCalls, MovableObject, MoveHost, ObjectHold } from './moves/move-host.ts';
import type { OpenObjects } from './open-objects.ts';
import type { OwnedRecords } from './owned-records.ts';
import type { OwnerCache } from './owner-cache.ts';
import { HOLD_MS_MAX } from './peer-port.ts';
import type { CallsPart } from './peer-port.ts';
import type { Repetitions } from './repetitions.ts';

const LOOK_EVERY_MS = 1;
/** Looks without a timer first: a busy loop comes to its timers late. */
const SOON_LOOKS = 4;
const REFRESH_EVERY_MS = 250;

class Arriving implements ArrivingCalls {
  readonly #repetitions: Repetitions;
  readonly #calls: ArrivedCalls;

  constructor(repetitions: Repetitions, fileid: FileId) {
    this.#repetitions = repetitions;
    this.#calls = repetitions.arriving(fileid);
  }

  add(bytes: Buffer): boolean {
    return this.#repetitions.arrive(this.#calls, bytes);
  }

  remember(): void {
    this.#repetitions.arrived(this.#calls);
  }

  sync(): Promise<void> {
    return this.#repetitions.sync();
  }

  keep(): Promise<void> {
    return this.#repetitions.keep(this.#calls.fileid, () => Promise.resolve());
  }
}

export class RouterMoveHost implements MoveHost {
  readonly #objects: OpenObjects;
  readonly #owners: OwnerCache;
  readonly #repetitions: Repetitions;
  readonly #records: OwnedRecords;
  readonly #namespace: Namespace;
  readonly #clock: Clock;
  readonly #logger: Logger;

  constructor(components: {
    namespace: Namespace;
    objects: OpenObjects;
    owners: OwnerCache;
    repetitions: Repetitions;
    records: OwnedRecords;
    clock: Clock;
    logger: Logger;
  }) {
    this.#objects = components.objects;
    this.#owners = components.owners;
    this.#repetitions = components.repetitions;
    this.#records = components.records;
    this.#namespace = components.namespace;
    this.#clock = components.clock;
    this.#logger = components.logger;
  }

  served(fileid: FileId): MovableObject | undefined {
    return this.#objects.get(fileid);
  }

  all(): Iterable<MovableObject> {
    return this.#objects.all();
  }

  hold(fileid: FileId): ObjectHold {
    const release = this.#objects.hold(fileid);
    return {
      release,
      changesEnded: async () => {
        const untilMs = this.#clock.monotonicMs() + HOLD_MS_MAX;
        // Frozen, each of them ends as soon as the local disk lets it: mostly it has, and only its promises are not settled yet. The registry's part of a SETATTR does not
        // end while the registry is away: nobody is held for that.
        for (let looks = 0; (this.#objects.get(fileid)?.changers ?? 0) > 0; looks += 1) {
          if (this.#clock.monotonicMs() > untilMs)
            throw new ApplianceError('object-busy', `a change of object ${fileid} does not end`, { retryable: true });
          if (looks < SOON_LOOKS) await new Promise<void>((resolve) => this.#clock.soon(resolve));
          else await this.#clock.sleep(LOOK_EVERY_MS);
        }
      },
    };
  }

  calls(fileid: FileId, from: number, bytesMax: number): CallsPart {
    return this.#repetitions.after(fileid, from, bytesMax);
  }

  arriving(fileid: FileId): ArrivingCalls {
    return new Arriving(this.#repetitions, fileid);
  }

  settled(fileid: FileId): Promise<void> {
    return this.#objects.settled(fileid);
  }

  open(fileid: FileId): Promise<MovableObject | null> {
    return this.#objects.open(fileid);
  }

  moved(fileid: FileId, owner: OwnerRecord): void {
    void this.#objects.giveUp(fileid);
    this.#repetitions.forget(fileid);
    this.#owners.learn(fileid, owner);
  }

  forgetCalls(fileid: FileId): Promise<void> {
    this.#repetitions.forget(fileid);
    return this.#repetitions.sync();
  }

  adopt(driven: DrivenObject, inode: Inode, owner: OwnerRecord): void {
    this.#owners.learn(inode.fileid, owner);
    this.#records.received(owner);
    this.#objects.adopt(driven, inode);
    this.#refresh(inode.fileid).catch((error: unknown) =>
      this.#logger.error({ err: error, fileid: inode.fileid }, 'whether names or mode of an object changed while it moved could not be asked'),
    );
  }

  /** Names, mode and owner may have changed while it moved, told to the router that it came from. */
  async #refresh(fileid: FileId): Promise<void> {
    for (;;) {
      try {
        const inode = await this.#namespace.inode(fileid, null);
        if (inode === null) await this.#objects.unlink(fileid);
        else this.#objects.observe(inode);
        return;
      } catch (error) {
        if (errorCode(error) !== 'registry-unavailable') throw error;
        await this.#clock.sleep(REFRESH_EVERY_MS);
      }
    }
  }

  async drop(fileid: FileId): Promise<void> {
    this.#owners.forget(fileid);
    await this.#objects.giveUp(fileid);
  }

  ownerIs(owner: OwnerRecord): void {
    this.#owners.learn(owner.fileid, owner);
  }
}
