"""What the project's start of milvus-lite mends."""

from __future__ import annotations

import socket
import struct
from urllib.parse import urlsplit

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7


def frame(kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame of the whole connection (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags, 0, 0, 0, 0]) + payload


def test_a_client_that_keeps_an_idle_connection_alive_is_not_cut_off(milvus_uri: str) -> None:
    address = urlsplit(milvus_uri)
    with socket.create_connection((address.hostname, address.port or 0), timeout=30) as connection:
        received = connection.makefile("rb")
        connection.sendall(PREFACE + frame(SETTINGS))
        for _ in range(20):
            connection.sendall(frame(PING, payload=bytes(8)))
            kind = SETTINGS
            while kind != PING:
                head = received.read(9)
                length, kind = int.from_bytes(head[:3], "big"), head[3]
                payload = received.read(length)
                assert kind != GOAWAY, f"the server ended the connection: {payload[8:].decode()}"
