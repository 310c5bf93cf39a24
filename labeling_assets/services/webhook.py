"""Delivery of a message to a webhook: deadlines, retries, and errors that never show the address.

The address of a webhook is a secret: whoever has it can post. So no error and no log line tells it, nor does the cause
of an error, which is cut off for that reason. What a message says is in `alert_messages.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError

REQUEST_SECONDS = 5.0
"""Deadline for the connection, and again for the answer."""
RETRY_SECONDS = 15.0
"""No attempt begins later: Dagster gives a tick of a sensor 60 s."""
REMEDY = "Check LABELING_ALERT_WEBHOOK_URL."
TRANSIENT_STATUSES = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}

# Its debug lines tell the path of the address.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)


class _TransientError(Exception):
    """Another attempt may succeed.

    Args:
        reason: What happened, without the address.
        retry_after_seconds: Pause that the receiver asks for; 0 where it asks for none.
    """

    def __init__(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class Webhook:
    """Posts JSON to one address.

    Args:
        url: The address.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def post(self, body: Mapping[str, object]) -> None:
        """Deliver a message; on return the receiver has accepted it.

        Raises:
            ConfigurationError: The address cannot be used, or the receiver refuses the message for good.
            ServiceUnavailableError: The receiver does not answer, or asks to come back later, also after retries.
        """
        content = json.dumps(body).encode()
        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=stop_before_delay(RETRY_SECONDS),
            wait=_pause_seconds,
            reraise=True,
        )
        try:
            retrying(self._attempt, content)
        except _TransientError as error:
            raise ServiceUnavailableError(
                f"The alert webhook does not take messages: {error}.", f"{REMEDY} The alert is sent again later."
            ) from None

    def _attempt(self, content: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        try:
            with requests.post(
                self._url, content, headers=headers, timeout=REQUEST_SECONDS, allow_redirects=False, stream=True
            ) as response:
                status, retry_after = response.status_code, response.headers.get("Retry-After", "")
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _TransientError(type(error).__name__) from None
        except (requests.RequestException, ValueError) as error:
            raise ConfigurationError(f"The alert webhook cannot be used: {type(error).__name__}.", REMEDY) from None
        if status in TRANSIENT_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _TransientError(f"it answered {status}", float(retry_after) if retry_after.isdecimal() else 0.0)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise ConfigurationError(f"The alert webhook refuses messages: it answered {status}.", REMEDY)


def _pause_seconds(state: RetryCallState) -> float:
    """What the receiver asks for, or else a pause that grows."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, _TransientError) else 0.0
    return asked or wait_random_exponential(multiplier=0.2, max=5)(state)
