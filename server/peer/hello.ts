/** The first frame of each stream and its answer: versions, identities, session number (docs/PEER-PROTOCOL.md, "Hello"). */
import type { Incarnation, RouterId } from '../core/ids.ts';
import { FrameError } from './frame-error.ts';
import { getIncarnation, getRouter, putRouter } from './object-codec.ts';
import { LANES } from './peer-settings.ts';
import type { WireReader } from './wire-reader.ts';
import type { WireWriter } from './wire-writer.ts';

/** Versions of the protocol that this program speaks. */
export const VERSION_FIRST = 1;
export const VERSION_LAST = 2;
/** From this version on READs and their answers have no CRCs: they go over TLS, or do not leave the machine, and on to a client that has none either. */
export const VERSION_READS_WITHOUT_CRC = 2;

const VPOOL_BYTES_MAX = 64;
const MESSAGE_BYTES_MAX = 512;
const CREDIT_BYTES_MAX = 1024 * 1024 * 1024;

export interface Hello {
  readonly versionFirst: number;
  readonly versionLast: number;
  readonly vpoolUuid: string;
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  /** Whom the caller wants to talk to. */
  readonly toRouter: RouterId;
  readonly toIncarnation: Incarnation;
  /** Rises with every session of this incarnation. */
  readonly session: number;
  readonly lane: number;
  readonly stream: number;
}

/** Why a hello is refused. `stale`: by an incarnation or session number that a newer one has replaced. `not-me`: another router or incarnation was meant. */
export const REFUSALS = ['version', 'vpool', 'certificate', 'stale', 'not-me', 'busy'] as const;
export type Refusal = (typeof REFUSALS)[number];

export type HelloAnswer =
  | {
      readonly kind: 'welcome';
      readonly version: number;
      readonly creditBytes: number;
    }
  | { readonly kind: 'refused'; readonly refusal: Refusal; readonly message: string };

export function putHello(writer: WireWriter, hello: Hello): void {
  writer.u16(hello.versionFirst);
  writer.u16(hello.versionLast);
  writer.exactText(hello.vpoolUuid, VPOOL_BYTES_MAX);
  putRouter(writer, hello.router);
  writer.hex(hello.incarnation, 32);
  putRouter(writer, hello.toRouter);
  writer.hex(hello.toIncarnation, 32);
  writer.u53(hello.session);
  writer.u8(hello.lane);
  writer.u8(hello.stream);
}

/** Does not look at what follows in later versions. */
export function getHello(reader: WireReader): Hello {
  const hello: Hello = {
    versionFirst: reader.u16(),
    versionLast: reader.u16(),
    vpoolUuid: reader.text(VPOOL_BYTES_MAX),
    router: getRouter(reader),
    incarnation: getIncarnation(reader),
    toRouter: getRouter(reader),
    toIncarnation: getIncarnation(reader),
    session: reader.u53(),
    lane: reader.u8(),
    stream: reader.u8(),
  };
  if (hello.versionFirst > hello.versionLast) throw new FrameError('a hello with an empty range of versions');
  return hello;
}

/** True when there is such a lane and stream. */
export function isLaneStream(lane: number, stream: number): boolean {
  const shape = LANES[lane];
  return shape !== undefined && stream < shape.streams;
}

export function putHelloAnswer(writer: WireWriter, answer: HelloAnswer): void {
  writer.bool(answer.kind === 'welcome');
  if (answer.kind === 'welcome') {
    writer.u16(answer.version);
    writer.u32(answer.creditBytes);
  } else {
    writer.u8(REFUSALS.indexOf(answer.refusal));
    writer.text(answer.message, MESSAGE_BYTES_MAX);
  }
}

export function getHelloAnswer(reader: WireReader): HelloAnswer {
  if (!reader.bool()) return { kind: 'refused', refusal: REFUSALS[reader.member(REFUSALS.length - 1)]!, message: reader.text(MESSAGE_BYTES_MAX) };
  const version = reader.u16();
  const creditBytes = reader.u32();
  if (version < VERSION_FIRST || version > VERSION_LAST) throw new FrameError(`the version ${version} that was not offered`);
  if (creditBytes === 0 || creditBytes > CREDIT_BYTES_MAX) throw new FrameError(`a credit of ${creditBytes} bytes`);
  return { kind: 'welcome', version, creditBytes };
}
