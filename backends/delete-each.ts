/** Requests that run at a time: enough to hide the latency of a store, few enough to leave its connections to others. */
const CONCURRENCY = 8;

/**
 * Deletes `names` one by one, several at a time: `deleteMany` for stores that have no request for it. Resolves, or rejects with the first
 * error, when nothing runs any more; after an error no further name is begun.
 */
export async function deleteEach(names: readonly string[], deleteOne: (name: string) => Promise<void>): Promise<void> {
  let next = 0;
  let failed = false;
  const lane = async (): Promise<void> => {
    while (!failed && next < names.length) {
      const name = names[next] as string;
      next += 1;
      try {
        await deleteOne(name);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: Math.min(CONCURRENCY, names.length) }, lane));
  for (const outcome of lanes) if (outcome.status === 'rejected') throw outcome.reason;
}
