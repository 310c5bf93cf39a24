"""The demo's image host as a child process; the host itself is in `demo/`."""

from __future__ import annotations

import http.client
import signal
import sys
from pathlib import Path
from typing import ClassVar

from labeling_assets.embedded.ports import LOOPBACK
from labeling_assets.embedded.process import ServerProcess
from labeling_assets.errors import ConfigurationError

PROBE_SECONDS = 3.0


class ImageHostServer(ServerProcess):
    """Serves the images of the demo catalogue on 127.0.0.1.

    Args:
        folder: Folder of the lock.
        port: Port that the image URLs in the demo's rows name.
        demo_folder: The demo catalogue.
        log_file: Where the output goes.
    """

    name: ClassVar[str] = "demo image host"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, port: int, demo_folder: Path, log_file: Path | None = None) -> None:
        super().__init__(folder, port, log_file=log_file)
        self.demo_folder = demo_folder

    def command(self) -> list[str]:
        """The image host on the demo's folder."""
        options = ["--folder", str(self.demo_folder), "--host", LOOPBACK, "--port", str(self.port)]
        return [sys.executable, "-m", "labeling_assets.embedded.demo.image_host", *options]

    def is_answering(self) -> bool:
        """Whether it answers a request, be it with 404."""
        return answers_http(self.port)

    def port_taken(self) -> ConfigurationError:
        """The port cannot change: the image URLs of the demo's rows name it."""
        return ConfigurationError(
            f"Port {self.port} of the demo's image host is taken by another program; the demo's URLs name it.",
            f"Stop that program, or remove {self.demo_folder} and run `labeling demo` anew.",
        )


def answers_http(port: int) -> bool:
    """Whether an HTTP server answers on the loopback port."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
