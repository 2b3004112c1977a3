/** What all commands of the benchmark do with their arguments. */

/** The options, or the exit code: help was asked for (0), or the arguments are wrong (2); `usage` is printed then. */
export function optionsOf<T>(args: readonly string[], usage: string, parse: (args: readonly string[]) => T): T | number {
  if (args.includes('--help')) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  try {
    return parse(args);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`);
    return 2;
  }
}
