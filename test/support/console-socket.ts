/** The other end of `--console-socket` and `--pidfd-socket`: a unix socket on which a runtime leaves one descriptor. */
import { OwnedFd } from '../../runtime/sys/fd.ts'
import { declare } from '../../runtime/sys/libc.ts'
import { receiveFd } from '../../runtime/sys/socket.ts'

const AF_UNIX = 1
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000

const socket = declare('int socket(int domain, int type, int protocol)')
const bind = declare('int bind(int fd, const void *address, unsigned int length)')
const listen = declare('int listen(int fd, int backlog)')
const accept = declare('int accept(int fd, void *address, void *length)')

function owned(fd: number, what: string): OwnedFd {
  if (fd < 0) throw new Error(`cannot ${what}`)
  return new OwnedFd(fd)
}

/** A listening socket. Ask for a descriptor only after the runtime has sent it: nothing here waits for long. */
export class FdReceiver implements Disposable {
  readonly #listener: OwnedFd

  constructor(path: string) {
    const address = Buffer.alloc(110)
    address.writeUInt16LE(AF_UNIX)
    address.write(path, 2)
    this.#listener = owned(socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0), 'make a socket')
    if (bind(this.#listener.fd, address, address.length) < 0 || listen(this.#listener.fd, 4) < 0) {
      throw new Error(`cannot listen on ${path}`)
    }
  }

  /** The descriptor that the runtime has left. */
  take(): OwnedFd {
    using connection = owned(accept(this.#listener.fd, null, null), 'accept')
    const fd = receiveFd(connection.fd)
    if (fd === undefined) throw new Error('the runtime connected and sent no descriptor')
    return fd
  }

  [Symbol.dispose](): void {
    this.#listener.close()
  }
}
