/** Exit codes of the `vferry` command. */
export const ExitCode = {
  OK: 0,
  /** It ran, and the answer is no: damage found, router not ready, router cannot go on. */
  FAILED: 1,
  /** It could not run: wrong usage, wrong settings, nothing there to ask. */
  USAGE: 2,
  /** A bug (EX_SOFTWARE of sysexits.h). The process stopped at once; the log recovers at the next start. */
  INTERNAL: 70,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];
