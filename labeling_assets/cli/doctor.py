"""`labeling doctor`: every outside system tested, with the remedy for each that fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import sqlalchemy as sa
from rich.markup import escape

from labeling_assets.cli.output import output, plain_table
from labeling_assets.errors import ConfigurationError, LabelingError
from labeling_assets.settings import Settings

if TYPE_CHECKING:
    from labeling_assets.services.connect import Services


@dataclass(frozen=True)
class Finding:
    """What a test found: `ok` with details, or what is wrong and the remedy."""

    name: str
    is_ok: bool
    details: str
    remedy: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, as_json: bool) -> None:
    """Test every outside system and name the remedy for each that fails. Exit code 1 if one fails."""
    findings = examine(Settings.load())
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], ensure_ascii=False, indent=2))
    else:
        _print(findings)
    if not all(finding.is_ok for finding in findings):
        sys.exit(1)


def examine(settings: Settings) -> list[Finding]:
    """Test one system after the other; a failing one does not hide the next."""
    from labeling_assets import instance
    from labeling_assets.embedded import stack
    from labeling_assets.services.connect import Services
    from labeling_assets.services.embedding.devices import describe_gpus

    findings = []
    try:
        settings = instance.prepare(settings)
    except LabelingError as error:
        findings.append(Finding("services", is_ok=False, details=error.message, remedy=error.remedy))
        settings = stack.addresses(settings)
    services = Services(settings)
    tests: dict[str, Callable[[], str]] = {
        "source table": lambda: _source_table(services, settings),
        "Dagster storage": _dagster_storage,
        "storage": lambda: _storage(settings),
        "vision model": lambda: _vision_model(services),
        "GPU": describe_gpus,
        "embedder": lambda: ", ".join(f"{name} {value}" for name, value in services.embedder.model_info().items()),
        "Milvus": lambda: _milvus(services),
    }
    return findings + [_finding(name, test) for name, test in tests.items()]


def _finding(name: str, test: Callable[[], str]) -> Finding:
    try:
        return Finding(name, is_ok=True, details=test())
    except LabelingError as error:
        return Finding(name, is_ok=False, details=error.message, remedy=error.remedy)


def _source_table(services: Services, settings: Settings) -> str:
    from labeling_assets.products.queries import SOURCE_COLUMNS
    from labeling_assets.services.postgres import database_errors

    schema, table = settings.source_table.split(".")
    with database_errors("PostgreSQL cannot be read"):
        inspector = sa.inspect(services.product_database.engine)
        if not inspector.has_table(table, schema=schema):
            raise ConfigurationError(
                f"{settings.source_table} does not exist.",
                "Set LABELING_SOURCE_TABLE, or fill it with `labeling demo`.",
            )
        columns = {column["name"] for column in inspector.get_columns(table, schema=schema)}
        indexed = {name for index in inspector.get_indexes(table, schema=schema) for name in index["column_names"][:1]}
    missing = sorted(SOURCE_COLUMNS.keys() - columns)
    if missing:
        raise ConfigurationError(
            f"{settings.source_table} lacks the columns {', '.join(missing)}.",
            "Add them, or offer a view that has them.",
        )
    return f"{settings.source_table} has every column" + (
        "" if "published_at" in indexed else "; an index on published_at would make the crawl faster"
    )


def _dagster_storage() -> str:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        return f"{instance.get_runs_count()} runs"


def _storage(settings: Settings) -> str:
    from labeling_assets.services.images.files import open_root

    probe = open_root(settings.storage_root) / ".doctor"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"doctor")
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"{settings.storage_root} cannot be written: {error}.",
            "Set LABELING_STORAGE, or give us the right to write.",
        ) from error
    return f"{settings.storage_root} can be written"


def _vision_model(services: Services) -> str:
    model = services.vision_model
    model.check()
    return f"{model.name}, digest {model.digest[:12]}, {model.slots} slots"


def _milvus(services: Services) -> str:
    store = services.vector_store
    store.ensure()
    state = store.state()
    return f"{state.physical_name}: {state.rows} products, {state.load_state}, {state.indexes}"


def _print(findings: list[Finding]) -> None:
    table = plain_table(None, "", "system", "details")
    for finding in findings:
        details = finding.details if finding.is_ok else f"{finding.details}\n→ {finding.remedy}"
        table.add_row("[green]✓[/]" if finding.is_ok else "[red]✗[/]", finding.name, escape(details))
    output().print(table)
