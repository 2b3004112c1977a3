/** After a start: what the last run did not bring to the backend is opened, which recovers its log and resumes the upload. */
import type { OwnerRecord, Registry } from '../../registry/ports.ts';
import { sameTerm } from '../core/ids.ts';
import type { FileId, ObjectUuid, RouterId, Term } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { OpenObjects } from './open-objects.ts';

const PAGE = 1000;
const AT_ONCE = 4;

/** Local segments by object. */
export interface LocalObjects {
  objects(): Iterable<ObjectUuid>;
  /** Those with segments that are not released. */
  dirtyObjects(): Iterable<ObjectUuid>;
  /** Moves unreleased segments out of the way, without deleting them, and returns how many; drops released ones. */
  setAside(uuid: ObjectUuid): Promise<number>;
  /** Copies of objects that were on their way here. */
  readonly replicas: {
    /** One for each attempt that left something. */
    attempts(): Iterable<{ readonly fileid: FileId; readonly uuid: ObjectUuid; readonly attempt: Term }>;
    discard(uuid: ObjectUuid, attempt: Term): Promise<void>;
  };
}

export interface SurveyComponents {
  readonly registry: Registry;
  readonly files: LocalObjects;
  readonly router: RouterId;
  readonly logger: Logger;
  /** What is known of objects that were given away; null on a router that has no others. */
  readonly given: {
    /** Null: it was not, as far as is known. */
    fileidOf(uuid: ObjectUuid): FileId | null;
    /** Makes unreleased segments that are part of the owner's log cache, sets the others aside, and returns how many. */
    settle(owner: OwnerRecord): Promise<number>;
  } | null;
}

/**
 * Finds the objects of this router that are to be opened. Local segments of objects that the registry does not know as this router's are set aside: their
 * tombstones are gone, another router took them over, or the registry or the router's identity is not the one that wrote them. Copies of objects that
 * were on their way here and cannot come any more are deleted: to be called before anything can be received.
 */
export async function surveyObjects({ registry, files, router, logger, given }: SurveyComponents): Promise<readonly FileId[]> {
  const known = new Map<string, FileId>();
  const unclean = new Set<FileId>();
  let after = 0 as FileId;
  for (;;) {
    const page: OwnerRecord[] = await registry.ownership.ownedBy(router, after, PAGE);
    for (const owner of page) {
      known.set(owner.uuid, owner.fileid);
      if (owner.protection.kind !== 'clean') unclean.add(owner.fileid);
      after = owner.fileid;
    }
    if (page.length < PAGE) break;
  }
  // Of those that were on their way here there may be a file that was made ready for what was to be written first.
  const expected = new Map<ObjectUuid, FileId>();
  for (const { fileid, uuid } of files.replicas.attempts()) expected.set(uuid, fileid);
  for (const uuid of [...files.objects()]) {
    if (known.has(uuid)) continue;
    const fileid = given?.fileidOf(uuid) ?? expected.get(uuid) ?? null;
    const owner = fileid === null ? null : await registry.ownership.owner(fileid);
    // Its new owner has all of it, and what is here are copies.
    const isElsewhere = owner !== null && owner.uuid === uuid && owner.router !== router && owner.state.kind === 'running';
    const moved = isElsewhere && given !== null ? await given.settle(owner) : await files.setAside(uuid);
    if (moved > 0) {
      logger.warn(
        { object: uuid, files: moved },
        'unreleased segments of an object that is not known here were moved to orphans/; delete them if the object was removed or moved away',
      );
    }
  }
  for (const { fileid, uuid, attempt } of files.replicas.attempts()) {
    const owner = await registry.ownership.owner(fileid);
    if (owner !== null && owner.uuid === uuid) {
      // It came, and this router died before it could say so: opening it finds them. Or the giver may still let go, in the belief that they are here.
      if (owner.router === router && sameTerm(owner.term, attempt)) unclean.add(fileid);
      const mayCome = owner.moving !== null && owner.moving.to === router && sameTerm(owner.moving.attempt, attempt);
      if (owner.router === router || mayCome || owner.state.kind !== 'running') continue;
    }
    await files.replicas.discard(uuid, attempt);
  }
  // Also what is clean but left files in the log: a segment that was made ready and never begun.
  for (const uuid of files.dirtyObjects()) {
    const fileid = known.get(uuid);
    if (fileid !== undefined) unclean.add(fileid);
  }
  return [...unclean];
}

/** Opens them. One that cannot be opened is reported by OpenObjects and tried again; it does not keep the others from it. False: there was one. */
export async function recoverObjects(objects: OpenObjects, waiting: readonly FileId[], logger: Logger): Promise<boolean> {
  let next = 0;
  let failed = 0;
  const worker = async (): Promise<void> => {
    for (;;) {
      const fileid = waiting[next];
      next += 1;
      if (fileid === undefined) return;
      // Reported and kept as a problem by OpenObjects; the operations on it say so too.
      await objects.open(fileid).catch(() => {
        failed += 1;
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (waiting.length > 0) logger.info({ objects: waiting.length }, 'the objects of the last run were recovered');
  return failed === 0;
}
