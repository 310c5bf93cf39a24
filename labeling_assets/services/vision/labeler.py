"""Labels many images with one model: each distinct image once, every slot of the server busy, nothing paid for twice.

Here is what lies between a list of images and the ledger: which images are asked about, how often a bad reply is asked
for again, and what a failure stops. How one request is made is the backend's business, how a reply is read that of
`products/labels.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from labeling_assets.errors import (
    BudgetSpentError,
    InvalidReplyError,
    LabelError,
    RepetitiveReplyError,
    RowError,
    TruncatedReplyError,
)
from labeling_assets.products.labels import LABEL_SCHEMA, SCHEMA_VERSION, Label, ParsedReply, parse_reply
from labeling_assets.products.prompt import Prompt, packaged_prompt
from labeling_assets.services.claims import Claims
from labeling_assets.services.ledger import LabelKey, LabelLedger, LedgerEntry
from labeling_assets.services.ledger_use import LedgerUse
from labeling_assets.services.pipeline import Later, Pipeline, Ready
from labeling_assets.services.vision import VisionModel
from labeling_assets.services.vision.budget import Budget
from labeling_assets.services.vision.server_watch import ServerWatch

LOOKUP_BATCH = 500
"""Images that are looked up in the ledger at once; at most two batches are under way."""

MIN_READERS = 2
SLOTS_PER_READER = 4
"""A model takes a second for an image and more, its JPEG from an object store a twentieth."""


@dataclass
class LabelCounts:
    """What a labeler has done so far. Calls, tokens and seconds are those of this labeler, not of what the ledger held.

    Attributes:
        rows: Images asked for, repeated ones included.
        distinct: Distinct images among them.
        ledger_hits: Distinct images that the ledger knew, labeled or refused.
        model_calls: Requests to the model, re-asks included.
        prompt_tokens: Tokens read.
        output_tokens: Tokens written.
        model_seconds: Time of all requests, added up.
        refused: Distinct images without a label.
        reasked: Distinct images whose first reply could not be used.
        shared: Distinct images that took the label of a near duplicate, see `label_sharing.py`.
    """

    rows: int = 0
    distinct: int = 0
    ledger_hits: int = 0
    model_calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    model_seconds: float = 0.0
    refused: int = 0
    reasked: int = 0
    shared: int = 0


@dataclass
class _Cost:
    """What one image has cost; a `Use` of the budget."""

    model_calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    failed_attempts: int = 0
    untold_calls: int = 0


@dataclass(frozen=True)
class _Outcome:
    sha: str
    result: Label | RowError
    cost: _Cost = field(default_factory=_Cost)
    is_from_ledger: bool = False


class Labeler:
    """Labels images with one model and keeps every reply in the ledger.

    Attributes:
        counts: What has been done, also while it goes on.

    Args:
        model: Asked in as many threads as it has slots. `check` it before.
        ledger: Looked up before the model is asked.
        prompt: What is asked; by default the packaged prompt in use.
        budget: What the calls may cost, together with those of others that share it; None: anything.
    """

    def __init__(
        self, model: VisionModel, ledger: LabelLedger, prompt: Prompt | None = None, *, budget: Budget | None = None
    ) -> None:
        self.counts = LabelCounts()
        self._model = model
        self._ledger = ledger
        self._prompt = prompt or packaged_prompt()
        self._key = LabelKey(model.digest, self._prompt.version, SCHEMA_VERSION)
        self._watch = ServerWatch(model.name)
        self._budget = budget or Budget.unlimited()

    @property
    def key(self) -> LabelKey:
        """What besides the image decides a label of this labeler."""
        return self._key

    def known(self, shas: Collection[str]) -> dict[str, Label | LabelError]:
        """The labels and refusals that the ledger has of the images, by sha256; nothing is asked and counted."""
        entries = self._ledger.get_many(shas, self._key)
        return {sha: self._result(entry, is_from_ledger=True) for sha, entry in entries.items()}

    def label_all(
        self, shas: Iterable[str], read_jpeg: Callable[[str], bytes]
    ) -> Generator[tuple[str, Label | RowError], None, None]:
        """The label of each distinct image, or why it has none, in the order in which they are done.

        A reply is in the ledger before its slot is given the next image, so a killed process loses at most the
        requests under way: one a slot. Two processes never ask about the same image at once; the second takes the reply
        of the first. An image whose reply cannot be used is asked about once more, with the fault named; then
        the refusal is remembered. When the generator is closed, or an error other than `RowError` occurs, no new
        request is made, and those under way are waited for and kept.

        Args:
            shas: sha256 of the images, in any number and order; repeated ones are left out.
            read_jpeg: Gives the JPEG of an image; called in several threads.

        Yields:
            sha256 of the image, and its `Label` or the `RowError` (mostly a `LabelError`) that it met.

        Raises:
            ServiceUnavailableError: The model server or PostgreSQL does not answer, or the server fails on every image.
            ConfigurationError: The model is gone.
            BudgetSpentError: The next call could cost more than is left of the budget.
        """
        claims = Claims(self._ledger.engine, f"label:{self._key}")

        def prepare(sha: str) -> Ready[bytes] | Later | _Outcome:
            return self._prepare(sha, claims, read_jpeg)

        def label(images: Sequence[tuple[str, bytes]]) -> list[_Outcome]:
            return [self._label(sha, jpeg) for sha, jpeg in images]

        def finished() -> Iterator[tuple[str, Label | RowError]]:
            for outcome in pipeline.next_outcomes():
                claims.give_up(outcome.sha)
                yield self._counted(outcome)

        # More readers than the model needs only take time from the threads that answer it.
        readers = max(MIN_READERS, self._model.slots // SLOTS_PER_READER)
        pipeline = Pipeline(self._model.slots, prepare, label, readers=readers)
        batches, begun = self._distinct_batches(shas), list[str]()
        try:
            for batch in batches:
                begun += batch
                known = self._ledger.get_many(batch, self._key)
                pipeline.submit(sha for sha in batch if sha not in known)
                for sha, entry in known.items():
                    yield self._counted(self._remembered(sha, entry))
                while pipeline.outstanding > LOOKUP_BATCH:
                    yield from finished()
            while pipeline.outstanding:
                yield from finished()
        except BudgetSpentError:
            pipeline.stop()  # what is under way is kept, and does not count as left
            raise self._budget.spent_error(self._count_unknown([*begun, *itertools.chain(*batches)])) from None
        finally:
            pipeline.stop()
            claims.close()

    def _distinct_batches(self, shas: Iterable[str]) -> Iterator[list[str]]:
        seen: set[str] = set()
        batch: list[str] = []
        for sha in shas:
            self.counts.rows += 1
            if sha in seen:
                continue
            self.counts.distinct += 1
            seen.add(sha)
            batch.append(sha)
            if len(batch) == LOOKUP_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _count_unknown(self, shas: Sequence[str]) -> int:
        return len(shas) - len(LedgerUse(self._ledger.engine).known(shas, vars(self._key)))

    def _counted(self, outcome: _Outcome) -> tuple[str, Label | RowError]:
        counts, cost = self.counts, outcome.cost
        counts.model_calls += cost.model_calls
        counts.prompt_tokens += cost.prompt_tokens
        counts.output_tokens += cost.output_tokens
        counts.model_seconds += cost.seconds
        counts.ledger_hits += outcome.is_from_ledger
        counts.reasked += cost.model_calls > 1
        counts.refused += isinstance(outcome.result, RowError)
        return outcome.sha, outcome.result

    def _prepare(self, sha: str, claims: Claims, read_jpeg: Callable[[str], bytes]) -> Ready[bytes] | Later | _Outcome:
        """Claim and read an image, ahead of its slot, unless another process has labeled it since or is about to."""
        is_claimed = claims.take(sha)
        known = self._ledger.get_many([sha], self._key)
        if sha in known:
            return self._remembered(sha, known[sha])
        if not is_claimed:
            return Later()
        try:
            return Ready(read_jpeg(sha))
        except RowError as error:
            return _Outcome(sha, error)

    def _label(self, sha: str, jpeg: bytes) -> _Outcome:
        """Ask about one image and keep what the model said, before the slot is given anything else."""
        cost = _Cost()
        kept: Label | LabelError
        try:
            with self._budget.image(cost):
                parsed = self._ask(jpeg, cost)
        except LabelError as error:
            refusal = self._watch.judge(error)
            kept = refusal if refusal.can_retry else self._keep(sha, cost, refusal=refusal)
        else:
            kept = self._keep(sha, cost, parsed=parsed)
            self._watch.note_answer()
        return _Outcome(sha, kept, cost)

    def _keep(
        self, sha: str, cost: _Cost, *, parsed: ParsedReply | None = None, refusal: LabelError | None = None
    ) -> Label | LabelError:
        """Put a label or a refusal into the ledger, and return what stands there."""
        entry = LedgerEntry(
            model=self._model.name,
            labels=parsed.labels if parsed else None,
            error_class=type(refusal).__name__ if refusal else None,
            error_message=refusal.message if refusal else None,
            parse_step=parsed.step if parsed else None,
            model_calls=cost.model_calls,
            prompt_tokens=cost.prompt_tokens,
            output_tokens=cost.output_tokens,
            seconds=cost.seconds,
        )
        return self._result(self._ledger.put(sha, self._key, entry), is_from_ledger=False)

    def _remembered(self, sha: str, entry: LedgerEntry) -> _Outcome:
        return _Outcome(sha, self._result(entry, is_from_ledger=True), is_from_ledger=True)

    def _ask(self, jpeg: bytes, cost: _Cost) -> ParsedReply:
        """The label of an image, asked for once more when the first reply cannot be used."""
        try:
            return self._ask_once(jpeg, self._prompt.text, cost)
        except (InvalidReplyError, TruncatedReplyError, RepetitiveReplyError) as fault:
            prompt = self._prompt.again(fault.message)
        return self._ask_once(jpeg, prompt, cost)

    def _ask_once(self, jpeg: bytes, prompt: str, cost: _Cost) -> ParsedReply:
        cost.model_calls += 1
        reply = self._model.ask(jpeg, prompt, LABEL_SCHEMA)
        cost.prompt_tokens += reply.prompt_tokens
        cost.output_tokens += reply.output_tokens
        cost.seconds += reply.seconds
        cost.failed_attempts += reply.failed_attempts
        cost.untold_calls += not reply.has_usage
        return parse_reply(reply.text, is_cut_off=reply.is_cut_off)

    def _result(self, entry: LedgerEntry, *, is_from_ledger: bool) -> Label | LabelError:
        if entry.labels is None:
            return entry.error()
        return Label(
            labels=entry.labels,
            model=entry.model,
            digest=self._key.model_digest,
            prompt_version=self._key.prompt_version,
            schema_version=self._key.schema_version,
            parse_step=str(entry.parse_step),
            prompt_tokens=entry.prompt_tokens,
            output_tokens=entry.output_tokens,
            seconds=entry.seconds,
            model_calls=entry.model_calls,
            is_from_ledger=is_from_ledger,
        )
