"""Runs within a budget, and stale labels made anew within one, through the whole pipeline."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from labeling_assets.cli import cli
from labeling_assets.products.cost import Prices
from labeling_assets.products.prompt import build_prompt
from labeling_assets.services.day_state import DayFailures
from labeling_assets.services.vision.budget import CALLS_PER_IMAGE, worst_call_cost
from labeling_assets_tests.integration.installation import COMMAND
from labeling_assets_tests.integration.world import World
from labeling_assets_tests.standins.model import CHARS_PER_TOKEN, TOKENS_PER_IMAGE
from labeling_assets_tests.standins.replies import Fault

RANGE = [dt.date(2026, 3, 10) + dt.timedelta(days=number) for number in range(3)]
MODEL = "qwen2.5vl:latest"
CALL = len(build_prompt()) // CHARS_PER_TOKEN + TOKENS_PER_IMAGE
"""What a label costs where a token read costs 1."""
IMAGE_WORST = CALLS_PER_IMAGE * worst_call_cost(Prices(prompt_tokens=1e6), 300)


def budget_for(images: int) -> float:
    """The smallest budget within which so many images are labeled."""
    return (images - 1) * CALL + IMAGE_WORST


def config(budget: float) -> dict[str, Any]:
    return {"ops": {"qwen_labels": {"config": {"budget": budget}}}}


@pytest.fixture
def priced(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three days of three products each; a token read costs 1."""
    monkeypatch.setenv("LABELING_PRICE_PROMPT_TOKENS", "1e6")
    for day in RANGE:
        for number in range(3):
            world.add(f"{day} {number}", day)
    return world


def on(*days: dt.date) -> dict[str, dt.date]:
    return {f"{day} {number}": day for day in days for number in range(3)}


def test_the_day_on_which_the_budget_is_spent_fails_and_later_ones_are_not_begun(priced: World) -> None:
    world = priced
    run = world.run(*RANGE, config=config(budget_for(5)))
    assert not run.is_success
    for text in ("2 of 3 days failed", f"{RANGE[1]} in qwen_labels: The budget", "1 images are left", "larger budget"):
        assert text in run.failure
    assert world.model_calls() == 5
    world.agrees(on(RANGE[0]))
    assert not any((world.storage / "qwen_labels" / f"{day}.parquet").exists() for day in RANGE[1:])
    failures = DayFailures(world.engine).find(run_id=run.run_id)
    assert [(each.day, each.error_class) for each in failures] == [(day, "BudgetSpentError") for day in RANGE[1:]]

    assert world.run(*RANGE, config=config(budget_for(4))).is_success
    assert world.model_calls() == 9, "what was labeled is not paid for again"
    world.agrees(on(*RANGE))
    assert not DayFailures(world.engine).find()


def test_nothing_partial_replaces_what_a_day_has(priced: World) -> None:
    world = priced
    assert world.run(RANGE[0]).is_success
    before = (world.storage / "qwen_labels" / f"{RANGE[0]}.parquet").read_bytes()
    for number in range(3):
        world.add(f"later {number}", RANGE[0])
    run = world.run(RANGE[0], config=config(budget_for(2)))
    assert not run.is_success
    assert "1 images are left" in run.failure
    assert (world.storage / "qwen_labels" / f"{RANGE[0]}.parquet").read_bytes() == before
    world.agrees(on(RANGE[0]))


def test_a_budget_without_prices_is_refused_in_the_run_config_too(world: World) -> None:
    world.add("P1", RANGE[0])
    run = world.run(RANGE[0], config=config(5.0))
    assert not run.is_success
    assert "LABELING_PRICE_PROMPT_TOKENS" in run.failure


def test_a_run_that_repeats_another_does_not_get_its_budget_again(priced: World) -> None:
    """What a run has spent is in the memory of its process; Dagster starts a run whose process died in another one."""
    world, repeated = priced, {"dagster/parent_run_id": "0123", "dagster/root_run_id": "0123"}
    run = world.run(RANGE[0], config=config(budget_for(3)), tags=repeated)
    assert not run.is_success
    assert "repeats run 0123" in run.failure
    assert "Launch the days anew" in run.failure
    assert world.model_calls() == 0
    assert world.run(RANGE[0], tags=repeated).is_success, "without a budget nothing is at stake"


@pytest.mark.parametrize("command", [["run"], ["backfill"], ["relabel", "--stale"]])
def test_a_budget_without_prices_is_refused_before_anything_is_started(home: Path, command: list[str]) -> None:
    options = [*command, "--start", str(RANGE[0]), "--end", str(RANGE[0]), "--budget", "5"]
    result = CliRunner().invoke(cli, options, env={"LABELING_HOME": str(home)})
    assert result.exit_code == 2
    assert list(home.iterdir()) == []


