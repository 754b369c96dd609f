"""Keep our URLs out of urllib3's logs.

At DEBUG level urllib3 prints the path and query of each request: a telephone number in a filter, the signature of a
link to a recording. Records made while one of our requests is under way in the same thread lose their queries and
unmasked numbers; no one else's are touched.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
    _ours.under_way = True
    try:
        yield
    finally:
        _ours.under_way = False
