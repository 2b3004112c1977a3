/** What is measured, and what is asked of it (issue "One router"; ratios to NFS-Ganesha in the same run). */
import type { Workload } from './nfs-load.ts';

export interface BenchCase {
  readonly name: string;
  readonly title: string;
  readonly work: Omit<Workload, 'seconds' | 'seed' | 'regionBytes'>;
  /** `cached`: a part of the file that fits in every cache; `file`: all of it. */
  readonly region: 'cached' | 'file';
  /** Least ratio vferry / Ganesha in operations per second; null: reported only. */
  readonly goal: number | null;
}

/** Small enough for vferry's RAM cache with its default settings. */
export const CACHED_REGION_BYTES = 64 << 20;

const KIB = 1024;
const MIB = 1 << 20;

function small(kind: Workload['kind'], outstanding: number, ioBytes = 4 * KIB): BenchCase['work'] {
  return { kind, outstanding, ioBytes, stability: 'FILE_SYNC' };
}

function sequential(kind: Workload['kind'], ioBytes: number, stability: Workload['stability'] = 'UNSTABLE'): BenchCase['work'] {
  return { kind, outstanding: ioBytes === MIB ? 8 : 16, ioBytes, stability };
}

export const CASES: readonly BenchCase[] = [
  { name: 'getattr-1', title: 'GETATTR, 1 outstanding', work: small('getattr', 1, 0), region: 'file', goal: null },
  { name: 'getattr-32', title: 'GETATTR, 32 outstanding', work: small('getattr', 32, 0), region: 'file', goal: 6 },
  { name: 'read-cached-1', title: '4 KiB random read, cached, 1', work: small('read-random', 1), region: 'cached', goal: 0.9 },
  { name: 'read-cached-32', title: '4 KiB random read, cached, 32', work: small('read-random', 32), region: 'cached', goal: 6 },
  { name: 'read-big-1', title: '4 KiB random read, whole file, 1', work: small('read-random', 1), region: 'file', goal: null },
  { name: 'read-big-32', title: '4 KiB random read, whole file, 32', work: small('read-random', 32), region: 'file', goal: null },
  { name: 'write-1', title: '4 KiB random write FILE_SYNC, 1', work: small('write-random', 1), region: 'file', goal: 1 },
  { name: 'write-32', title: '4 KiB random write FILE_SYNC, 32', work: small('write-random', 32), region: 'file', goal: 5 },
  { name: 'mix-32', title: '70/30 mix, 4 KiB, FILE_SYNC, 32', work: small('mix', 32), region: 'cached', goal: 4 },
  {
    name: 'seq-write-64k',
    title: '64 KiB sequential write + COMMIT, 16',
    work: sequential('write-sequential', 64 * KIB),
    region: 'file',
    goal: null,
  },
  { name: 'seq-write-1m', title: '1 MiB sequential write + COMMIT, 8', work: sequential('write-sequential', MIB), region: 'file', goal: 0.9 },
  {
    name: 'seq-write-1m-sync',
    title: '1 MiB sequential write FILE_SYNC, 8',
    work: sequential('write-sequential', MIB, 'FILE_SYNC'),
    region: 'file',
    goal: null,
  },
  { name: 'seq-read-64k', title: '64 KiB sequential read, 16', work: sequential('read-sequential', 64 * KIB), region: 'file', goal: null },
  { name: 'seq-read-1m', title: '1 MiB sequential read, 8', work: sequential('read-sequential', MIB), region: 'file', goal: 0.9 },
  { name: 'create-remove-1', title: 'CREATE + REMOVE, 1 outstanding', work: small('create-remove', 1, 0), region: 'file', goal: null },
  { name: 'create-remove-32', title: 'CREATE + REMOVE, 32 outstanding', work: small('create-remove', 32, 0), region: 'file', goal: null },
];
