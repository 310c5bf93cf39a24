"""What an alert says, and its two bodies: a Slack message and a flat JSON object.

Every text goes through a `Redactor` and is cut to the limits of the receiver. What is worth an alert is decided in
`defs/platform/alerts.py`; when it is sent, in `alerts.py`.
"""

from __future__ import annotations

import datetime as dt
import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

MAX_TEXT_CHARS = 1_500
MAX_TITLE_CHARS = 140
DAYS_SHOWN = 10
SLACK_FIELD_CHARS, SLACK_HEADER_CHARS = 2_900, 150
"""A section takes 3,000 characters, its name included, and a header 150 (docs.slack.dev/reference/block-kit/blocks)."""

Redact = Callable[[str], str]


@dataclass(frozen=True)
class Alert:
    """Something that a person should know, with what to do about it.

    Attributes:
        cause: What makes two alerts the same; readable, since held back alerts are told by it.
        level: error: something is not done; warning: it is done, but look at it.
        title: What failed, in a line.
        message: The cause in words.
        remedy: What the reader can do.
        url: Page of the run, or of the asset where there is no run.
        stage: Name of the asset; empty where the run as a whole failed.
        check: Name of the check; empty for a run.
        error_class: Class of the error; empty for a check.
        days: Business days concerned, YYYY-MM-DD; empty where the run has none.
        run_id: The run; empty for a check outside a run.
        count: How many alerts of the cause this one stands for.
    """

    cause: str
    level: Literal["error", "warning"]
    title: str
    message: str
    remedy: str
    url: str
    stage: str = ""
    check: str = ""
    error_class: str = ""
    days: tuple[str, ...] = ()
    run_id: str = ""
    count: int = 1


@dataclass(frozen=True)
class HeldBack:
    """Alerts of a cause that were not sent, because one had just been.

    Attributes:
        cause: `Alert.cause`.
        count: How many.
        since: When the last one was sent.
    """

    cause: str
    count: int
    since: dt.datetime


def json_body(alert: Alert, held_back: HeldBack | None, redact: Redact, zone: ZoneInfo) -> dict[str, object]:
    """A flat object of texts and numbers; every key every time, an empty text where there is nothing to say.

    Keys: `level, title, message, remedy, url, stage, check, error_class, days, run_id, cause` as in `Alert` (days as a
    text), `count`, and `held_back` and `held_back_since` (ISO 8601): alerts of the same cause that were not sent.
    """
    return {
        "level": alert.level,
        "title": _clean(alert.title, redact, MAX_TITLE_CHARS),
        "message": _clean(alert.message, redact),
        "remedy": _clean(alert.remedy, redact),
        "url": redact(alert.url),
        "stage": _clean(alert.stage, redact),
        "check": _clean(alert.check, redact),
        "error_class": _clean(alert.error_class, redact),
        "days": days_text(alert.days),
        "run_id": alert.run_id,
        "cause": _clean(alert.cause, redact),
        "count": alert.count,
        "held_back": held_back.count if held_back else 0,
        "held_back_since": held_back.since.astimezone(zone).isoformat(timespec="seconds") if held_back else "",
    }


def slack_body(alert: Alert, held_back: HeldBack | None, redact: Redact, zone: ZoneInfo) -> dict[str, object]:
    """A message for Slack's incoming webhooks: the title as notification, and blocks with the details."""
    title = _clean(alert.title, redact, MAX_TITLE_CHARS) or "Alert"
    fields = {
        "Days": days_text(alert.days),
        "Stage": alert.stage,
        "Check": alert.check,
        "Cause": f"{alert.error_class}: {alert.message}" if alert.error_class else alert.message,
        "What to do": alert.remedy,
    }
    lines = [
        f"*{name}*: {_escaped(_clean(value, redact), SLACK_FIELD_CHARS)}" for name, value in fields.items() if value
    ]
    more = [part for part in (_more_text(alert, held_back, zone),) if part]
    link = f"<{_link(redact(alert.url)[:MAX_TEXT_CHARS])}|{'Open the run' if alert.run_id else 'Open in Dagster'}>"
    blocks: list[dict[str, object]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _escaped(title, SLACK_HEADER_CHARS)}}
    ]
    blocks += [_section(line) for line in lines]
    blocks += [{"type": "context", "elements": [{"type": "mrkdwn", "text": _escaped(text, 300)}]} for text in more]
    blocks.append(_section(link))
    sign = ":red_circle:" if alert.level == "error" else ":warning:"
    return {"text": f"{sign} {_escaped(' - '.join([title, *more]), 500)}", "blocks": blocks}


def digest(held_back: Sequence[HeldBack], ui_url: str, zone: ZoneInfo) -> Alert:
    """One alert that tells of all that were held back, when no other alert of their causes came to tell it."""
    total = sum(each.count for each in held_back)
    since = min(each.since for each in held_back)
    lines = [f"{each.count} more of: {each.cause[:200]}" for each in held_back]
    return Alert(
        cause="held back",
        level="warning",
        title=f"{total} more alerts since {_clock(since, zone)}",
        message="\n".join(
            [*lines[:DAYS_SHOWN], *([f"and {len(lines) - DAYS_SHOWN} causes more"] * (len(lines) > DAYS_SHOWN))]
        ),
        remedy="They have the causes of alerts sent before; failed runs and checks are listed in the UI.",
        url=f"{ui_url}/runs",
        count=total,
    )


def days_text(days: Sequence[str]) -> str:
    """The days for a person: the first ten, and how many more there are."""
    shown = ", ".join(days[:DAYS_SHOWN])
    return f"{shown} and {len(days) - DAYS_SHOWN} more" if len(days) > DAYS_SHOWN else shown


def _more_text(alert: Alert, held_back: HeldBack | None, zone: ZoneInfo) -> str:
    parts = []
    if alert.count > 1:
        parts.append(f"{alert.count} alerts of this cause at once")
    if held_back:
        parts.append(f"and {held_back.count} more since {_clock(held_back.since, zone)}")
    return ", ".join(parts)


def _clock(moment: dt.datetime, zone: ZoneInfo) -> str:
    local = moment.astimezone(zone)
    is_today = local.date() == dt.datetime.now(zone).date()
    return f"{local:%H:%M}" if is_today else f"{local:%Y-%m-%d %H:%M}"


def _clean(text: str, redact: Redact, max_chars: int = MAX_TEXT_CHARS) -> str:
    # Cut after it is redacted: a secret that is cut in two is not recognised any more.
    text = redact(text).strip()
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _escaped(text: str, max_chars: int) -> str:
    """The text with Slack's three escapes, at most so long, and never cut within an escape."""
    escaped = html.escape(text, quote=False)
    if len(escaped) <= max_chars:
        return escaped
    return re.sub(r"&[a-z]*$", "", escaped[: max_chars - 1]) + "…"


def _link(url: str) -> str:
    """A URL that cannot end the link it stands in."""
    return (
        html.escape(url, quote=False)
        .replace("|", "%7C")
        .replace("&gt;", "%3E")
        .replace("&lt;", "%3C")
        .replace(" ", "%20")
    )
