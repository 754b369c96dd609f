"""All random draws, as pure functions of a seed: the same arguments always give the same result."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def _digest(seed: int, what: tuple[object, ...], size: int) -> bytes:
    return hashlib.blake2b("\x1f".join(map(str, (seed, *what))).encode(), digest_size=size).digest()


def fraction(seed: int, *what: object) -> float:
    """Return a number in [0, 1) that depends only on the arguments."""
    return int.from_bytes(_digest(seed, what, 7)) / 2**56


def between(low: int, high: int, seed: int, *what: object) -> int:
    """Return a whole number from ``low`` to ``high``, both included."""
    return low + int(fraction(seed, *what) * (high - low + 1))


def pick(options: Sequence[T], seed: int, *what: object) -> T:
    """Return one of ``options``, all equally likely."""
    return options[int(fraction(seed, *what) * len(options))]


def weighted(weights: Mapping[T, float], seed: int, *what: object) -> T:
    """Return one of the keys of ``weights``, as likely as its weight says."""
    mark = fraction(seed, *what) * sum(weights.values())
    for option, weight in weights.items():
        mark -= weight
        if mark < 0:
            return option
    return option


def uuid4(seed: int, *what: object) -> str:
    """Return a UUID (version 4 in form) for ``what``."""
    return str(uuid.UUID(bytes=_digest(seed, what, 16), version=4))
