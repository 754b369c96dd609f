"""Keep our URLs out of logs, traces and error trackers.

A query may hold a telephone number (a filter) or a signature (a link to a recording). At DEBUG level urllib3 prints
it; OpenTelemetry's instrumentation of requests and sentry-sdk record it. While one of our requests is under way in a
thread, urllib3's records of this thread lose queries and unmasked numbers, and the other two record nothing.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from airflow_provider_volubile.masking import mask_phones

# Filters act only on the logger they are attached to, so each one that prints URLs is named.
_LOGGERS = ("urllib3.connectionpool", "urllib3.connection", "urllib3.poolmanager", "urllib3.util.retry")
_QUERY = re.compile(r"\?[^\s\"']+")
_ours = threading.local()


class _UrlFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(_ours, "under_way", False):
            record.msg = mask_phones(_QUERY.sub("?…", record.getMessage()))
            record.args = ()
            record.exc_info = record.exc_text = None
        return True


_FILTER = _UrlFilter()


def hide_urls_in_logs() -> None:
    """Attach the filter; doing it again changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)


@contextmanager
def redacted_urls() -> Iterator[None]:
    """Mark what this thread does meanwhile as ours."""
    with ExitStack() as stack:
        if traces := sys.modules.get("opentelemetry.instrumentation.utils"):
            stack.enter_context(traces.suppress_http_instrumentation())
        if sentry := sys.modules.get("sentry_sdk"):
            stack.enter_context(sentry.isolation_scope())  # dropped at its end, with all breadcrumbs
            sentry.get_current_scope().span = None
        _ours.under_way = True
        try:
            yield
        finally:
            _ours.under_way = False
