/**
 * What of the records that a router wrote down of completed calls is to be believed after a power cut (docs/decisions/0035). An entry may be on the disk although the change that it
 * speaks of was lost with the page cache: answered from it, the change would never be done. So only entries count of which a mark, written later, says that the
 * log with their changes was made durable.
 *
 * A mark that is on the disk is true whatever else got there: which records a power cut left, and from which lap of the ring they are, does not matter.
 */

/** A record, in the order of its running number. `fileid` of a call below 0: the word that nothing before it counts of object `-fileid`. */
export type RingRecord<Call> =
  | { readonly number: number; readonly fileid: number; readonly call: Call }
  /** What records `from` to `before` - 1 say of calls of this object (0: of all) is durable in its log. */
  | { readonly number: number; readonly fileid: number; readonly proven: { readonly from: number; readonly before: number } };

export interface BelievedCall<Call> {
  readonly number: number;
  readonly fileid: number;
  readonly call: Call;
}

/** Calls that a router knows after a power cut, the oldest first. `records`: any of those that were written, in any order. */
export function believedCalls<Call>(records: Iterable<RingRecord<Call>>): readonly BelievedCall<Call>[] {
  const calls: BelievedCall<Call>[] = [];
  const forgottenBefore = new Map<number, number>();
  const proven = new Map<number, { from: number; before: number }[]>();
  for (const record of records) {
    if ('proven' in record) {
      const marks = proven.get(record.fileid);
      if (marks === undefined) proven.set(record.fileid, [{ ...record.proven }]);
      else addMark(marks, record.proven);
    } else if (record.fileid < 0) forgottenBefore.set(-record.fileid, Math.max(record.number, forgottenBefore.get(-record.fileid) ?? 0));
    else calls.push(record);
  }
  const ofAll = proven.get(0) ?? [];
  return calls
    .filter(({ number, fileid }) => {
      if (number < (forgottenBefore.get(fileid) ?? 0)) return false;
      return isWithin(number, ofAll) || isWithin(number, proven.get(fileid) ?? []);
    })
    .sort((a, b) => a.number - b.number);
}

/** Marks of one life all begin where it does, and the last one says it all. */
function addMark(marks: { from: number; before: number }[], mark: { readonly from: number; readonly before: number }): void {
  const known = marks.find(({ from }) => from === mark.from);
  if (known === undefined) marks.push({ ...mark });
  else known.before = Math.max(known.before, mark.before);
}

function isWithin(number: number, marks: readonly { readonly from: number; readonly before: number }[]): boolean {
  return marks.some(({ from, before }) => number >= from && number < before);
}
