/**
 * HTTP on the admin port: `/healthz` (the process lives), `/readyz` (clients are served), `/status` (for people and `vferry status`),
 * `/backend/usage` (what the backend is asked for and costs, by volume), `/cluster/...` (routers, volumes, moves: `cluster-routes.ts`), `/metrics` (Prometheus). Without authentication, so it listens on
 * loopback unless the settings say otherwise, and takes changes from this machine only.
 *
 * It answers from the first moment of a start until the last of a stop, so that a long recovery can be watched.
 */
import type { AddressInfo } from 'node:net';

import fastify, { type FastifyInstance } from 'fastify';

import type { ClusterStatus } from '../cluster-port.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Problem, Router, RouterStatus } from '../router-port.ts';
import { addClusterRoutes } from './cluster-routes.ts';

export type ProcessPhase = 'starting' | 'running' | 'stopping';

/** What the server shows. `router` is null until it has started. */
export interface AdminSubject {
  phase(): ProcessPhase;
  router(): Router | null;
}

export interface MetricsPage {
  readonly contentType: string;
  text(): Promise<string>;
}

/** The JSON of `/readyz`. */
export interface ReadinessReport {
  readonly ready: boolean;
  readonly problems: readonly Problem[];
}

/** The JSON of `/status`. `router` is null while it starts; `cluster` is null then and for a router on its own. */
export interface StatusReport extends ReadinessReport {
  readonly phase: ProcessPhase;
  readonly router: RouterStatus | null;
  readonly cluster: ClusterStatus | null;
}

export interface AdminServer extends AsyncDisposable {
  readonly address: string;
  readonly port: number;
}

/** Scrapers and people are few; more connections than this are closed at once. */
const CONNECTIONS_MAX = 128;
const REQUEST_TIMEOUT_MS = 10_000;
/** Buckets in `/backend/usage` unless `?limit=` says otherwise. */
const USAGE_BUCKETS = 20;
const USAGE_BUCKETS_MAX = 10_000;
const BODY_BYTES_MAX = 64 * 1024;

/** Listens on `listen`:`port`. Rejects with ApplianceError `admin-port-unavailable` naming the address and what to do. */
export async function startAdminServer(
  settings: { readonly listen: string; readonly port: number },
  components: { readonly subject: AdminSubject; readonly metrics: MetricsPage; readonly logger: Logger },
): Promise<AdminServer> {
  const app = buildApp(components);
  try {
    await app.listen({ host: settings.listen, port: settings.port });
  } catch (error) {
    await app.close();
    throw new ApplianceError(
      'admin-port-unavailable',
      `cannot listen on ${settings.listen}:${settings.port} for health and metrics: ${String(errorCode(error) ?? error)}; ` +
        'choose another address or port (admin.listen, admin.port)',
      { cause: error },
    );
  }
  const bound = app.server.address() as AddressInfo;
  return { address: bound.address, port: bound.port, [Symbol.asyncDispose]: () => app.close() };
}

function buildApp(components: { readonly subject: AdminSubject; readonly metrics: MetricsPage; readonly logger: Logger }): FastifyInstance {
  const { subject, metrics, logger } = components;
  const app = fastify({
    logger: false,
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: 2 * REQUEST_TIMEOUT_MS,
    keepAliveTimeout: 2 * REQUEST_TIMEOUT_MS,
    // A scraper's idle keep-alive connection must not delay a shutdown.
    forceCloseConnections: true,
    // The default silently drops unknown keys of a body and converts types (toolchain.md 4).
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, allErrors: true } },
  });
  app.server.maxConnections = CONNECTIONS_MAX;

  app.get('/healthz', (_request, reply) => reply.send({ alive: true, phase: subject.phase() }));
  app.get('/readyz', (_request, reply) => {
    const report = readiness(subject);
    return reply.code(report.ready ? 200 : 503).send(report);
  });
  app.get('/status', (_request, reply) => {
    const router = subject.router();
    const report: StatusReport = {
      phase: subject.phase(),
      ...readiness(subject),
      router: router?.status() ?? null,
      cluster: router?.cluster?.status() ?? null,
    };
    return reply.send(report);
  });
  app.get('/backend/usage', async (request, reply) => {
    const router = subject.router();
    if (router === null) return await reply.code(503).send({ code: 'starting', message: 'The router is starting.' });
    const { limit } = request.query as { limit?: unknown };
    const bucketsMax = limit === undefined || limit === '' ? USAGE_BUCKETS : Number(limit);
    if (!Number.isSafeInteger(bucketsMax) || bucketsMax < 0 || bucketsMax > USAGE_BUCKETS_MAX) {
      return await reply.code(400).send({ code: 'bad-request', message: `limit is a number from 0 to ${USAGE_BUCKETS_MAX}.` });
    }
    return await reply.send(await router.backendUsage(bucketsMax));
  });
  addClusterRoutes(app, subject);
  app.get('/metrics', async (_request, reply) => reply.type(metrics.contentType).send(await metrics.text()));

  app.setNotFoundHandler((_request, reply) =>
    reply.code(404).send({ code: 'not-found', message: 'There are GET /healthz, /readyz, /status, /backend/usage, /cluster and /metrics.' }),
  );
  app.setErrorHandler((error, request, reply) => {
    const status = (error as { statusCode?: number }).statusCode ?? 500;
    if (status < 500) return reply.code(status).send({ code: errorCode(error) ?? 'bad-request', message: (error as Error).message });
    logger.error({ err: error, url: request.url }, 'admin request failed');
    return reply.code(500).send({ code: 'internal', message: 'The request failed; the log says why.' });
  });
  return app;
}

/** What `/readyz` answers: a router that starts or stops is not ready, whatever it says itself. */
export function readiness(subject: AdminSubject): ReadinessReport {
  const router = subject.router();
  const phase = subject.phase();
  if (phase === 'stopping') return { ready: false, problems: [{ code: 'stopping', message: 'The router is shutting down.' }] };
  if (phase === 'starting' || router === null) {
    return { ready: false, problems: [{ code: 'starting', message: 'The router is starting: it recovers what the last run left.' }] };
  }
  return router.ready();
}
