"""Alerts: what they say, that they hold no secret, and that few are sent and none is lost. The receiver is real."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from dagster._utils.error import serializable_error_info_from_exc_info
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.errors import ConfigurationError, LabelingError, ServiceUnavailableError
from labeling_assets.services import webhook
from labeling_assets.services.alert_messages import Alert, HeldBack, digest, json_body, slack_body
from labeling_assets.services.alerts import Alerts
from labeling_assets.services.redaction import Redactor
from labeling_assets.services.tables import alerts as table
from labeling_assets.services.webhook import Webhook
from labeling_assets.settings import Settings
from labeling_assets_tests.standins.webhook import SECRET_PATH, WebhookReceiver

ZONE = Settings().zone
ALERT = Alert(
    cause="run products_job / qwen_labels / ServiceUnavailableError",
    level="error",
    title="products_job failed in qwen_labels",
    message="Ollama at http://10.0.0.1:11434 does not answer.",
    remedy="Start it.",
    url="http://127.0.0.1:3000/runs/abc",
    stage="qwen_labels",
    error_class="ServiceUnavailableError",
    days=("2026-03-14",),
    run_id="abc",
)
HELD_BACK = HeldBack(ALERT.cause, 49, dt.datetime(2026, 3, 14, 19, 10, tzinfo=dt.UTC))


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "RETRY_SECONDS", 1.0)


def alerts_to(url: str, engine: sa.Engine, form: str = "json") -> Alerts:
    return Alerts(engine, Settings.model_validate({"alert_webhook_url": url, "alert_format": form}))


def interval_is_over(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(table).values(sent_at=table.c.sent_at - dt.timedelta(hours=1)))


def all_texts(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False)


# What a message says


def test_the_json_body_is_flat_and_tells_everything() -> None:
    assert json_body(ALERT, HELD_BACK, Redactor(), ZONE) == {
        "level": "error",
        "title": "products_job failed in qwen_labels",
        "message": "Ollama at http://10.0.0.1:11434 does not answer.",
        "remedy": "Start it.",
        "url": "http://127.0.0.1:3000/runs/abc",
        "stage": "qwen_labels",
        "check": "",
        "error_class": "ServiceUnavailableError",
        "days": "2026-03-14",
        "run_id": "abc",
        "cause": ALERT.cause,
        "count": 1,
        "held_back": 49,
        "held_back_since": "2026-03-15T02:10:00+07:00",
    }


def test_the_slack_body_tells_everything() -> None:
    body = slack_body(ALERT, HELD_BACK, Redactor(), ZONE)
    texts = all_texts(body)
    for part in ("2026-03-14", "qwen_labels", ALERT.error_class, ALERT.message, ALERT.remedy, ALERT.url):
        assert part in texts
    assert "and 49 more since 2026-03-15 02:10" in texts
    assert "products_job failed in qwen_labels" in str(body["text"])


def test_slack_markup_in_an_error_is_escaped() -> None:
    hostile = dataclasses.replace(ALERT, message="<!channel> & <http://evil|click>", url="http://x/runs/a|b>c")
    texts = all_texts(slack_body(hostile, None, Redactor(), ZONE))
    assert "&lt;!channel&gt; &amp; &lt;http://evil|click&gt;" in texts
    assert "<http://x/runs/a%7Cb%3Ec|Open the run>" in texts


def test_a_long_list_of_days_is_cut_and_counted() -> None:
    days = tuple(f"2026-03-{day:02}" for day in range(1, 32))
    text = str(json_body(dataclasses.replace(ALERT, days=days), None, Redactor(), ZONE)["days"])
    assert text.startswith("2026-03-01, 2026-03-02")
    assert text.endswith("2026-03-10 and 21 more")


texts_of_all_kinds = st.one_of(
    st.text(max_size=50),
    st.tuples(st.text("&<>|*`é\n ", min_size=1, max_size=9), st.integers(200, 800)).map(lambda part: part[0] * part[1]),
    st.tuples(st.text(min_size=1, max_size=9), st.integers(200, 800)).map(lambda part: part[0] * part[1]),
)


@given(texts_of_all_kinds, texts_of_all_kinds, texts_of_all_kinds, st.integers(0, 60))
def test_slack_limits_hold_whatever_the_texts_are(title: str, message: str, cause: str, days: int) -> None:
    alert = dataclasses.replace(
        ALERT, title=title, message=message, remedy=message, stage=title, check=title, cause=cause, days=("day",) * days
    )
    told = digest([HeldBack(cause, 7, HELD_BACK.since)] * 60, "http://ui", ZONE)
    for each in (alert, told):
        body: Any = json.loads(json.dumps(slack_body(each, HELD_BACK, Redactor(), ZONE)).encode())
        assert len(body["text"]) <= 4_000
        assert len(body["blocks"]) <= 50
        for block in body["blocks"]:
            for element in block.get("elements", [block.get("text")]):
                assert 0 < len(element["text"]) <= (150 if block["type"] == "header" else 3_000)
                assert not re.search(r"&(?!amp;|lt;|gt;)", element["text"])
        json_text = json.dumps(json_body(each, HELD_BACK, Redactor(), ZONE))
        assert len(json_text) < 100_000


# What a message must not say


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql+psycopg2://labeling:hunter22@10.0.0.1/db refused", "hunter22"),
        ("postgresql://labeling:p@ss/w0rd@10.0.0.1/db refused", "w0rd"),
        ("https://ghp_abcdef@github.com/x", "ghp_abcdef"),
        ("password=hunter22 host=db", "hunter22"),
        ('{"api_key": "sk-123456789"}', "sk-123456789"),
        ("Authorization: Bearer eyJhbGciOi.abc.def", "eyJhbGciOi"),
        ("header was Bearer eyJhbGciOi.abc.def", "eyJhbGciOi"),
        ("https://bucket/x.jpg?X-Amz-Signature=0123456789abcdef", "0123456789abcdef"),
        ("https://host/x?access_token=abcdefgh&y=1", "abcdefgh"),
        ("a data:image/jpeg;base64,/9j/4AAQSkZJRg== b", "/9j/4AAQ"),
        ("a data:image/svg+xml,%3Csvg%20b", "%3Csvg"),
        (base64.b64encode(bytes(range(256))).decode(), "AAECAwQF"),
        (base64.encodebytes(bytes(range(256))).decode(), "AAECAwQF"),
        (repr(bytes(range(128, 256))), "\\x80\\x81"),
        ("known secret tr0ub4dor in the middle", "tr0ub4dor"),
    ],
)
@pytest.mark.parametrize("body", [slack_body, json_body])
def test_no_secret_and_no_image_is_in_a_message(body: Any, text: str, secret: str) -> None:
    redact = Redactor(["tr0ub4dor"])
    alert = dataclasses.replace(ALERT, message=text, remedy=text, title=text, cause=text, stage=text)
    texts = all_texts(body(alert, None, redact, ZONE))
    assert secret not in texts
    assert secret not in all_texts(body(digest([HeldBack(text, 1, HELD_BACK.since)], "", ZONE), None, redact, ZONE))


@pytest.mark.parametrize(
    "text",
    [
        "Ollama at http://10.0.0.1:11434 does not answer. Start it.",
        "https://cdn.example.com/images/shirt@2x.jpg is gone",
        "2026-03-14: 512 prompt_tokens, 20 output tokens; sha256 " + "0123456789abcdef" * 4,
        "Tiếng Việt: áo thun “màu xanh”",
        "invalid token in JSON at line 3",
    ],
)
def test_an_ordinary_message_is_left_as_it_is(text: str) -> None:
    assert Redactor(["tr0ub4dor"])(text) == text


@given(st.binary(min_size=300, max_size=2_000), st.text(max_size=50))
def test_image_bytes_are_removed_in_every_notation(image: bytes, around: str) -> None:
    encoded = base64.b64encode(image).decode()
    for notation in (encoded, f"data:image/png;base64,{encoded}", base64.encodebytes(image).decode(), image.hex()):
        cleaned = Redactor()(f"{around} {notation} {around}")
        assert encoded[40:140] not in cleaned.replace("\n", "")
        assert image.hex()[:100] not in cleaned


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=4, max_size=30), st.text(max_size=50))
def test_a_secret_of_the_settings_is_hidden_wherever_it_stands(secret: str, around: str) -> None:
    redact = Redactor.of(Settings.model_validate({"openai_api_key": f"§{secret}"}))
    assert f"§{secret}" not in redact(f"{around}§{secret}{around}")


def test_the_parts_of_secret_addresses_are_secrets_too() -> None:
    redact = Redactor.of(
        Settings.model_validate(
            {
                "postgres_url": "postgresql://user:tr0ub%40dor@host/labeling",
                "alert_webhook_url": f"https://hooks.example.com{SECRET_PATH}",
                "milvus_token": "root:Milvus1",
            }
        )
    )
    text = redact(f"tr0ub%40dor and tr0ub@dor and {SECRET_PATH} and Milvus1 of /labeling at host")
    assert text == "*** and *** and *** and *** of /labeling at host"


def test_redaction_takes_time_in_proportion_to_the_text() -> None:
    for unit in ("://", "a:", "a@", "data:a/b;", "token=", "\\x00", "A" * 59 + "\n", "password password"):
        Redactor(["tr0ub4dor"])(unit * (200_000 // len(unit)))  # minutes, were it quadratic


# Delivery


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_message_that_is_not_taken_is_delivered_again(receiver: WebhookReceiver, status: int) -> None:
    receiver.answers.append((status, {}))
    Webhook(receiver.url).post({"text": "x"})
    assert (receiver.requests, receiver.messages) == (2, [{"text": "x"}])


def test_the_pause_that_the_receiver_asks_for_is_made(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(webhook, "RETRY_SECONDS", 10.0)
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    receiver.answers.extend([(429, {"Retry-After": "7"}), (429, {"Retry-After": "Sat, 14 Mar 2026 00:00:00 GMT"})])
    Webhook(receiver.url).post({"text": "x"})
    assert pauses[0] == 7.0
    assert receiver.messages


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "error_class"),
    [
        ((400, {}), ConfigurationError),
        ((403, {}), ConfigurationError),
        ((404, {}), ConfigurationError),
        ((410, {}), ConfigurationError),
        ((302, {"Location": "http://127.0.0.1:1/elsewhere"}), ConfigurationError),
        ((500, {}), ServiceUnavailableError),
        ((429, {"Retry-After": "3600"}), ServiceUnavailableError),
        (None, ServiceUnavailableError),
    ],
)
def test_an_address_that_does_not_work_is_named_and_never_shown(
    receiver: WebhookReceiver,
    caplog: pytest.LogCaptureFixture,
    answer: tuple[int, dict[str, str]] | None,
    error_class: type[LabelingError],
) -> None:
    caplog.set_level(logging.DEBUG)
    url = receiver.url if answer else f"http://127.0.0.1:{unused_port()}{SECRET_PATH}"
    receiver.answers.extend([answer] * 100 if answer else [])
    with pytest.raises(error_class, match="LABELING_ALERT_WEBHOOK_URL") as caught:
        Webhook(url).post({"text": "x"})
    told = serializable_error_info_from_exc_info((caught.type, caught.value, caught.tb)).to_string()
    assert SECRET_PATH not in told + caplog.text
    assert not receiver.messages


@pytest.mark.parametrize(
    "url", ["", "not a url", "ftp://host/secret", "http://", "http://[::1/secret", "http:///secret"]
)
def test_a_garbled_address_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigurationError, match="LABELING_ALERT_WEBHOOK_URL") as caught:
        Webhook(url).post({})
    assert "secret" not in str(caught.value)


def test_debug_logs_of_a_delivery_do_not_show_the_address(
    receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    Webhook(receiver.url).post({})
    assert SECRET_PATH not in caplog.text


# How often


def test_of_fifty_alerts_of_a_cause_one_is_sent_and_the_next_tells_of_the_others(
    engine: sa.Engine, receiver: WebhookReceiver
) -> None:
    alerts = alerts_to(receiver.url, engine)
    assert [alerts.report(ALERT) for _ in range(50)] == [True] + [False] * 49
    assert len(receiver.messages) == 1
    interval_is_over(engine)
    assert alerts.report(ALERT)
    assert receiver.messages[-1]["held_back"] == 49
    interval_is_over(engine)
    assert alerts.report(ALERT)
    assert receiver.messages[-1]["held_back"] == 0


def test_what_was_held_back_at_the_end_of_a_storm_is_told_by_one_digest(
    engine: sa.Engine, receiver: WebhookReceiver
) -> None:
    alerts = alerts_to(receiver.url, engine)
    for cause in ("a", "b"):
        for _ in range(5):
            alerts.report(dataclasses.replace(ALERT, cause=cause))
    assert alerts.send_held_back() == 0  # the interval is not over
    interval_is_over(engine)
    assert alerts.send_held_back() == 8
    assert len(receiver.messages) == 3
    assert "4 more of: a" in receiver.messages[-1]["message"]
    assert alerts.send_held_back() == 0
    assert not alerts.report(dataclasses.replace(ALERT, cause="a"))  # the digest began a new interval


def test_the_interval_is_kept_over_restarts(engine: sa.Engine, receiver: WebhookReceiver) -> None:
    assert alerts_to(receiver.url, engine).report(ALERT)
    assert not alerts_to(receiver.url, engine).report(ALERT)


def test_alerts_of_several_processes_at_once_are_sent_once(engine: sa.Engine, receiver: WebhookReceiver) -> None:
    together = threading.Barrier(8)

    def report() -> None:
        together.wait()
        alerts_to(receiver.url, engine).report(ALERT)

    threads = [threading.Thread(target=report) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.messages) == 1
    interval_is_over(engine)
    assert alerts_to(receiver.url, engine).send_held_back() == 7


def test_an_alert_that_was_not_delivered_is_not_counted_as_sent(engine: sa.Engine, receiver: WebhookReceiver) -> None:
    alerts = alerts_to(receiver.url, engine)
    receiver.refuses = lambda _: True
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            alerts.report(ALERT)
    receiver.refuses = lambda _: False
    assert alerts.report(ALERT)


def test_a_crash_between_sending_and_recording_sends_twice_and_not_never(
    engine: sa.Engine, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Alerts, "_record_sent", crash)
        with pytest.raises(SystemExit):
            alerts_to(receiver.url, engine).report(ALERT)
    assert alerts_to(receiver.url, engine).report(ALERT)
    assert len(receiver.messages) == 2


def test_a_digest_that_was_not_delivered_is_sent_again(engine: sa.Engine, receiver: WebhookReceiver) -> None:
    alerts = alerts_to(receiver.url, engine)
    alerts.report(ALERT)
    alerts.report(dataclasses.replace(ALERT, count=3))
    interval_is_over(engine)
    receiver.refuses = lambda _: True
    with pytest.raises(ConfigurationError):
        alerts.send_held_back()
    receiver.refuses = lambda _: False
    assert alerts.send_held_back() == 3


def test_a_cause_of_garbage_is_kept(engine: sa.Engine, receiver: WebhookReceiver) -> None:
    garbage = dataclasses.replace(ALERT, cause="\x00\ud800" + "x " * 10_000)
    alerts = alerts_to(receiver.url, engine, "slack")
    assert alerts.report(garbage)
    assert not alerts.report(garbage)


def test_without_an_address_there_are_no_alerts(engine: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="LABELING_ALERT_WEBHOOK_URL"):
        Alerts(engine, Settings())


def test_a_database_that_is_down_is_told_as_such(receiver: WebhookReceiver) -> None:
    engine = sa.create_engine(f"postgresql+psycopg2://user:pw@127.0.0.1:{unused_port()}/x")
    with pytest.raises(ServiceUnavailableError):
        alerts_to(receiver.url, engine).report(ALERT)
    assert receiver.requests == 0
    assert sys.exc_info() == (None, None, None)
