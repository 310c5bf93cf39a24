"""DataChain: labels rows with `map` and saves the dataset. Job: rows, url, model, prompt, schema, settings.

Settings: home, where DataChain keeps its data; parallel (processes) and batch_size (rows stored at once), both those of
`DataChain.settings`; attempts, how often the user's function asks a busy server. DataChain resumes the map where the
same script is run again. What goes wrong with a row is kept as its label, since an exception would end the run.
"""
# mypy: disable-error-code="import-not-found"
# The library is in the environment of the peer only. It reads annotations at run time, so they are not put off.

import os
import time
from pathlib import Path

from benchmarks.peers.job import answer, read_job

SOURCE = "images"
LABELED = "labels"
PAUSE_SECONDS = 0.5


def main() -> None:
    """Do the job."""
    job = read_job()
    settings = job["settings"]
    os.environ |= {"DATACHAIN_ROOT_DIR": settings["home"], "DATACHAIN_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
    import datachain as dc

    url, model, prompt, schema = job["url"], job["model"], job["prompt"], job["schema"]

    attempts = settings.get("attempts", 1)

    def ask(path: str) -> str:
        import ollama

        message = {"role": "user", "content": prompt, "images": [Path(path).read_bytes()]}
        error = ""
        for attempt in range(attempts):
            time.sleep(attempt * PAUSE_SECONDS)
            try:
                return ollama.Client(url).chat(model, [message], format=schema).message.content or ""
            except (ollama.ResponseError, ConnectionError) as failure:
                error = f"error: {failure}"
        return error

    if SOURCE not in dc.datasets().to_values("name"):
        rows = job["rows"]
        values = {"row_id": [row["row_id"] for row in rows], "path": [row["path"] for row in rows]}
        dc.read_values(**values).save(SOURCE)
    started = time.perf_counter()
    chain = dc.read_dataset(SOURCE)
    chosen = {name: settings[name] for name in ("parallel", "batch_size") if name in settings}
    if chosen:
        chain = chain.settings(**chosen)
    labeled = chain.map(label=ask, output=str).save(LABELED)
    seconds = time.perf_counter() - started
    labels = dict(labeled.to_list("row_id", "label"))
    answer(seconds=seconds, labels=[labels[row["row_id"]] for row in job["rows"]])


if __name__ == "__main__":
    main()
