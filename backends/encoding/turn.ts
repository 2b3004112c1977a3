/** Work on so many bytes is done before other calls of the thread get their turn: some milliseconds. */
export const STEP_BYTES = 1024 * 1024;

/** Resolves after what else is ready has run. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
