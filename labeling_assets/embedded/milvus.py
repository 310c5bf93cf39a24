"""A Milvus Lite server, `milvus-lite server`, as a child process on 127.0.0.1.

Two processes cannot open one Milvus Lite folder, so a server owns it and everybody else connects. Acknowledged rows are
in its log and survive a kill; SIGINT closes in good order, while SIGTERM ends it without closing. What belongs here:
the process; the vector store is in `services/milvus`.
"""

from __future__ import annotations

import importlib.util
import signal
import socket
import sys
from typing import ClassVar

from labeling_assets.embedded.ports import LOOPBACK
from labeling_assets.embedded.process import ServerProcess
from labeling_assets.errors import ConfigurationError

PROBE_SECONDS = 3.0


class MilvusServer(ServerProcess):
    """Milvus Lite on 127.0.0.1; its data are in `data/` of the folder."""

    name: ClassVar[str] = "Milvus Lite server"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    @property
    def uri(self) -> str:
        """Address for `MilvusClient`."""
        return f"http://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        """The server, bound to loopback: its default is every interface, without a password."""
        if importlib.util.find_spec("milvus_lite") is None:
            raise ConfigurationError(
                "Milvus Lite is not installed.",
                "Install it with `pip install 'labeling-assets[embedded]'`, or set LABELING_MILVUS_URI to a server.",
            )
        options = ["--data-dir", str(self.folder / "data"), "--host", LOOPBACK, "--port", str(self.port)]
        return [sys.executable, "-m", "labeling_assets.embedded.milvus_program", "server", *options]

    def environment(self) -> dict[str, str]:
        """The caller's, without the default connection that pymilvus takes from it at import."""
        return {name: value for name, value in super().environment().items() if not name.startswith("MILVUS_URI")}

    def is_answering(self) -> bool:
        """Whether the server answers a Milvus request."""
        return answers_milvus(LOOPBACK, self.port)


def answers_milvus(host: str, port: int, timeout_seconds: float = PROBE_SECONDS) -> bool:
    """Whether a Milvus server without TLS answers `GetVersion`; a refusal, such as a missing token, is an answer too.

    Asked through gRPC itself, since importing pymilvus takes a second. The request has no fields: its message is empty.
    """
    import grpc

    try:
        socket.create_connection((host, port), timeout=timeout_seconds).close()
    except OSError:
        return False
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")(b"", timeout=timeout_seconds)
        except grpc.RpcError as error:
            return error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    return True
