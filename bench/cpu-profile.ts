/** A CPU profile of a running Node process over its inspector, and the functions that took the time. */

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  readonly positionTicks?: readonly { readonly line: number; readonly ticks: number }[];
}

export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const SAMPLING_INTERVAL_US = 200;

/** Profiles the main thread of the process whose inspector listens on `port` while `work` runs. */
export async function profileWhile(port: number, work: () => Promise<void>): Promise<CpuProfile> {
  const list = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as { webSocketDebuggerUrl: string }[];
  const url = list[0]?.webSocketDebuggerUrl;
  if (url === undefined) throw new Error('the inspector has no target');
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve, { once: true });
    socket.addEventListener('error', () => reject(new Error('no connection to the inspector')), { once: true });
  });
  let id = 0;
  const send = (method: string, params: object = {}): Promise<{ profile?: CpuProfile }> =>
    new Promise((resolve, reject) => {
      const own = ++id;
      const onMessage = (event: MessageEvent): void => {
        const answer = JSON.parse(String(event.data)) as { id?: number; result?: { profile?: CpuProfile }; error?: { message: string } };
        if (answer.id !== own) return;
        socket.removeEventListener('message', onMessage);
        if (answer.result === undefined) reject(new Error(`${method}: ${answer.error?.message}`));
        else resolve(answer.result);
      };
      socket.addEventListener('message', onMessage);
      socket.send(JSON.stringify({ id: own, method, params }));
    });
  try {
    await send('Profiler.enable');
    await send('Profiler.setSamplingInterval', { interval: SAMPLING_INTERVAL_US });
    await send('Profiler.start');
    await work();
    const { profile } = await send('Profiler.stop');
    if (profile === undefined) throw new Error('the inspector gave no profile');
    return profile;
  } finally {
    socket.close();
  }
}

/** The `limit` functions with the largest self time, each with its share and its hottest lines. */
export function hottest(profile: CpuProfile, limit: number): string[] {
  const selfUs = new Map<number, number>();
  let totalUs = 0;
  for (const [index, node] of profile.samples.entries()) {
    const us = profile.timeDeltas[index] ?? 0;
    selfUs.set(node, (selfUs.get(node) ?? 0) + us);
    totalUs += us;
  }
  const functions = new Map<string, { us: number; lines: Map<number, number> }>();
  for (const node of profile.nodes) {
    const { functionName, url, lineNumber } = node.callFrame;
    const file = url.replace(/^.*\/(server|registry|cache|backends)\//, '$1/');
    const name = `${functionName || '(anonymous)'} ${file}${url === '' ? '' : `:${lineNumber + 1}`}`;
    const entry = functions.get(name) ?? { us: 0, lines: new Map<number, number>() };
    entry.us += selfUs.get(node.id) ?? 0;
    for (const { line, ticks } of node.positionTicks ?? []) entry.lines.set(line, (entry.lines.get(line) ?? 0) + ticks);
    functions.set(name, entry);
  }
  return [...functions]
    .toSorted(([, a], [, b]) => b.us - a.us)
    .slice(0, limit)
    .map(([name, { us, lines }]) => {
      const top = [...lines].toSorted(([, a], [, b]) => b - a).slice(0, 3);
      const where = top.map(([line, ticks]) => `${line}:${ticks}`).join(' ');
      return `${((100 * us) / totalUs).toFixed(1).padStart(5)} %  ${name}${where === '' ? '' : `   [line:ticks ${where}]`}`;
    });
}
