/** Which new files are volumes: random block I/O, a bucket of their own. By name at creation only; afterwards the class belongs to the inode. */
export function volumeMatcher(patterns: readonly string[]): (name: Uint8Array) => boolean {
  const expressions = patterns.map(
    (pattern) =>
      new RegExp(
        `^${pattern
          .replace(/[.+^${}()|[\]\\]/g, '\\$&')
          .replaceAll('*', '.*')
          .replaceAll('?', '.')}$`,
        's',
      ),
  );
  return (name) => {
    const text = Buffer.from(name).toString('latin1');
    return expressions.some((expression) => expression.test(text));
  };
}
