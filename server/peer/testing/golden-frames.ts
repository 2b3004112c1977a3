/** Frames of version 1 byte by byte, as docs/PEER-PROTOCOL.md describes them. They never change: a router of an older release sends them. */

const HEAD = (crc: string, kind: string, flags: string, request: string, payload: string, args: string, age: string, payloadCrc: string): string => `
${crc}              # CRC-32 of what follows up to the end of the arguments
7646                # "vF"
${kind} ${flags}               # kind, flags (01: an answer)
${request}          # request
${payload} ${args}     # bytes of payload, of arguments
${age}                # age of the call when it was sent, ms
01020304            # sent at, ms
${payloadCrc}       # CRC-32 of the payload`;

const TARGET = `
0000000000001267    # fileid
0000000000000063    # inode generation
0000000000000001    # term: generation
0000000000000005    # term: counter
0011223344556677    # term: nonce`;

const CALLER = `
000003e8 000003e8   # uid, gid
01 00000004         # one group
0009 3139322e302e322e37  # address "192.0.2.7"
0002 6f70           # operation id "op"`;

/** Text of each frame: hex digits, `#` comments. */
export const GOLDEN_FRAMES = {
  hello: `${HEAD('6f877197', '01', '00', '00000000', '00000000', '0070', '0000', '00000000')}
0001 0001           # versions, first and last
0020 3066306630663066306630663066306630663066306630663066306630663066  # uuid of the vPool, text
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  # from router
a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1  # in incarnation
bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb  # to router
b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1  # in incarnation
0000000000000007    # session
01 00               # lane, stream`,
  welcome: `${HEAD('6ceb47ba', '01', '01', '00000000', '00000000', '0007', '0000', '00000000')}
01                  # welcome
0001                # version
02000000            # credit`,
  refused: `${HEAD('d16a4a9e', '01', '01', '00000000', '00000000', '0009', '0000', '00000000')}
00                  # refused
01                  # vpool
0005 6f74686572     # "other"`,
  read: `${HEAD('4009da8f', '12', '00', '00000009', '00000000', '0050', '0003', '00000000')}
${TARGET}
${CALLER}
0000000000002000    # offset
00000004            # count`,
  readAnswer: `${HEAD('4bb45527', '12', '01', '00000009', '00000004', '004e', '0000', 'adf3f363')}
00                  # done
0000                # status OK
01                  # with attributes
01 000001a4 00000001 000003e8 000003e8  # type, mode, nlink, uid, gid
0000000100000005    # size
0000000000001000    # used
fedcba9876543210    # fsid
0000000000001267    # fileid
00000001 00000002   # atime
00000003 00000004   # mtime
00000005 00000006   # ctime
01                  # end of file
64617461            # payload "data"`,
  write: `${HEAD('77782f26', '13', '00', '0000000a', '00000004', '004d', '0000', 'adf3f363')}
${TARGET}
${CALLER}
0000000000002000    # offset
02                  # FILE_SYNC
64617461            # payload "data"`,
  notOwner: `${HEAD('f29a58bb', '13', '01', '0000000a', '00000000', '003a', '0000', '00000000')}
01                  # not the owner
01                  # but this is
bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb  # router
b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1  # in incarnation
0000000000000001 0000000000000005 0011223344556677  # term`,
  frozen: `${HEAD('11b795cf', '22', '01', '00000001', '00000083', '0001', '0000', 'f5e396cc')}
00                  # done; the rest is payload
01                  # frozen
0000000000000009    # last segment
000000000000005a    # last sequence
0000000000000009 0000000000000200  # end: segment, offset
0123456789abcdef    # verifier
0000000000000000    # bytes of the log behind what follows
00000001            # pieces
0000000000000009    # segment
0000000000000001 0000000000000005 0011223344556677  # its term
0000000000000100    # offset
01 0000000000000103 # size of the sealed segment
00000003            # bytes
000000000000004d    # completed calls: where the next part begins
0000000000000000    # behind it
00000002            # bytes
6c6f67              # of the piece
6363                # of the calls`,
} as const;

/** Bytes of such a text. */
export function bytesOf(text: string): Buffer {
  return Buffer.from(text.replaceAll(/#.*$/gm, '').replaceAll(/\s/g, ''), 'hex');
}
