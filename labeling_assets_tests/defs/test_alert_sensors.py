"""Failed runs and failed checks reach a real receiver: what they say, that storms are few, that outages lose none."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from labeling_assets.defs.platform import sensors
from labeling_assets.defs.platform.sensors import failed_check_alerts_sensor, run_failure_alerts_sensor
from labeling_assets.errors import ConfigurationError, InvalidRowError, LabelingError, ServiceUnavailableError
from labeling_assets.failures import as_dagster_failure
from labeling_assets.resources import ProductDatabaseResource
from labeling_assets.services import webhook
from labeling_assets.services.connect import close_services
from labeling_assets.services.day_state import DayFailures
from labeling_assets.services.tables import alerts as table
from labeling_assets_tests.standins.webhook import WebhookReceiver

DAYS = dg.DailyPartitionsDefinition("2026-01-01")
ERRORS: dict[str, LabelingError] = {
    "outage": ServiceUnavailableError("Ollama does not answer.", "Start Ollama."),
    "setting": ConfigurationError("LABELING_X is wrong.", "Correct LABELING_X."),
}


@dg.op(config_schema={"error": str})
def qwen_labels(context: dg.OpExecutionContext) -> None:
    kind = context.op_config["error"]
    if kind == "bug":
        raise ZeroDivisionError("division of \x00 postgresql://u:hunter22@h/db")
    if kind == "days":
        raise dg.Failure("1 of 2 days failed.", metadata={"failed_days": dg.MetadataValue.json(["2026-03-14"])})
    raise as_dagster_failure(ERRORS[kind])


@dg.job(partitions_def=DAYS)
def labels_job() -> None:
    qwen_labels()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookReceiver]:
    monkeypatch.setattr(sensors, "SETTLE_SECONDS", -60.0)
    monkeypatch.setattr(webhook, "RETRY_SECONDS", 0.3)
    with WebhookReceiver() as receiver:
        monkeypatch.setenv("LABELING_ALERT_WEBHOOK_URL", receiver.url)
        monkeypatch.setenv("LABELING_ALERT_FORMAT", "json")
        yield receiver


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Sensor:
    """A sensor with its cursor, as the daemon keeps it."""

    def __init__(self, definition: dg.SensorDefinition, instance: dg.DagsterInstance, url: str) -> None:
        self._definition, self._instance = definition, instance
        self._database = ProductDatabaseResource(url=url, source_table="a.b", timezone="Asia/Ho_Chi_Minh")
        self.cursor: str | None = None

    def tick(self) -> str:
        context = dg.build_sensor_context(
            self._instance, cursor=self.cursor, resources={"product_database": self._database}
        )
        result: Any = self._definition(context)
        assert not result.run_requests
        self.cursor = result.cursor
        return str(result.skip_reason.skip_message)


@pytest.fixture
def runs_sensor(instance: dg.DagsterInstance, engine: sa.Engine, postgres_url: str) -> Iterator[Sensor]:
    yield Sensor(run_failure_alerts_sensor, instance, postgres_url)
    close_services()


@pytest.fixture
def checks_sensor(instance: dg.DagsterInstance, engine: sa.Engine, postgres_url: str) -> Iterator[Sensor]:
    yield Sensor(failed_check_alerts_sensor, instance, postgres_url)
    close_services()


def failed_run(instance: dg.DagsterInstance, error: str = "outage", day: str = "2026-03-14") -> str:
    config = {
        "ops": {"qwen_labels": {"config": {"error": error}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    return labels_job.execute_in_process(config, instance, partition_key=day, raise_on_error=False).run_id


def lost_run(instance: dg.DagsterInstance, **tags: str) -> str:
    """A run that failed outside its steps."""
    config = {"ops": {"qwen_labels": {"config": {"error": "bug"}}}}
    run = instance.create_run_for_job(labels_job, run_config=config, tags=tags, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, "The process of this run is gone.")
    return run.run_id


def evaluate(instance: dg.DagsterInstance, name: str = "ids_are_unique", **values: Any) -> None:
    evaluation = dg.AssetCheckEvaluation(dg.AssetKey("qwen_labels"), name, **{"passed": False, **values})
    instance.report_runless_asset_event(evaluation)


def interval_is_over(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(table).values(sent_at=table.c.sent_at - dt.timedelta(hours=1)))


@pytest.mark.parametrize("definition", [run_failure_alerts_sensor, failed_check_alerts_sensor])
def test_the_sensors_run_by_default_and_every_half_minute(definition: dg.SensorDefinition) -> None:
    assert definition.default_status is dg.DefaultSensorStatus.RUNNING
    assert definition.minimum_interval_seconds == 30


def test_without_an_address_nothing_is_sent_then_or_later(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABELING_ALERT_WEBHOOK_URL")
    failed_run(instance)
    assert "LABELING_ALERT_WEBHOOK_URL is not set" in runs_sensor.tick()
    monkeypatch.setenv("LABELING_ALERT_WEBHOOK_URL", receiver.url)
    runs_sensor.tick()
    assert not receiver.messages


def test_the_first_tick_begins_at_the_present(
    instance: dg.DagsterInstance, runs_sensor: Sensor, checks_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    failed_run(instance)
    evaluate(instance)
    for sensor in (runs_sensor, checks_sensor):
        sensor.tick()
        sensor.tick()
    assert not receiver.messages


def test_a_failed_run_is_told_with_day_stage_cause_remedy_and_link(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    runs_sensor.tick()
    run_id = failed_run(instance)
    runs_sensor.tick()
    runs_sensor.tick()
    [message] = receiver.messages
    assert message == message | {
        "level": "error",
        "title": "labels_job failed in qwen_labels",
        "days": "2026-03-14",
        "stage": "qwen_labels",
        "error_class": "ServiceUnavailableError",
        "message": "Ollama does not answer.",
        "remedy": "Start Ollama.",
        "run_id": run_id,
        "url": f"http://127.0.0.1:3000/runs/{run_id}",
    }


def test_an_error_that_nobody_foresaw_is_told_without_its_secrets(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    runs_sensor.tick()
    failed_run(instance, "bug")
    runs_sensor.tick()
    [message] = receiver.messages
    assert message["error_class"] == "ZeroDivisionError"
    assert "division of" in message["message"]
    assert "log" in message["remedy"]
    assert "hunter22" not in str(message)


def test_a_run_that_failed_outside_its_steps_is_told(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    runs_sensor.tick()
    tags = {"dagster/asset_partition_range_start": "2026-03-01", "dagster/asset_partition_range_end": "2026-03-09"}
    lost_run(instance, **tags)
    runs_sensor.tick()
    [message] = receiver.messages
    assert "The process of this run is gone." in message["message"]
    assert message["days"] == "2026-03-01 to 2026-03-09"


def test_a_run_that_is_started_again_by_itself_is_a_warning(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    runs_sensor.tick()
    lost_run(instance, **{"dagster/will_retry": "true"})
    runs_sensor.tick()
    assert receiver.messages[0]["level"] == "warning"
    assert "starts the run again" in receiver.messages[0]["message"]


def test_the_failed_days_of_a_range_are_told_by_stage_and_cause(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver, engine: sa.Engine
) -> None:
    runs_sensor.tick()
    run_id = lost_run(instance)
    failures = DayFailures(engine)
    for day in range(1, 13):
        failures.report(dt.date(2026, 3, day), "qwen_labels", run_id, ERRORS["outage"])
    failures.report(dt.date(2026, 3, 20), "raw_products", run_id, InvalidRowError("Bad.", "Mend it."))
    failures.report(dt.date(2026, 3, 21), "raw_products", "another run", InvalidRowError("Bad.", "Mend it."))
    runs_sensor.tick()
    by_stage = {message["stage"]: message for message in receiver.messages}
    assert len(receiver.messages) == 2
    assert by_stage["qwen_labels"]["days"].endswith("2026-03-10 and 2 more")
    assert by_stage["qwen_labels"]["remedy"] == "Start Ollama."
    assert (by_stage["raw_products"]["days"], by_stage["raw_products"]["message"]) == ("2026-03-20", "Bad.")


def test_the_step_that_only_repeats_which_days_failed_is_not_told_beside_them(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver, engine: sa.Engine
) -> None:
    runs_sensor.tick()
    run_id = failed_run(instance, "days")
    DayFailures(engine).report(dt.date(2026, 3, 14), "raw_products", run_id, InvalidRowError("Bad.", "Mend it."))
    failed_run(instance, "days")  # its days have been mended since: then the step is all there is to tell
    runs_sensor.tick()
    assert [message["message"] for message in receiver.messages] == ["Bad.", "1 of 2 days failed."]


def test_fifty_failing_runs_make_few_messages_and_none_is_forgotten(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver, engine: sa.Engine
) -> None:
    runs_sensor.tick()
    for number in range(50):
        lost_run(instance, **{"dagster/partition": f"2026-03-{number % 28 + 1:02}"})
        if number % 10 == 9:
            runs_sensor.tick()
    interval_is_over(engine)
    assert "40 told" in runs_sensor.tick()
    assert len(receiver.messages) == 2
    assert receiver.messages[0]["count"] + receiver.messages[1]["count"] == 50


def test_five_hundred_failing_rows_on_sixty_days_make_few_messages(
    instance: dg.DagsterInstance, checks_sensor: Sensor, receiver: WebhookReceiver, engine: sa.Engine
) -> None:
    checks_sensor.tick()
    for number in range(60):
        ids = [f"product {row}" for row in range(500)]
        metadata = {"offending_rows": 500, "sample_ids": dg.MetadataValue.json(ids), "what_to_do": "Look."}
        day = str(dt.date(2026, 1, 1) + dt.timedelta(days=number))
        evaluate(instance, "most_images_are_usable", partition=day, metadata=metadata)
    for _ in range(3):
        checks_sensor.tick()
        interval_is_over(engine)
    [message] = receiver.messages
    assert message["count"] == 60
    assert message["days"].endswith("and 50 more")
    assert message["message"].startswith("500 rows, such as product 0, product 1")
    assert message["remedy"] == "Look."


def test_failed_checks_are_errors_or_warnings_and_passed_ones_are_silent(
    instance: dg.DagsterInstance, checks_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    checks_sensor.tick()
    evaluate(instance, "a", passed=True)
    evaluate(instance, "b", partition="2026-03-14", description="Twelve are missing.")
    evaluate(instance, "c", severity=dg.AssetCheckSeverity.WARN)
    checks_sensor.tick()
    told = {message["check"]: message for message in receiver.messages}
    assert {name: message["level"] for name, message in told.items()} == {"b": "error", "c": "warning"}
    assert (told["b"]["days"], told["b"]["message"]) == ("2026-03-14", "Twelve are missing.")
    assert told["b"]["url"] == "http://127.0.0.1:3000/assets/qwen_labels?view=checks"


def test_a_check_of_a_run_links_to_the_run(
    instance: dg.DagsterInstance, checks_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    @dg.asset(partitions_def=DAYS, check_specs=[dg.AssetCheckSpec("is_whole", asset="pictures")])
    def pictures(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        day = context.partition_key
        context.log_event(dg.AssetCheckEvaluation(dg.AssetKey("pictures"), "is_whole", passed=False, partition=day))
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="is_whole", passed=True)])

    checks_sensor.tick()
    run_id = dg.materialize([pictures], instance=instance, partition_key="2026-03-14").run_id
    checks_sensor.tick()
    assert [(message["days"], message["url"][-36:]) for message in receiver.messages] == [("2026-03-14", run_id)]


def test_an_alert_that_cannot_be_delivered_fails_the_tick_and_is_sent_later(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    runs_sensor.tick()
    run_id = failed_run(instance)
    before = runs_sensor.cursor
    receiver.answers.extend([(503, {})] * 20)
    with pytest.raises(ServiceUnavailableError, match="503"):
        runs_sensor.tick()
    assert runs_sensor.cursor == before
    receiver.answers.clear()
    runs_sensor.tick()
    assert [message["run_id"] for message in receiver.messages] == [run_id]


def test_what_was_delivered_before_an_outage_is_not_sent_again(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    runs_sensor.tick()
    failed_run(instance, "outage")
    failed_run(instance, "setting")
    receiver.refuses = lambda body: body["error_class"] == "ConfigurationError"
    assert "Tried again at the next tick" in runs_sensor.tick()
    with pytest.raises(ConfigurationError):
        runs_sensor.tick()
    receiver.refuses = lambda _: False
    runs_sensor.tick()
    classes = [message["error_class"] for message in receiver.messages]
    assert classes == ["ServiceUnavailableError", "ConfigurationError"]


def test_a_digest_that_cannot_be_delivered_does_not_repeat_what_was(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver, engine: sa.Engine
) -> None:
    runs_sensor.tick()
    failed_run(instance, "outage")
    runs_sensor.tick()
    failed_run(instance, "outage")
    runs_sensor.tick()
    interval_is_over(engine)
    failed_run(instance, "setting")
    receiver.refuses = lambda body: body["cause"] == "held back"
    runs_sensor.tick()
    receiver.refuses = lambda _: False
    runs_sensor.tick()
    assert [message["cause"].split(" / ")[-1] for message in receiver.messages] == [
        "ServiceUnavailableError",
        "ConfigurationError",
        "held back",
    ]


def test_events_that_may_have_an_older_one_behind_them_wait_for_the_next_tick(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_sensor.tick()
    failed_run(instance)
    monkeypatch.setattr(sensors, "SETTLE_SECONDS", 600.0)
    runs_sensor.tick()
    assert not receiver.messages
    monkeypatch.setattr(sensors, "SETTLE_SECONDS", -60.0)
    runs_sensor.tick()
    assert len(receiver.messages) == 1


def test_a_tick_reads_a_bounded_number_of_events_and_the_next_goes_on(
    instance: dg.DagsterInstance, checks_sensor: Sensor, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "CHECKS_PER_TICK", 2)
    checks_sensor.tick()
    for name in "abcde":
        evaluate(instance, name)
    told = []
    for _ in range(3):
        checks_sensor.tick()
        told.append(len(receiver.messages))
    assert told == [2, 4, 5]


def test_a_slow_webhook_leaves_the_rest_to_the_next_tick(
    instance: dg.DagsterInstance, checks_sensor: Sensor, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks_sensor.tick()
    for name in "abc":
        evaluate(instance, name)
    monkeypatch.setattr(sensors, "SENDING_SECONDS", -1.0)
    assert "slow" in checks_sensor.tick()
    assert not receiver.messages
    monkeypatch.setattr(sensors, "SENDING_SECONDS", 60.0)
    checks_sensor.tick()
    assert len(receiver.messages) == 3


def test_a_run_that_was_deleted_is_passed_over(
    instance: dg.DagsterInstance, runs_sensor: Sensor, receiver: WebhookReceiver
) -> None:
    runs_sensor.tick()
    run_id = failed_run(instance)
    instance.run_storage.delete_run(run_id)
    runs_sensor.tick()
    assert not receiver.messages
