"""`labeling metrics`: the Prometheus metrics of the pipeline."""

from __future__ import annotations

import os

import click

from labeling_assets.cli.output import output
from labeling_assets.settings import Settings

DEFAULT_PORT = 9464
"""The port that OpenTelemetry registers for a Prometheus endpoint."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address on which the metrics are served.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"Port; by default LABELING_METRICS_PORT, or {DEFAULT_PORT} where it is 0.",
)
def metrics(host: str, port: int | None) -> None:
    """Serve the metrics at /metrics until Ctrl+C.

    Starts no service: one that is down shows as labeling_up 0.
    """
    from labeling_assets import instance
    from labeling_assets.embedded import stack
    from labeling_assets.metrics import metrics_server

    settings = stack.addresses(Settings.load())
    instance.write_dagster_home(settings)
    os.environ.update(instance.environment(settings))
    with metrics_server(settings, host, (settings.metrics_port or DEFAULT_PORT) if port is None else port) as server:
        output().print(f"Metrics: http://{host}:{server.server_port}/metrics (Ctrl+C stops it)")
        server.serve_forever()
