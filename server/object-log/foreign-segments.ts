/** Local segments of an object that another router owns: what an earlier ownership, or a crash in a move, left here. */
import type { OwnerRecord } from '../../registry/ports.ts';
import type { Disk } from '../core/disk.ts';
import { sameTerm } from '../core/ids.ts';
import { termOfSegment } from './recovery.ts';
import type { SegmentFiles } from './segment-files.ts';
import { scanLocalSegment } from './segment-scan.ts';

/**
 * Unreleased segments that are part of the object's log become cache: the owner has them. Others hold what did not count when their term was closed:
 * they are moved to `orphans/` for people (invariant 8), unless nothing was ever written to them. Returns how many were moved there.
 */
export async function settleForeign(components: { disk: Disk; files: SegmentFiles }, owner: OwnerRecord): Promise<number> {
  const { disk, files } = components;
  let orphans = 0;
  for (const local of files.segmentsOf(owner.uuid)) {
    if (local.place === 'cache') continue;
    // Epochs wholly below the checkpoint are forgotten: a segment there is right, or its reader sees that it is of another term.
    const scan = await scanLocalSegment(disk, files, local);
    // How much of a file that was open counts nobody knew yet.
    files.grow(local, scan.endOffset);
    const isKnown = local.number > owner.root.uploadedSegment || owner.root.closedEpochs.some((epoch) => local.number <= epoch.lastSegment);
    if (!isKnown || sameTerm(termOfSegment(owner.root, owner.term, local.number), local.term)) {
      await files.cede(local);
      continue;
    }
    // Made ready, and never begun.
    if (scan.header === null && !scan.headerDamaged) await files.drop(local);
    else if (await files.setAsideSegment(local)) orphans += 1;
  }
  return orphans;
}
