"""What ``Retry-After`` and ``X-RateLimit-*`` say. Read here, and nowhere else.

Facts: https://docs.volubile.ai/api-reference/rate-limiting. A value that makes no sense counts as none.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_COUNT = re.compile(r"[0-9]{1,9}")


class RateLimit(NamedTuple):
    """The account's requests per window, and how many of them are left."""

    limit: int
    remaining: int


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """What an answer tells about the account's window."""
    limit, remaining = headers.get("X-RateLimit-Limit", ""), headers.get("X-RateLimit-Remaining", "")
    if _COUNT.fullmatch(limit) and _COUNT.fullmatch(remaining):
        return RateLimit(int(limit), int(remaining))
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, which it gives as seconds or as a date."""
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text).timestamp()
            now = parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else time.time()
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = moment - now
    return max(0.0, seconds) if math.isfinite(seconds) else None
