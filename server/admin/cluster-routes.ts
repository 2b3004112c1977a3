/**
 * `/cluster/...` on the admin port: what `ClusterControl` (server/cluster-port.ts) says and does, as JSON. Described for people in docs/OPERATIONS.md.
 *
 * There is no authentication yet. So what changes something is taken from this very machine only, and never from a web page (an `Origin`): a page that a person
 * on this machine visits can send requests to loopback, too.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';

import type { ClusterControl, ObjectReference, Refusal } from '../cluster-port.ts';
import { ApplianceError } from '../core/errors.ts';
import type { FileId, RouterId } from '../core/ids.ts';
import type { AdminSubject } from './admin-server.ts';

const VOLUMES = 100;
const VOLUMES_MAX = 1000;
const FILEID_MIN = 64;

/** A fileid in decimal, or a path that begins with a slash. */
const object = z
  .string()
  .max(4096)
  .transform((text, context): ObjectReference => {
    if (text.startsWith('/') && text.length > 1 && !text.includes('\0')) return { kind: 'path', path: text };
    const fileid = /^[1-9]\d{0,15}$/.test(text) ? Number(text) : Number.NaN;
    if (fileid >= FILEID_MIN && Number.isSafeInteger(fileid)) return { kind: 'fileid', fileid: fileid as FileId };
    context.addIssue({ code: 'custom', message: 'a fileid, or a path in the datastore such as /vm1/vm1-flat.vmdk' });
    return z.NEVER;
  });
const router = z
  .string()
  .regex(/^[0-9a-f]{32}$/, 'a router id: 32 lower-case hex digits')
  .transform((id) => id as RouterId);
const text = z.string().min(1).max(200);

const volumesQuery = z.strictObject({
  router: router.optional(),
  after: text.optional(),
  limit: z
    .string()
    .regex(/^[1-9]\d{0,3}$/)
    .transform(Number)
    .refine((limit) => limit <= VOLUMES_MAX, `a number from 1 to ${VOLUMES_MAX}`)
    .optional(),
});
const objectQuery = z.strictObject({ object });
const moveBody = z.strictObject({ object, to: router });
const pinBody = z.strictObject({ object, pinned: z.boolean() });
const takeoverBody = z.strictObject({ object, term: text, force: z.boolean() });
const moveParameters = z.strictObject({ id: text });
const routerParameters = z.strictObject({ router });
const nothing = z.union([z.undefined(), z.null(), z.strictObject({})]);

/** Status of a refusal; all others are 409. */
const REFUSAL_STATUS: Readonly<Partial<Record<Refusal['code'], number>>> = {
  'no-such-object': 404,
  'no-such-router': 404,
  'router-unavailable': 503,
  'owner-unavailable': 503,
};

