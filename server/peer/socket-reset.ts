import type { Socket } from 'node:net';

/**
 * Closes a connection at once by a reset: nothing unread is read, nothing unsent is sent. `resetAndDestroy` will not do: it ends the stream first, which waits for
 * the peer, and a socket that HTTP/2 reads from then stays open for ever (libuv refuses to reset what is being shut down, and Node forgets it nevertheless).
 * So a connection whose other end has said goodbye, which Node is ending on its own, is closed without a reset. `carrier`: the TLS around the socket, if any.
 */
export function resetSocket(socket: Socket, carrier: Socket = socket): void {
  (socket as Socket & { resetAndClosing: boolean }).resetAndClosing = !socket.connecting && !socket.destroyed && !carrier.writableEnded;
  socket.destroy();
}
