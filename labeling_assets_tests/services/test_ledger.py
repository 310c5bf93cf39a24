"""The label ledger and the claims on images, on a real PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from tenacity import wait_none

from labeling_assets.errors import ConfigurationError, InvalidReplyError, LabelError, ServiceUnavailableError
from labeling_assets.products.labels import ProductLabels
from labeling_assets.products.records import LABEL_LISTS
from labeling_assets.services import claims
from labeling_assets.services.claims import Claims
from labeling_assets.services.ledger import BATCH_SIZE, LabelKey, LabelLedger, LedgerEntry
from labeling_assets.services.postgres import create_engine

KEY = LabelKey("digest", "1", "1")
LABELS = ProductLabels.model_validate(
    {
        **{field: ["Mom", 'quote " \\ and ông'] for field in LABEL_LISTS},
        "trademark_level": "No TM",
        "main_subject": "cat",
        "text": "a",
    }
)
LABELED = LedgerEntry("qwen", LABELS, None, None, "direct", 1, 1500, 200, 2.5)
REFUSED = LedgerEntry("qwen", None, "InvalidReplyError", "text: Field required", None, 2, 3000, 400, 5.0)


def sha(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def ledger(engine: sa.Engine) -> LabelLedger:
    return LabelLedger(engine)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in (LabelLedger._get_batch, LabelLedger.put, LabelLedger._forget_batch, Claims.take):
        monkeypatch.setattr(method.retry, "wait", wait_none())


def end_connections_of(engine: sa.Engine) -> None:
    """Break every connection of the engine's user, as a restart of PostgreSQL does."""
    ended = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and usename = user"
    other = create_engine(engine.url.render_as_string(hide_password=False))
    with other.connect() as connection:
        connection.execute(sa.text(ended))
    other.dispose()


@pytest.mark.parametrize("entry", [LABELED, REFUSED])
def test_what_is_put_is_found_again_unchanged(ledger, entry):
    assert ledger.put(sha(1), KEY, entry) == entry
    assert ledger.get_many([sha(1), sha(2)], KEY) == {sha(1): entry}


@pytest.mark.parametrize("changed", ["model_digest", "prompt_version", "schema_version"])
def test_another_key_finds_nothing(ledger, changed):
    ledger.put(sha(1), KEY, LABELED)
    assert ledger.get_many([sha(1)], dataclasses.replace(KEY, **{changed: "other"})) == {}


def test_the_first_entry_wins_and_is_returned(ledger):
    ledger.put(sha(1), KEY, LABELED)
    assert ledger.put(sha(1), KEY, REFUSED) == LABELED
    assert ledger.get_many([sha(1)], KEY) == {sha(1): LABELED}


