/**
 * Worker threads that hang in a system call, of a backend whose file server does not answer. `process.exit` would wait for them for ever, so whoever
 * ends the process has to know.
 */
export const stuckThreads: { count: number } = { count: 0 };
