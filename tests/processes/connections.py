"""A socket where front ends connect to a worker of the same process."""

import asyncio
import socket


class Listener:
    def __init__(self):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind("")
        self._socket.listen()
        self.address = self._socket.getsockname().decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def accept(self):
        """Return the worker's end of a connection, waited for."""
        self._socket.settimeout(60)
        return self._socket.accept()[0]


def pair():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


async def connection(engine):
    """Wait until a front end's engine has been greeted by a worker."""
    async with asyncio.timeout(60):
        while not engine.ready:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
