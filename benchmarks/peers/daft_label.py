"""Daft: labels rows with `prompt`. Job: rows, url, model, prompt, schema, setting is_best.

Default is a Pydantic model as the return format. Best is the schema as the server's response format with the text left
to the user, since one reply that does not fit takes the whole batch with it otherwise, in batches of 16 rows, since
Daft asks about all rows of a batch at once. Both keep going after errors, which is not Daft's default.
"""
# mypy: disable-error-code="import-not-found"
# The library is in the environment of the peer only.

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, create_model

from benchmarks.peers.job import answer, read_job

BATCH_ROWS = 16


def label_model(schema: dict[str, Any]) -> type[BaseModel]:
    """The schema as a Pydantic model, without its lengths."""
    fields: dict[str, Any] = {}
    for name, part in schema["properties"].items():
        # Not as a Literal, of which Daft makes no column and then hangs.
        extra = {"enum": part["enum"]} if "enum" in part else None
        fields[name] = (list[str] if part["type"] == "array" else str, Field(json_schema_extra=extra))
    return create_model("Label", **fields)


def main() -> None:
    """Do the job."""
    job = read_job()
    import daft
    from daft.functions import prompt

    rows = job["rows"]
    table = {"row_id": [row["row_id"] for row in rows], "image": [Path(row["path"]).read_bytes() for row in rows]}
    server = {"provider": "openai", "model": job["model"], "base_url": f"{job['url']}/v1", "api_key": "none"}
    options: dict[str, Any] = {"use_chat_completions": True, "on_error": "ignore"}
    frame = daft.from_pydict(table)
    if job["settings"]["is_best"]:
        frame = frame.into_batches(BATCH_ROWS)
        wanted = {"type": "json_schema", "json_schema": {"name": "label", "schema": job["schema"]}}
        options["response_format"] = wanted
    else:
        options["return_format"] = label_model(job["schema"])
    started = time.perf_counter()
    label = prompt([daft.lit(job["prompt"]), daft.col("image")], **server, **options)
    found = frame.select("row_id", label.alias("label")).sort("row_id").to_pydict()["label"]
    answer(seconds=time.perf_counter() - started, labels=found)


if __name__ == "__main__":
    main()
