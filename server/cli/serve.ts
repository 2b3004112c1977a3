/**
 * `vferry serve`: the life of a router process, from the first log line to the exit code.
 *
 * Health and metrics answer before the router starts and until it has stopped. SIGTERM, SIGINT and SIGHUP stop it cleanly within 5 s; a
 * second signal stops it at once. A bug (uncaught exception, failed assertion) stops it at once too: going on could acknowledge what is not true.
 * Stopping at once loses nothing: the log recovers.
 */
import { type AdminServer, type ProcessPhase, startAdminServer } from '../admin/admin-server.ts';
import { errorCode, isEnvironmentError } from '../core/errors.ts';
import { ClusterMetrics } from '../metrics/cluster-metrics.ts';
import { MetricRegistry } from '../metrics/metric-registry.ts';
import { NfsMetrics } from '../metrics/nfs-metrics.ts';
import { StoreMetrics } from '../metrics/store-metrics.ts';
import type { Router, StartRouter } from '../router-port.ts';
import type { Settings } from '../settings/settings.ts';
import { banner } from './banner.ts';
import { ExitCode } from './exit-code.ts';
import { type LogOutput, type ProcessLogger, createProcessLogger, drained } from './process-logger.ts';
import { VERSION } from './version.ts';

/** From the signal to the exit 5 s may pass; this is the router's part. The rest is for the admin server and the last log lines. */
const ROUTER_CLOSE_MS_MAX = 4500;

/** For a log reader that is behind. */
const LAST_LINES_MS_MAX = 200;

/** Signals within this time of the first are the same wish. */
const SAME_SIGNAL_MS = 500;

/** How often the process image was replaced; no setting (`settings/sources.ts`). */
const BEGUN_ANEW = 'VFERRY_BEGUN_ANEW';

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** Runs until a signal. Resolves with the exit code; a bug exits the process without resolving. */
export async function serve(settings: Settings, startRouter: StartRouter, output: LogOutput): Promise<ExitCode> {
  const logger = createProcessLogger(settings.logging, output);
  try {
    return await new RouterLife(settings, startRouter, logger, output).run();
  } finally {
    await drained(output, LAST_LINES_MS_MAX);
  }
}

class RouterLife {
  readonly #settings: Settings;
  readonly #startRouter: StartRouter;
  readonly #logger: ProcessLogger;
  readonly #output: LogOutput;
  readonly #metrics = new MetricRegistry();
  readonly #signal = Promise.withResolvers<NodeJS.Signals>();
  #firstSignalMs = Number.NaN;
  #phase: ProcessPhase = 'starting';
  #router: Router | null = null;

  constructor(settings: Settings, startRouter: StartRouter, logger: ProcessLogger, output: LogOutput) {
    this.#settings = settings;
    this.#startRouter = startRouter;
    this.#logger = logger;
    this.#output = output;
  }

