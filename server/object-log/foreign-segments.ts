/** Local segments of an object that another router owns: what an earlier ownership, or a crash in a move, left here. */
import type { OwnerRecord } from '../../registry/ports.ts';
import { sameTerm } from '../core/ids.ts';
import { termOfSegment } from './recovery.ts';
import type { SegmentFiles } from './segment-files.ts';

/**
 * Unreleased segments that are part of the object's log become cache: the owner has them. Others hold what did not count when their term was closed:
 * they are moved to `orphans/` for people (invariant 8). Returns how many were moved there.
 */
export async function settleForeign(files: SegmentFiles, owner: OwnerRecord): Promise<number> {
  let orphans = 0;
  for (const local of files.segmentsOf(owner.uuid)) {
    if (local.place === 'cache') continue;
    // Epochs wholly below the checkpoint are forgotten: a segment there is right, or its reader sees that it is of another term.
    const isKnown = local.number > owner.root.uploadedSegment || owner.root.closedEpochs.some((epoch) => local.number <= epoch.lastSegment);
    if (!isKnown || sameTerm(termOfSegment(owner.root, owner.term, local.number), local.term)) await files.cede(local);
    else if (await files.setAsideSegment(local)) orphans += 1;
  }
  return orphans;
}
