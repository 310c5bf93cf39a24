"""Pixeltable: labels rows with a computed column. Job: rows, url, model, prompt, schema, settings is_best and home.

Default is the function for Ollama that Pixeltable has, which asks for JSON without a schema. Best is an asynchronous
function of the user with the schema, and another try of the rows with an error, as its documentation shows. The table
stays in PIXELTABLE_HOME, so a second run inserts into it.
"""
# mypy: disable-error-code="import-not-found"
# The library is in the environment of the peer only.

from __future__ import annotations

import base64
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.job import answer, read_job

TABLE = "labels"


def main() -> None:
    """Do the job."""
    job = read_job()
    Path(os.environ["PIXELTABLE_HOME"]).mkdir(exist_ok=True)
    try:
        label(job)
    finally:
        stop_postgres()


def label(job: dict[str, Any]) -> None:
    """Label the rows and answer."""
    import pixeltable as pxt

    if TABLE in pxt.list_tables():
        table = pxt.get_table(TABLE)
    else:
        schema = {"run": pxt.Int, "row_id": pxt.Int, "image": pxt.String}
        table = pxt.create_table(TABLE, schema)
        table.add_computed_column(label=expression(job, table), on_error="ignore")
    run = table.count() // len(job["rows"])
    started = time.perf_counter()
    rows = [
        {"run": run, "row_id": row["row_id"], "image": base64.b64encode(Path(row["path"]).read_bytes()).decode()}
        for row in job["rows"]
    ]
    table.insert(rows, on_error="ignore")
    if job["settings"]["is_best"]:
        table.recompute_columns("label", errors_only=True)
    seconds = time.perf_counter() - started
    found = table.where(table.run == run).order_by(table.row_id).select(table.label).collect()
    answer(seconds=seconds, labels=[row["label"] for row in found])


def expression(job: dict[str, Any], table: Any) -> Any:  # noqa: ANN401 - types of Pixeltable
    """The computed column: what the model wrote."""
    url, model, prompt = job["url"], job["model"], job["prompt"]
    if job["settings"]["is_best"]:
        from benchmarks.peers.pixeltable_functions import ask

        return ask(table.image, prompt=prompt, url=url, model=model, schema=job["schema"])
    from pixeltable.functions import ollama

    messages = [{"role": "user", "content": prompt, "images": [table.image]}]
    return ollama.chat(messages, model=model, format="json")["message"]["content"]


def stop_postgres() -> None:
    """Stop the server that Pixeltable started and would leave running."""
    pid_file = Path(os.environ["PIXELTABLE_HOME"]) / "pgdata" / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text().split()[0])
    os.kill(pid, signal.SIGINT)  # PostgreSQL's fast shutdown
    with contextlib.suppress(ProcessLookupError):
        while pid_file.exists():
            os.kill(pid, 0)
            time.sleep(0.05)


if __name__ == "__main__":
    main()