/** Ends a request with a status and the JSON {code, message}. */
class Rejected extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Adds the routes. */
export function addClusterRoutes(app: FastifyInstance, subject: AdminSubject): void {
  const look = (path: string, answer: (cluster: ClusterControl, request: FastifyRequest) => object | Promise<object>): void => {
    app.get(path, (request, reply) => respond(reply, () => answer(clusterOf(subject), request)));
  };
  const change = (
    method: 'POST' | 'DELETE',
    path: string,
    answer: (cluster: ClusterControl, request: FastifyRequest) => object | Promise<object>,
  ): void => {
    app.route({
      method,
      url: path,
      handler: (request, reply) =>
        respond(reply, () => {
          refuseStrangers(request);
          return answer(clusterOf(subject), request);
        }),
    });
  };

  look('/cluster', (cluster) => cluster.status());
  look('/cluster/routers', async (cluster) => ({ routers: await cluster.routers() }));
  change('DELETE', '/cluster/routers/:router', (cluster, request) => cluster.forgetRouter(checked(routerParameters, request.params, 'path').router));
  look('/cluster/volumes', (cluster, request) => {
    const query = checked(volumesQuery, request.query, 'query');
    return cluster.volumes({ router: query.router ?? null, after: query.after ?? null, limit: query.limit ?? VOLUMES });
  });
  look('/cluster/volume', (cluster, request) => cluster.volume(checked(objectQuery, request.query, 'query').object));
  look('/cluster/moves', (cluster) => cluster.moves());
  change('POST', '/cluster/moves', (cluster, request) => {
    const body = checked(moveBody, request.body, 'body');
    return cluster.move(body.object, body.to);
  });
  change('DELETE', '/cluster/moves/:id', async (cluster, request) => {
    const { id } = checked(moveParameters, request.params, 'path');
    if (!(await cluster.cancelMove(id))) throw new Rejected(404, 'no-such-move', `there is no move ${id} that can still be aborted`);
    return { kind: 'aborted' };
  });
  look('/cluster/drain', (cluster) => cluster.drainReport());
  change('POST', '/cluster/drain', (cluster, request) => {
    checked(nothing, request.body, 'body');
    return cluster.drain();
  });
  change('DELETE', '/cluster/drain', (cluster) => cluster.undrain());
  change('POST', '/cluster/pin', (cluster, request) => {
    const body = checked(pinBody, request.body, 'body');
    return cluster.pin(body.object, body.pinned);
  });
  look('/cluster/takeover', (cluster, request) => cluster.takeoverPlan(checked(objectQuery, request.query, 'query').object));
  change('POST', '/cluster/takeover', (cluster, request) => {
    const body = checked(takeoverBody, request.body, 'body');
    return cluster.takeover(body.object, body.term, body.force);
  });
}

function clusterOf(subject: AdminSubject): ClusterControl {
  const running = subject.router();
  if (running === null) throw new Rejected(503, 'starting', 'The router is starting.');
  if (running.cluster === null) throw new Rejected(409, 'no-cluster', 'This router is no part of a cluster: registry.kind is sqlite.');
  return running.cluster;
}

async function respond(reply: FastifyReply, answer: () => object | Promise<object>): Promise<FastifyReply> {
  try {
    const result = await answer();
    if (isRefusal(result)) {
      const { code, message, retryable } = result;
      return await reply.code(REFUSAL_STATUS[code] ?? 409).send({ code, message, retryable });
    }
    return await reply.send(result);
  } catch (error) {
    if (error instanceof Rejected) return await reply.code(error.status).send({ code: error.code, message: error.message });
    // The registry or a peer is away.
    if (error instanceof ApplianceError) return await reply.code(503).send({ code: error.code, message: error.message, retryable: error.retryable });
    throw error;
  }
}

function isRefusal(result: object): result is Refusal {
  return 'kind' in result && result.kind === 'refused';
}

function checked<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${[where, ...issue.path].join('.')}: ${issue.message}`);
  throw new Rejected(400, 'bad-request', problems.join('; ').slice(0, 1000));
}

/** @throws Rejected unless it comes from this machine, and from no web page. */
function refuseStrangers(request: FastifyRequest): void {
  const { remoteAddress = '', localAddress = '' } = request.socket;
  if (!isThisMachine(remoteAddress, localAddress)) {
    throw new Rejected(
      403,
      'not-from-here',
      `Changes are taken from this machine only, not from ${remoteAddress}: the admin port has no authentication.`,
    );
  }
  if (request.headers.origin !== undefined || request.headers['sec-fetch-site'] !== undefined) {
    throw new Rejected(403, 'not-from-here', 'Changes are not taken from web pages.');
  }
}

/** Whether a connection between these addresses begins on this machine: from loopback, or from the very address that it goes to. */
export function isThisMachine(remoteAddress: string, localAddress: string): boolean {
  const remote = withoutMapping(remoteAddress);
  return remote === '::1' || /^127\.\d+\.\d+\.\d+$/.test(remote) || (remote !== '' && remote === withoutMapping(localAddress));
}

/** An IPv4 address that came in by IPv6 as IPv4. */
function withoutMapping(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}
