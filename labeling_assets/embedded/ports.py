"""Free TCP ports on 127.0.0.1. Which port a home keeps is in `home.py`."""

from __future__ import annotations

import secrets
import socket

from labeling_assets.errors import ServiceUnavailableError

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below what Linux (32768) and macOS (49152) give to outgoing connections, so a port stays free while we are down."""


def is_port_free(port: int) -> bool:
    """Whether a server can listen on the port now.

    SO_REUSEADDR lets connections in TIME_WAIT pass; a listening socket still refuses. Ask this before a gRPC server
    starts: those share a port silently (SO_REUSEPORT).
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port on which nothing listens, drawn at random so that two stacks that start together do not meet.

    Raises:
        ServiceUnavailableError: None was found.
    """
    for _ in range(1000):
        port = secrets.choice(PORTS)
        if is_port_free(port):
            return port
    raise ServiceUnavailableError(f"No free port between {PORTS.start} and {PORTS.stop} on {LOOPBACK}.")
