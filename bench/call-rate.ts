/** Rate and latency of asynchronous calls, one line each. */

/** Keeps `outstanding` calls running until `count` are done; prints the rate, latencies and this process's CPU time. */
export async function measure(label: string, count: number, outstanding: number, call: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const cpuStart = process.cpuUsage();
  const latencies = new Float64Array(count);
  const start = performance.now();
  const lane = async (): Promise<void> => {
    while (next < count) {
      const index = next++;
      const called = performance.now();
      await call(index);
      latencies[index] = performance.now() - called;
    }
  };
  await Promise.all(Array.from({ length: outstanding }, lane));
  const seconds = (performance.now() - start) / 1000;
  const cpu = process.cpuUsage(cpuStart);
  latencies.sort();
  const at = (share: number): string => (latencies[Math.floor(count * share)] ?? 0).toFixed(2);
  const cpuUs = ((cpu.user + cpu.system) / count).toFixed(0);
  console.log(
    `${label.padEnd(34)} ${Math.round(count / seconds)
      .toString()
      .padStart(8)}/s  p50 ${at(0.5)} ms  p99 ${at(0.99)} ms  max ${at(0.9999)} ms  ${cpuUs} us CPU each`,
  );
}
