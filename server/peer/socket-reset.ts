import type { Socket } from 'node:net';

/**
 * Closes a connection at once by a reset: nothing unread is read, nothing unsent is sent. `resetAndDestroy` will not do: it ends the stream first, which waits for
 * the peer, and a socket that HTTP/2 reads from then stays open for ever (libuv refuses to reset what is being shut down).
 */
export function resetSocket(socket: Socket): void {
  (socket as Socket & { resetAndClosing: boolean }).resetAndClosing = !socket.connecting && !socket.destroyed;
  socket.destroy();
}