def labeling(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command on the services of the world, as a process."""
    environment = os.environ | {"LABELING_HOME": str(home)} | settings
    return subprocess.run(
        [COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=150, check=False
    )


def test_the_runs_of_a_command_share_its_budget(priced: World, home: Path) -> None:
    world = priced
    told = home / "statistics.json"
    arguments = ["--start", str(RANGE[0]), "--end", str(RANGE[-1]), "--budget", str(budget_for(5))]
    result = labeling(home, "run", *arguments, "--json", str(told))
    assert result.returncode == 1, result.stdout + result.stderr
    statistics = json.loads(told.read_text())
    assert (statistics["model_calls"], statistics["label_cost"]) == (5, 5 * CALL), "those of the failed day too"
    assert "1 images are left" in " ".join(result.stdout.split())
    assert "1 later days were not begun" in result.stdout
    assert world.model_calls() == 5
    world.agrees(on(RANGE[0]))


def test_what_a_day_paid_for_before_the_server_failed_is_in_the_statistics(
    priced: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, told = priced, home / "statistics.json"
    monkeypatch.setenv("LABELING_VISION_SLOTS", "1")
    assert world.run(RANGE[0]).is_success
    world.ollama.model.digests[MODEL] = "f" * 64
    world.ollama.model.faults = [Fault("missing", images=(list(world.ollama.model.stats.images)[-1],))]
    result = labeling(home, "run", "--start", str(RANGE[0]), "--end", str(RANGE[0]), "--json", str(told))
    assert result.returncode == 1, result.stdout + result.stderr
    statistics = json.loads(told.read_text())
    assert (statistics["model_calls"], statistics["label_cost"]) == (2, 2 * CALL)


def stale() -> Result:
    return CliRunner().invoke(cli, ["stale"])


def test_stale_labels_are_made_anew_most_viewed_first_and_whole_days_only(priced: World, home: Path) -> None:
    """The second day's products are viewed most; the budget ends within the first day's."""
    world = priced
    for rank, day in enumerate((RANGE[1], RANGE[0])):
        world.sql(
            "update ai_craw.product_marketing_summary set impression = :views where product_id like :day",
            views=1_000 // (rank + 1),
            day=f"{day}%",
        )
    assert world.run(*RANGE[:2]).is_success
    assert "0 of 6 labels are stale" in stale().output
    world.ollama.model.digests[MODEL] = "f" * 64
    listed = stale()
    assert listed.exit_code == 0
    assert "6 of 6 labels are stale, on 2 of 2 days" in listed.output

    dry = labeling(home, "relabel", "--stale", "--dry-run")
    assert "6 images have no label of the version in use yet" in dry.stdout, dry.stderr
    assert "About 6 calls" in dry.stdout
    assert world.model_calls() == 6

    result = labeling(home, "relabel", "--stale", "--budget", str(budget_for(4)), LABELING_VISION_SLOTS="1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 images are left" in result.stdout
    assert "1 days stay as they are" in result.stdout
    assert world.model_calls() == 10
    digests = {day: {row["label_digest"] for row in world.parquet("qwen_labels", day)} for day in RANGE[:2]}
    assert digests[RANGE[1]] == {"f" * 64}
    assert "f" * 64 not in digests[RANGE[0]]
    assert "3 of 6 labels are stale, on 1 of 2 days" in stale().output

    assert world.run(RANGE[0]).is_success
    assert world.model_calls() == 12, "what the budget paid for is kept"
    assert "0 of 6 labels are stale" in stale().output
    world.agrees(on(*RANGE[:2]))


def test_neither_an_older_day_nor_an_image_that_breaks_the_server_keeps_stale_days_from_being_replaced(
    priced: World, home: Path
) -> None:
    """The first day is before LABELING_FIRST_DAY; of the second the server breaks on an image, each time."""
    world = priced
    assert world.run(RANGE[0]).is_success
    of_first = set(world.ollama.model.stats.images)
    assert world.run(RANGE[1]).is_success
    world.ollama.model.digests[MODEL] = "f" * 64
    broken = min(set(world.ollama.model.stats.images) - of_first)
    world.ollama.model.faults = [Fault("broken", images=(broken,))]
    before = dict(world.ollama.model.stats.images)

    result = labeling(home, "relabel", "--stale", LABELING_FIRST_DAY=str(RANGE[1]))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 days are left out" in result.stdout
    assert {sha: world.ollama.model.stats.images[sha] for sha in of_first} == {sha: before[sha] for sha in of_first}
    assert [row["label_digest"] for row in world.parquet("qwen_labels", RANGE[1])] == ["f" * 64] * 2
    assert "f" * 64 not in {row["label_digest"] for row in world.parquet("qwen_labels", RANGE[0])}
    assert [row.error_class for row in world.quarantine().values()] == ["ModelRunnerError"]
    assert set(world.milvus()) == set(on(*RANGE[:2])), "what may be labeled later stays"


def test_a_range_tells_what_the_day_paid_for_on_which_its_budget_was_spent(priced: World, home: Path) -> None:
    arguments = ["--start", str(RANGE[0]), "--end", str(RANGE[-1]), "--budget", str(budget_for(5))]
    result = labeling(home, "backfill", *arguments)
    assert result.returncode == 1, result.stdout + result.stderr
    assert priced.model_calls() == 5
    numbers = dict(line.split() for line in result.stdout.splitlines() if line.strip().startswith(("model_", "label_")))
    assert (numbers["model_calls"], float(numbers["label_cost"])) == ("5", 5 * CALL)
