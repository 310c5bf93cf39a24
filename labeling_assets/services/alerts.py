"""When an alert is sent: one of a cause in an interval, over all processes and restarts.

The table `labeling.alerts` remembers when each cause was last told, and how many alerts were held back since. They are
told with the next alert of the cause, or, once the interval is over, by a digest. An alert is recorded after it was
delivered, so a crash between the two sends it twice, and never not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.alert_messages import Alert, HeldBack, digest, json_body, slack_body
from labeling_assets.services.postgres import advisory_lock, database_errors
from labeling_assets.services.redaction import Redactor
from labeling_assets.services.tables import alerts
from labeling_assets.services.webhook import Webhook
from labeling_assets.settings import Settings

MAX_CAUSE_CHARS = 300


class Alerts:
    """Sends alerts to the webhook of the settings. Safe to use from several processes at once.

    Args:
        engine: From `create_engine`, on a migrated database.
        settings: With `alert_webhook_url`.

    Raises:
        ConfigurationError: LABELING_ALERT_WEBHOOK_URL is not set.
    """

    def __init__(self, engine: sa.Engine, settings: Settings) -> None:
        if settings.alert_webhook_url is None:
            raise ConfigurationError("LABELING_ALERT_WEBHOOK_URL is not set.", "Set it, or send no alerts.")
        self._engine = engine
        self._webhook = Webhook(settings.alert_webhook_url.get_secret_value())
        self._body = slack_body if settings.alert_format == "slack" else json_body
        self._redact = Redactor.of(settings)
        self._interval = sa.func.make_interval(0, 0, 0, 0, 0, 0, settings.alert_interval_seconds)
        self._ui_url = settings.ui_url.rstrip("/")
        self._zone: ZoneInfo = settings.zone

    def report(self, alert: Alert) -> bool:
        """Send an alert, or hold it back where one of its cause was sent within the interval.

        Returns:
            Whether it was sent.

        Raises:
            ConfigurationError: The webhook refuses it, or the table is missing.
            ServiceUnavailableError: The webhook or PostgreSQL does not answer.
        """
        alert = dataclasses.replace(alert, cause=self._redact(alert.cause)[:MAX_CAUSE_CHARS])
        with advisory_lock(self._engine, f"alert:{alert.cause}"):
            earlier, is_due = self._find(alert.cause)
            if not is_due:
                self._hold_back(alert)
                return False
            self._webhook.post(self._body(alert, earlier, self._redact, self._zone))
            self._record_sent({alert.cause: earlier.count if earlier else 0})
            return True

    def send_held_back(self) -> int:
        """Send one digest of what was held back of all causes whose interval is over.

        Returns:
            The number of alerts that it tells of.

        Raises:
            ConfigurationError: The webhook refuses it, or the table is missing.
            ServiceUnavailableError: The webhook or PostgreSQL does not answer.
        """
        with advisory_lock(self._engine, "alerts.digest"):
            overdue = self._overdue()
            if overdue:
                alert = digest(overdue, self._ui_url, self._zone)
                self._webhook.post(self._body(alert, None, self._redact, self._zone))
                self._record_sent({each.cause: each.count for each in overdue})
        return sum(each.count for each in overdue)

    def _find(self, cause: str) -> tuple[HeldBack | None, bool]:
        """What was held back of a cause since it was last told, and whether it may be told again."""
        query = sa.select(alerts, self._is_over().label("is_over")).where(alerts.c.cause == cause)
        with database_errors("The alerts cannot be read"), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None, True
        return HeldBack(cause, row.held_back, row.sent_at) if row.held_back else None, row.is_over

    def _overdue(self) -> Sequence[HeldBack]:
        query = sa.select(alerts).where(alerts.c.held_back > 0, self._is_over()).order_by(alerts.c.held_back.desc())
        with database_errors("The alerts cannot be read"), self._engine.connect() as connection:
            return [HeldBack(row.cause, row.held_back, row.sent_at) for row in connection.execute(query)]

    def _is_over(self) -> sa.ColumnElement[bool]:
        return alerts.c.sent_at + self._interval <= sa.func.now()

    def _hold_back(self, alert: Alert) -> None:
        more = {"held_back": alerts.c.held_back + alert.count}
        with database_errors("The alerts cannot be written"), self._engine.begin() as connection:
            connection.execute(sa.update(alerts).where(alerts.c.cause == alert.cause).values(more))

    def _record_sent(self, told: Mapping[str, int]) -> None:
        """Remember that causes were told now, with so many alerts that had been held back."""
        with database_errors("The alerts cannot be written"), self._engine.begin() as connection:
            for cause, count in told.items():
                statement = insert(alerts).values(cause=cause, sent_at=sa.func.now(), held_back=0)
                # Subtracted, not set to zero: another process may have held one back while this one was sending.
                left = sa.func.greatest(alerts.c.held_back - count, 0)
                statement = statement.on_conflict_do_update(
                    index_elements=["cause"], set_={"sent_at": sa.func.now(), "held_back": left}
                )
                connection.execute(statement)
