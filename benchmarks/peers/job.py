"""The peer's end of `environments.run_peer`; runs in the peers' environments, so it needs the standard library only.

`read_job()` returns what is to be done; `answer()` writes a line. What libraries print goes to the log, so that the
answers stand alone on stdout.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_answers = -1


def read_job() -> dict[str, Any]:
    """The job of this process; from now on only answers reach stdout."""
    global _answers
    _answers = os.dup(1)
    os.dup2(2, 1)
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return job


def answer(**fields: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Write one answer."""
    with open(_answers, "w", closefd=False) as file:
        print(json.dumps(fields), file=file)
