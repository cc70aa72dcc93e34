"""Small pages of our own: held on a socket for the time of a `with`."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from risbench.core.errors import MissingRequirementError, OptionError
from risbench.core.extras import need_packages

_START_S: Final = 60.0


def need_web() -> None:
    """Raise the one-line error where the review extra is not installed.

    Raises:
        MissingRequirementError: it names the package and how to install it.
    """
    need_packages("review")


@contextlib.contextmanager
def serving(application: Any, host: str, port: int) -> Iterator[str]:
    """Serve an ASGI application in a thread and yield its address; port 0 is any free one.

    Raises:
        OptionError: the address cannot be used.
        MissingRequirementError: the application does not start.
    """
    import uvicorn

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:  # a port beyond 65535
            said = getattr(error, "strerror", None) or error
            raise OptionError(f"{host}:{port}: {said}; name another with --host and --port") from None
        server = uvicorn.Server(uvicorn.Config(application, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        url, began = f"http://{host}:{listening.getsockname()[1]}", time.monotonic()
        try:
            while not server.started:
                if not thread.is_alive() or time.monotonic() - began > _START_S:
                    raise MissingRequirementError(f"{url}: the page did not start")
                time.sleep(0.05)
            yield url
        finally:
            server.should_exit = True
            thread.join()
