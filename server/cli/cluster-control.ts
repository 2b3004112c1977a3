/** `vferry router`, `vferry volume`, `vferry move`: a running router of a cluster is asked over its admin port. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { DrainReport, MovesReport, MoveReport, RouterReport, TakeoverPlan, VolumePage, VolumeReport } from '../cluster-port.ts';
import type { AdminSettings } from '../settings/settings.ts';
import { type AdminAnswer, adminUrl, callAdmin } from './admin-client.ts';
import { drainText, movesText, planText, routersText, shortId, volumesText } from './cluster-text.ts';
import { ExitCode } from './exit-code.ts';
import type { Printer } from './status.ts';

const POLL_MS = 250;
const PAGE_VOLUMES = 500;
/** A move between two other routers may not have begun when it is first looked for. */
const UNSEEN_ROUNDS_MAX = 20;
/** What changes something may wait for the registry and for peers. */
const CHANGE_TIMEOUT_MS = 60_000;

/** An answer that ends a command. */
class Refused extends Error {
  readonly exitCode: ExitCode;

  constructor(exitCode: ExitCode, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** What the commands have in common: where to ask, what to print to, and whether Ctrl-C was pressed. */
export interface ControlContext {
  readonly admin: AdminSettings;
  readonly json: boolean;
  readonly print: Printer;
  /** Progress is one line that is written over again; else every change is a line. */
  readonly terminal: boolean;
  readonly interrupted: AbortSignal;
  /** Asks a person; null: there is none to ask. */
  readonly confirm: ((question: string) => Promise<boolean>) | null;
}

/** Exit code of `command`: its own, 1 if the router refuses, 2 if nobody answers. */
export async function controlled(context: ControlContext, command: (client: ControlClient) => Promise<ExitCode>): Promise<ExitCode> {
  try {
    return await command(new ControlClient(context));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    context.print.err(`${error.message}\n`);
    return error.exitCode;
  }
}

export class ControlClient {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  async listRouters(): Promise<ExitCode> {
    const routers = await this.#routers();
    this.#show({ routers }, () => routersText(routers));
    return ExitCode.OK;
  }

  /** Volumes of one router (the beginning of its id) or of all. */
  async listVolumes(router: string | null): Promise<ExitCode> {
    const id = router === null ? null : await this.#routerId(router);
    const volumes: VolumeReport[] = [];
    let after: string | null = null;
    do {
      const query = new URLSearchParams({
        limit: String(PAGE_VOLUMES),
        ...(id === null ? {} : { router: id }),
        ...(after === null ? {} : { after }),
      });
      const page: VolumePage = await this.#get(`/cluster/volumes?${query.toString()}`, (body: VolumePage) => Array.isArray(body.volumes));
      volumes.push(...page.volumes);
      after = page.next;
    } while (after !== null);
    this.#show({ volumes }, () => volumesText(volumes));
    return ExitCode.OK;
  }

  async listMoves(): Promise<ExitCode> {
    const moves = await this.#moves();
    this.#show(moves, () => {
      const running = moves.running.length === 0 ? 'No move runs.\n' : movesText(moves.running, new Date());
      return moves.history.length === 0 ? running : `${running}\nEnded, newest first:\n${movesText(moves.history, new Date())}`;
    });
    return ExitCode.OK;
  }

  async abortMove(id: string): Promise<ExitCode> {
    await this.#call('DELETE', `/cluster/moves/${encodeURIComponent(id)}`);
    this.#show({ aborted: id }, () => `Move ${id} is aborted; the object stays where it is.\n`);
    return ExitCode.OK;
  }