def test_many_processes_that_put_at_once_all_get_the_same_entry(ledger):
    entries = [dataclasses.replace(LABELED, prompt_tokens=number) for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        standing = list(threads.map(lambda entry: ledger.put(sha(1), KEY, entry), entries))
    assert len(set(map(repr, standing))) == 1
    assert ledger.get_many([sha(1)], KEY) == {sha(1): standing[0]}


def test_more_images_than_a_batch_are_found_and_repeated_ones_do_no_harm(ledger):
    numbers = [0, 1, BATCH_SIZE, BATCH_SIZE + 1]
    for number in numbers:
        ledger.put(sha(number), KEY, LABELED)
    asked = [sha(number) for number in range(BATCH_SIZE + 2)]
    assert set(ledger.get_many([*asked, *asked], KEY)) == {sha(number) for number in numbers}


def test_no_images_need_no_database():
    ledger = LabelLedger(create_engine("postgresql://nobody@127.0.0.1:1/none"))
    assert ledger.get_many([], KEY) == {}
    assert ledger.forget([]) == 0


def test_only_failures_are_forgotten(ledger):
    ledger.put(sha(1), KEY, LABELED)
    ledger.put(sha(2), KEY, REFUSED)
    assert ledger.forget([sha(1), sha(2), sha(3)]) == 1
    assert set(ledger.get_many([sha(1), sha(2)], KEY)) == {sha(1)}


def test_failures_under_another_key_may_be_left_alone(ledger):
    other = dataclasses.replace(KEY, prompt_version="2")
    ledger.put(sha(1), KEY, REFUSED)
    ledger.put(sha(1), other, REFUSED)
    assert ledger.forget([sha(1)], KEY) == 1
    assert ledger.get_many([sha(1)], other) == {sha(1): REFUSED}


def test_labels_are_forgotten_under_the_key_given_and_no_other(ledger):
    other = dataclasses.replace(KEY, model_digest="other model")
    for key in (KEY, other):
        ledger.put(sha(1), key, LABELED)
    ledger.put(sha(2), KEY, REFUSED)
    ledger.put(sha(3), KEY, LABELED)
    assert ledger.forget_labels([sha(1), sha(2), sha(4)], KEY) == 2
    assert ledger.get_many([sha(1), sha(2), sha(3)], KEY) == {sha(3): LABELED}
    assert ledger.get_many([sha(1)], other) == {sha(1): LABELED}


def test_labels_of_more_images_than_a_batch_are_forgotten(ledger):
    numbers = [0, BATCH_SIZE, BATCH_SIZE + 1]
    for number in numbers:
        ledger.put(sha(number), KEY, LABELED)
    assert ledger.forget_labels([sha(number) for number in range(BATCH_SIZE + 2)], KEY) == len(numbers)
    assert ledger.forget_labels([], KEY) == 0


@pytest.mark.parametrize(
    ("error_class", "expected"),
    [("InvalidReplyError", InvalidReplyError), ("ErrorOfTomorrow", LabelError), ("LabelingError", LabelError)],
)
def test_a_refusal_comes_back_as_its_error(error_class, expected):
    error = dataclasses.replace(REFUSED, error_class=error_class).error()
    assert type(error) is expected
    assert error.message == "text: Field required"
    assert "quarantine retry" in error.remedy


@pytest.mark.parametrize(
    "work",
    [
        lambda ledger: ledger.get_many([sha(1)], KEY),
        lambda ledger: ledger.forget([sha(1)]),
        lambda ledger: ledger.forget_labels([sha(3)], KEY),
    ],
)
def test_a_connection_that_breaks_in_the_middle_is_made_anew(ledger, engine, no_waiting, work):
    ledger.put(sha(1), KEY, LABELED)
    times = iter(range(3))

    def break_twice(*_: object) -> None:
        if next(times, 2) < 2:
            end_connections_of(engine)

    sa.event.listen(engine, "before_cursor_execute", break_twice)
    work(ledger)
    assert ledger.put(sha(2), KEY, LABELED) == LABELED
    assert set(ledger.get_many([sha(1), sha(2)], KEY)) == {sha(1), sha(2)}
    assert next(times, None) is None


def test_a_put_whose_answer_is_lost_is_done_again(ledger, engine, no_waiting):
    times = iter(range(2))

    def break_after_commit(_: object) -> None:
        if next(times, 2) < 1:
            end_connections_of(engine)

    sa.event.listen(engine, "commit", break_after_commit)
    assert ledger.put(sha(1), KEY, LABELED) == LABELED
    assert ledger.get_many([sha(1)], KEY) == {sha(1): LABELED}


def test_a_server_that_stays_away_stops_the_step_and_may_be_tried_again(no_waiting):
    ledger = LabelLedger(create_engine("postgresql://nobody:secret@127.0.0.1:1/none"))
    with pytest.raises(ServiceUnavailableError) as raised:
        ledger.put(sha(1), KEY, LABELED)
    assert raised.value.can_retry
    assert "secret" not in str(raised.value)


def test_a_missing_table_is_a_matter_of_set_up(engine):
    with engine.begin() as connection:
        connection.execute(sa.text("alter table labeling.label_ledger rename to hidden"))
    try:
        with pytest.raises(ConfigurationError):
            LabelLedger(engine).get_many([sha(1)], KEY)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("alter table labeling.hidden rename to label_ledger"))


@pytest.fixture
def two_processes(engine: sa.Engine) -> Iterator[tuple[Claims, Claims]]:
    """Claims of two labelers; each has a connection of its own, as two processes have."""
    first, second = Claims(engine, "label"), Claims(engine, "label")
    yield first, second
    first.close()
    second.close()


def test_a_name_is_claimed_by_one_process_until_it_is_given_up(two_processes):
    first, second = two_processes
    assert first.take("image")
    assert not second.take("image")
    assert second.take("another image")
    first.give_up("image")
    assert second.take("image")


def test_claims_in_another_namespace_are_others(two_processes, engine):
    first, _ = two_processes
    other = Claims(engine, "another")
    assert first.take("image")
    assert other.take("image")
    other.close()


def test_a_claim_goes_with_the_connection_of_its_process(two_processes, engine, no_waiting):
    first, second = two_processes
    assert first.take("image")
    end_connections_of(engine)
    assert second.take("image")
    first.give_up("image")
    assert not first.take("image")


def test_a_claim_of_a_dead_host_is_not_waited_for_for_ever(two_processes, monkeypatch):
    first, second = two_processes
    assert first.take("image")
    assert not second.take("image")
    monkeypatch.setattr(claims, "MAX_WAIT_SECONDS", -1)
    assert second.take("image")


def test_closed_claims_are_given_up(two_processes):
    first, second = two_processes
    assert first.take("image")
    first.close()
    assert second.take("image")


def test_closed_claims_leave_no_lock_in_the_pool(engine):
    closed = Claims(engine, "label")
    assert closed.take("image")
    closed.close()
    with engine.connect() as connection:
        locks = connection.execute(sa.text("select count(*) from pg_locks where locktype = 'advisory'")).scalar_one()
    assert locks == 0