  async run(): Promise<ExitCode> {
    process.on('uncaughtException', this.#onBug);
    for (const name of SIGNALS) process.on(name, this.#onSignal);
    try {
      this.#metrics.addProcessMetrics();
      this.#metrics.counterSource(
        'vferry_begun_anew_total',
        'Times that the lease lapsed and the router began anew under this process id.',
        timesBegunAnew,
      );
      this.#metrics.counterSource('vferry_log_lines_dropped_total', 'Log lines lost because nobody read them.', () => this.#logger.linesDropped);
      await using admin = await startAdminServer(this.#settings.admin, {
        subject: { phase: () => this.#phase, router: () => this.#router },
        metrics: this.#metrics,
        logger: this.#logger.child({ part: 'admin' }),
      });
      return await this.#serveBehind(admin);
    } catch (error) {
      if (!isEnvironmentError(error)) return this.#onBug(error);
      this.#logger.error({ code: errorCode(error), err: error }, `cannot serve: ${error.message}`);
      return ExitCode.FAILED;
    } finally {
      process.off('uncaughtException', this.#onBug);
      for (const name of SIGNALS) process.off(name, this.#onSignal);
    }
  }

  async #serveBehind(admin: AdminServer): Promise<ExitCode> {
    const { vpool, data } = this.#settings;
    const adminUrl = `http://${admin.address.includes(':') ? `[${admin.address}]` : admin.address}:${admin.port}`;
    this.#logger.info({ version: VERSION, vpool: vpool.name, data, pid: process.pid, admin: adminUrl }, 'starting');
    const starting = this.#startRouter(this.#settings, {
      logger: this.#logger,
      metrics: this.#metrics,
      nfsObserver: new NfsMetrics(this.#metrics),
      storeObserver: new StoreMetrics(this.#metrics),
      clusterObserver: new ClusterMetrics(this.#metrics, () => this.#router?.cluster?.status() ?? null),
      fatal: (error) => this.#stopAtOnce(error),
      beginAnew: (error) => this.#beginAnew(error),
    });
    const first = await Promise.race([starting, this.#signal.promise]);
    if (typeof first === 'string') {
      const router = await this.#orDeadline(starting, ROUTER_CLOSE_MS_MAX);
      if (router === null) {
        this.#logger.warn({}, 'stopped before the start was complete; the next start does the same work again, nothing is lost');
        return ExitCode.OK;
      }
      this.#router = router;
    } else {
      this.#router = first;
      this.#phase = 'running';
      this.#announce(first, adminUrl);
    }
    await this.#signal.promise;
    return await this.#stop(this.#router);
  }

  #announce(router: Router, adminUrl: string): void {
    const { addresses } = router;
    this.#logger.info({ ...addresses, admin: adminUrl }, 'ready');
    if (addresses.portmap === 'none' && this.#settings.nfs.portmap === 'auto') {
      const why = process.getuid?.() === 0 ? '' : ' (not running as root)';
      this.#logger.warn({}, `no port mapper on port 111${why}: ESXi, QEMU's nfs:// and showmount need it; Linux clients can name the ports`);
    }
    if (!this.#logger.isHuman) return;
    const { vpool, backend } = router.status();
    this.#output.write(
      banner({ version: VERSION, vpool, data: this.#settings.data, backend, addresses, adminUrl, cluster: router.cluster?.status() ?? null }),
    );
  }

  async #stop(router: Router): Promise<ExitCode> {
    this.#phase = 'stopping';
    const started = performance.now();
    const done = await this.#orDeadline(
      router.close(ROUTER_CLOSE_MS_MAX).then(() => true),
      ROUTER_CLOSE_MS_MAX + 200,
    );
    const tookMs = Math.round(performance.now() - started);
    if (done === null) {
      this.#logger.error(
        { tookMs },
        'shutdown not complete in time; stopping anyway: the log recovers at the next start, nothing acknowledged is lost',
      );
      return ExitCode.FAILED;
    }
    this.#logger.info({ tookMs }, 'stopped');
    return ExitCode.OK;
  }

  async #orDeadline<T>(work: Promise<T>, deadlineMs: number): Promise<T | null> {
    const { promise, resolve } = Promise.withResolvers<null>();
    const timer = setTimeout(() => resolve(null), deadlineMs);
    try {
      return await Promise.race([work, promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  readonly #onSignal = (name: NodeJS.Signals): void => {
    const nowMs = performance.now();
    // One Ctrl-C arrives twice under npm: from the terminal and passed on.
    if (nowMs - this.#firstSignalMs < SAME_SIGNAL_MS) return;
    if (Number.isNaN(this.#firstSignalMs)) {
      this.#firstSignalMs = nowMs;
      this.#logger.info({ signal: name }, 'stopping: a second signal stops at once');
      this.#phase = 'stopping';
      this.#signal.resolve(name);
      return;
    }
    this.#logger.fatal({ signal: name }, 'stopped at once; the log recovers at the next start, nothing acknowledged is lost');
    process.exit(ExitCode.FAILED);
  };

  /** Node reports unhandled rejections here too. */
  readonly #onBug = (error: unknown): never => {
    this.#logger.fatal({ err: error }, 'stopped by a bug in vferry; the log recovers at the next start. Please report this with the lines around it');
    process.exit(ExitCode.INTERNAL);
  };

  /** Sockets with unread input, threads and all that is under way end with the image of the process; its data directory's lock, too. */
  #beginAnew(error: Error): never {
    this.#logger.fatal({ err: error, code: errorCode(error) }, `begins anew: ${error.message}`);
    const environment = { ...process.env, [BEGUN_ANEW]: String(timesBegunAnew() + 1) };
    process.execve?.(process.execPath, [process.execPath, ...process.execArgv, ...process.argv.slice(1)], environment);
    process.exit(ExitCode.FAILED);
  }

  #stopAtOnce(error: Error): never {
    this.#logger.fatal({ err: error }, `cannot go on: ${error.message}`);
    process.exit(ExitCode.FAILED);
  }
}

/** What a process image leaves to the next one of the same process. */
function timesBegunAnew(): number {
  const times = Number(process.env[BEGUN_ANEW] ?? 0);
  return Number.isSafeInteger(times) && times > 0 ? times : 0;
}