  /** Ctrl-C while it waits leaves the move running. Exit code 1: it did not get there. */
  async moveVolume(object: string, router: string, wait: boolean): Promise<ExitCode> {
    const to = await this.#routerId(router);
    const { running, history } = await this.#moves();
    const former = new Set([...running, ...history].map(({ id }) => id));
    const started = (await this.#call('POST', '/cluster/moves', { object, to })) as { kind: string; move?: MoveReport | null };
    if (started.kind === 'already-there') {
      this.#show(started, () => `It is on router ${shortId(to)} already.\n`);
      return ExitCode.OK;
    }
    if (!wait) {
      this.#show(started, () => 'The move has begun; vferry move list shows it.\n');
      return ExitCode.OK;
    }
    return await this.#waitForMove(object, to, started.move ?? null, former);
  }

  async drain(wait: boolean): Promise<ExitCode> {
    const report = (await this.#call('POST', '/cluster/drain', {})) as DrainReport;
    if (!wait) {
      this.#show(report, () => `${drainText(report)}\nvferry router drain --wait follows it, vferry router undrain ends it.\n`);
      return ExitCode.OK;
    }
    return await this.#waitForDrain(report);
  }

  async undrain(): Promise<ExitCode> {
    const report = (await this.#call('DELETE', '/cluster/drain')) as DrainReport;
    this.#show(report, () => 'This router takes objects again; what was moved away stays where it is until it is used here.\n');
    return ExitCode.OK;
  }

  async forgetRouter(router: string): Promise<ExitCode> {
    const id = await this.#routerId(router);
    const forgotten = (await this.#call('DELETE', `/cluster/routers/${id}`)) as object;
    this.#show(forgotten, () => `Router ${shortId(id)} is forgotten. Its certificate is still good: vferry cluster revoke ends that.\n`);
    return ExitCode.OK;
  }

  async pin(object: string, pinned: boolean): Promise<ExitCode> {
    const volume = (await this.#call('POST', '/cluster/pin', { object, pinned })) as VolumeReport;
    this.#show(volume, () =>
      pinned
        ? `${nameOf(volume)} stays on router ${shortId(volume.router)}, whatever is forwarded, until it is unpinned (a drain or volume move still moves it).\n`
        : `${nameOf(volume)} follows its clients again.\n`,
    );
    return ExitCode.OK;
  }

  /** Shows what would be given up; goes on with `force` where that is needed, and after `yes` or a person's answer. */
  async takeOver(object: string, force: boolean, yes: boolean): Promise<ExitCode> {
    const { print, confirm } = this.#context;
    const query = new URLSearchParams({ object });
    const plan = await this.#get(`/cluster/takeover?${query.toString()}`, (body: TakeoverPlan) => Array.isArray(body.givenUp));
    if (!this.#context.json) print.out(planText(plan));
    if (plan.needsForce && !force) {
      throw new Refused(
        ExitCode.FAILED,
        'Nothing was done: this gives up acknowledged data, which needs --force. Bring that router back if you can.',
      );
    }
    if (plan.needsForce && !yes) {
      if (confirm === null) throw new Refused(ExitCode.USAGE, 'Nothing was done: nobody is there to be asked; --yes says that you mean it.');
      if (!(await confirm('Give that up and serve the object here? Type yes: '))) throw new Refused(ExitCode.FAILED, 'Nothing was done.');
    }
    const body = { object, term: plan.volume.term, force: plan.needsForce };
    const outcome = (await this.#call('POST', '/cluster/takeover', body)) as { volume: VolumeReport };
    this.#show({ plan, ...outcome }, () => `${nameOf(outcome.volume)} is served by router ${shortId(outcome.volume.router)}.\n`);
    return ExitCode.OK;
  }

  async #waitForMove(object: string, to: string, first: MoveReport | null, former: ReadonlySet<string>): Promise<ExitCode> {
    const progress = new ProgressLine(this.#context);
    const query = new URLSearchParams({ object }).toString();
    let move = first;
    for (;;) {
      const volume = await this.#get(`/cluster/volume?${query}`, (body: VolumeReport) => typeof body.fileid === 'number');
      const moves = await this.#moves();
      move = sameMove(move, volume, [...moves.running, ...moves.history], former);
      if (volume.router === to && volume.moving === null) {
        progress.end();
        this.#show({ volume, move }, () => `${nameOf(volume)} is on router ${shortId(to)}${heldText(move)}.\n`);
        return ExitCode.OK;
      }
      if (move?.phase === 'aborted' || (move === null && volume.moving === null && progress.rounds > UNSEEN_ROUNDS_MAX)) {
        progress.end();
        this.#show({ volume, move }, () => '');
        const stays = `${nameOf(volume)} stays on router ${shortId(volume.router)}`;
        throw new Refused(
          ExitCode.FAILED,
          move === null
            ? `The move did not come about; ${stays}. vferry move list on router ${shortId(to)} says why.`
            : `The move was aborted${problemText(move)}; ${stays}.`,
        );
      }
      progress.show(move === null ? 'moving' : `${move.phase}, ${movedText(move)}`);
      if (await this.#interruptedAfter(POLL_MS)) {
        progress.end();
        throw new Refused(ExitCode.FAILED, 'Not waiting any more; the move goes on (vferry move list).');
      }
    }
  }

  async #waitForDrain(first: DrainReport): Promise<ExitCode> {
    const progress = new ProgressLine(this.#context);
    let report = first;
    while (report.phase !== 'drained') {
      progress.show(drainText(report));
      if (report.phase === 'none') {
        progress.end();
        throw new Refused(ExitCode.FAILED, 'The drain was ended (vferry router undrain).');
      }
      if (await this.#interruptedAfter(POLL_MS)) {
        progress.end();
        throw new Refused(ExitCode.FAILED, 'Not waiting any more; the drain goes on (vferry router undrain ends it).');
      }
      report = await this.#get('/cluster/drain', (body: DrainReport) => typeof body.phase === 'string');
    }
    progress.end();
    this.#show(report, () => `${drainText(report)}\nNothing is served here any more: this router can be stopped.\n`);
    return ExitCode.OK;
  }

  async #interruptedAfter(delayMs: number): Promise<boolean> {
    const { interrupted } = this.#context;
    await sleep(delayMs, undefined, { signal: interrupted }).catch(() => undefined);
    return interrupted.aborted;
  }

  async #routers(): Promise<readonly RouterReport[]> {
    const { routers } = await this.#get('/cluster/routers', (body: { routers: RouterReport[] }) => Array.isArray(body.routers));
    return routers;
  }

  async #moves(): Promise<MovesReport> {
    return await this.#get('/cluster/moves', (body: MovesReport) => Array.isArray(body.running) && Array.isArray(body.history));
  }

  /** The router whose id begins so. */
  async #routerId(beginning: string): Promise<string> {
    if (/^[0-9a-f]{32}$/.test(beginning)) return beginning;
    const routers = await this.#routers();
    const found = beginning === '' ? [] : routers.filter(({ id }) => id.startsWith(beginning));
    const [only] = found;
    if (only !== undefined && found.length === 1) return only.id;
    const known = routers.map(({ id, self }) => `${shortId(id)}${self ? ' (this one)' : ''}`).join(', ');
    throw new Refused(
      ExitCode.USAGE,
      `${found.length === 0 ? 'No router' : 'More than one router'} has an id that begins with "${beginning}"; there are ${known}.`,
    );
  }

  async #get<T>(path: string, looksRight: (body: T) => boolean): Promise<T> {
    const body = (await this.#call('GET', path)) as T | null;
    if (typeof body !== 'object' || body === null || !looksRight(body)) {
      throw new Refused(ExitCode.USAGE, `What answers at ${adminUrl(this.#context.admin, path)} is no vferry.`);
    }
    return body;
  }

  async #call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object): Promise<unknown> {
    const url = adminUrl(this.#context.admin, path);
    const answer: AdminAnswer = await callAdmin(url, method, body, CHANGE_TIMEOUT_MS);
    switch (answer.kind) {
      case 'ok':
        return answer.body;
      case 'unreachable':
        throw new Refused(ExitCode.USAGE, `No router answers at ${url}: ${answer.message}`);
      case 'refused': {
        const couldNotRun = answer.code === 'no-cluster' || answer.code === 'bad-request' || answer.code === 'not-found';
        throw new Refused(couldNotRun ? ExitCode.USAGE : ExitCode.FAILED, `${answer.message}${answer.retryable ? ' (try again later)' : ''}`);
      }
    }
  }

  #show(value: object, text: () => string): void {
    const { print, json } = this.#context;
    print.out(json ? `${JSON.stringify(value, null, 2)}\n` : text());
  }
}

/** Progress on stderr: on a terminal one line that changes, else a line when something changed. Nothing with --json. */
class ProgressLine {
  readonly #context: ControlContext;
  #last = '';
  rounds = 0;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  show(text: string): void {
    this.rounds += 1;
    const { terminal, json, print } = this.#context;
    if (json || text === this.#last) return;
    print.err(terminal ? `\r\u001B[K${text}` : `${text}\n`);
    this.#last = text;
  }

  end(): void {
    if (this.#context.terminal && this.#last !== '') this.#context.print.err('\r\u001B[K');
  }
}

function nameOf(volume: VolumeReport): string {
  return volume.path ?? `Object ${volume.fileid}`;
}

function movedText({ copiedBytes, behindBytes }: MoveReport): string {
  const total = copiedBytes + behindBytes;
  return total === 0 ? '0 %' : `${Math.floor((copiedBytes / total) * 100)} % of ${total} bytes`;
}

function heldText(move: MoveReport | null): string {
  return move === null || move.heldMs === null ? '' : `; I/O was held for ${move.heldMs.toFixed(1)} ms`;
}

/** The move as it is now, or the one of the volume that is not a former one, if none was known; null: this router knows none. */
function sameMove(known: MoveReport | null, volume: VolumeReport, moves: readonly MoveReport[], former: ReadonlySet<string>): MoveReport | null {
  if (known === null) return moves.find(({ id, fileid }) => fileid === volume.fileid && !former.has(id)) ?? null;
  return moves.find(({ id }) => id === known.id) ?? known;
}

function problemText(move: MoveReport | null): string {
  return move === null || move.problem === null ? '' : `: ${move.problem}`;
}
