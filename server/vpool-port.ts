/** Port of what the command does with vPools and backends beside serving: making one, trying one out, making a key. */
import type { ProbeReport } from '../backends/probe/probe-report.ts';
import type { BackendSettings } from './settings/backend-settings.ts';
import type { Settings } from './settings/settings.ts';

export interface CreatedVpool {
  readonly uuid: string;
  /** Where its objects go, without secrets. */
  readonly backend: string;
  readonly report: ProbeReport;
}

/** How a backend is probed. */
export interface ProbeOptions {
  /** quick: some seconds, with smaller figures. */
  readonly effort: 'full' | 'quick';
  /** Is told what is being done. */
  readonly progress: (text: string) => void;
  /** Ends the probe; the backend is unfit then. */
  readonly signal: AbortSignal;
}

/**
 * Makes a vPool that `serve` then serves: data directory, registry, backend.
 * @throws ApplianceError `vpool-exists`, `data-locked`, `data-unusable`, `backend-unfit` and those of an opening.
 */
export type CreateVpool = (settings: Settings, options: ProbeOptions) => Promise<CreatedVpool>;

/** Tries out a backend, making and removing a bucket of its own. @throws ApplianceError `secret-unreadable`. */
export type TestBackend = (backend: BackendSettings, options: ProbeOptions) => Promise<ProbeReport>;

/** A new encryption key as a line of a key file, without its line end. */
export type GenerateKey = () => Promise<string>;
