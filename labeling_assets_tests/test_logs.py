"""Log lines: one JSON object each, with what a run knows of itself, and without secrets."""

import datetime as dt
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution import context_creation_job
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets import logs
from labeling_assets.run_logs import loggers
from labeling_assets.services.redaction import Redactor
from labeling_assets.settings import Settings

JSON = Settings.model_validate({"log_format": "json", "openai_api_key": "tr0ub4dor"})


@pytest.fixture(autouse=True)
def _loggers_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(context_creation_job, "default_system_loggers", context_creation_job.default_system_loggers)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_tells_time_level_logger_message_and_exception(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(JSON, logging.INFO)
    try:
        raise ZeroDivisionError("by tr0ub4dor")
    except ZeroDivisionError:
        logging.getLogger("labeling_assets.x").exception("It %s\nwith tr0ub4dor", "broke")
    [line] = lines(capsys.readouterr().err)
    assert dt.datetime.fromisoformat(line.pop("time")).utcoffset() == dt.timedelta(0)
    assert "ZeroDivisionError: by ***" in line.pop("exception")
    assert line == {"level": "ERROR", "logger": "labeling_assets.x", "message": "It broke\nwith ***"}


def test_lines_for_people_hold_no_secret_either(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(JSON.model_copy(update={"log_format": "text"}), logging.INFO)
    logging.getLogger("x").warning("key tr0ub4dor")
    assert capsys.readouterr().err == "WARNING x: key ***\n"


def test_a_second_configuration_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        logs.configure(JSON, logging.WARNING)
    logging.getLogger("x").info("below the level")
    logging.getLogger("x").warning("once")
    assert [line["message"] for line in lines(capsys.readouterr().err)] == ["once"]


@given(st.text())
def test_every_record_is_one_line_that_can_be_parsed(message: str) -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, message, (), None)
    line = logs.JsonFormatter(Redactor()).format(record)
    assert "\n" not in line
    assert json.loads(line.encode())["level"] == "INFO"


DAYS = dg.DailyPartitionsDefinition("2026-01-01")


@dg.asset(partitions_def=DAYS)
def pictures(context: dg.AssetExecutionContext) -> None:
    context.log.info("at work with tr0ub4dor")
    raise ZeroDivisionError("tr0ub4dor")


@dg.op
def work() -> None:
    """Nothing."""


@dg.job
def range_job() -> None:
    work()


def run_lines(
    capsys: pytest.CaptureFixture[str], job: str = "__ASSET_JOB", **run: Any
) -> tuple[str, list[dict[str, Any]]]:
    json_loggers = loggers(Settings.load())
    defs = dg.Definitions([pictures], jobs=[range_job], loggers=json_loggers, executor=dg.in_process_executor)
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = defs.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False, **run).run_id
    return run_id, lines(capsys.readouterr().err)


@pytest.fixture
def _json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELING_LOG_FORMAT", "json")
    monkeypatch.setenv("LABELING_OPENAI_API_KEY", "tr0ub4dor")


@pytest.mark.usefixtures("_json")
@pytest.mark.parametrize("config", [None, {"loggers": {"console": {"config": {"log_level": "info"}}}}])
def test_lines_of_a_run_tell_run_step_and_day(capsys: pytest.CaptureFixture[str], config: Any) -> None:
    run_id, found = run_lines(capsys, partition_key="2026-03-14", run_config=config)
    assert {line["run_id"] for line in found} == {run_id}
    assert {line["partition"] for line in found} == {"2026-03-14"}
    [own] = [line for line in found if line["message"] == "at work with ***"]
    assert (own["step"], own["logger"], own["level"]) == ("pictures", "dagster", "INFO")
    assert any("ZeroDivisionError: ***" in line.get("exception", "") for line in found)
    assert "tr0ub4dor" not in str(found)


@pytest.mark.usefixtures("_json")
def test_lines_of_a_range_tell_its_first_and_last_day(capsys: pytest.CaptureFixture[str]) -> None:
    tags = {"dagster/asset_partition_range_start": "2026-03-01", "dagster/asset_partition_range_end": "2026-03-09"}
    _, found = run_lines(capsys, "range_job", tags=tags)
    assert {line["partition"] for line in found} == {"2026-03-01...2026-03-09"}


@pytest.mark.usefixtures("_json")
def test_a_run_can_be_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    assert run_lines(capsys, partition_key="2026-03-14", run_config=quiet)[1] == []


def test_with_text_dagster_logs_as_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    before = context_creation_job.default_system_loggers
    assert loggers(Settings()) == {}
    assert context_creation_job.default_system_loggers is before


def test_the_command_line_logs_json() -> None:
    code = (
        "import logging, click; from labeling_assets.cli import cli;"
        "cli.add_command(click.Command('probe', callback=lambda: logging.getLogger('x').warning('hello')));"
        "cli(['probe'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={"LABELING_LOG_FORMAT": "json"}, capture_output=True, text=True, check=True
    )
    assert [line["message"] for line in lines(result.stderr)] == ["hello"]
