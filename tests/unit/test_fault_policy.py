"""The fault policy by itself: which faults end a wait, and when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
)
from airflow_provider_volubile.waiting.fault_policy import Fault, concerns_one_object

REVOKED = VolubileAuthError("401", status=401)
FORBIDDEN = VolubileAuthError("403", status=403)
UNKNOWN = VolubileNotFound("404", status=404)
REFUSED = VolubileRequestRefused("400", status=400)
DOWN = VolubileUnavailable("503", status=503)
GARBLED = VolubileProtocolError("HTML")
FULL = VolubileRateLimitError("429", status=429)
DEFECT = VolubileError("KeyError")
MINUTE = 60.0


def fault(*errors: tuple[float, VolubileError]) -> Fault:
    """What is known after these errors, each with its moment in minutes."""
    found: Fault | None = None
    for minute, error in errors:
        found = Fault.after(found, error, minute * MINUTE)
    assert found
    return found


@pytest.mark.parametrize("error", [REVOKED, FORBIDDEN, UNKNOWN, REFUSED, DOWN, GARBLED, FULL, DEFECT])
def test_one_fault_ends_no_wait(error: VolubileError) -> None:
    assert not fault((0, error)).ends_wait(0)


@pytest.mark.parametrize(
    ("errors", "ends"),
    [
        ([(0, REVOKED), (9.9, REVOKED)], False),
        ([(0, REVOKED), (10, REVOKED)], True),
        ([(0, UNKNOWN), (10, FORBIDDEN)], True),
        ([(0, DOWN), (29.9, DOWN)], False),
        ([(0, DOWN), (30, GARBLED)], True),
        # Refused after a long outage: that it stays refused is not known yet.
        ([(0, DOWN), (29, REVOKED)], False),
        ([(0, DOWN), (20, REVOKED), (30, REVOKED)], True),
        # An outage in between leaves open whether it is refused.
        ([(0, REVOKED), (9, DOWN), (11, REVOKED)], False),
        # Something else is wrong every time, but nothing was answered for half an hour.
        ([(0, REVOKED), (9, DOWN), (11, REVOKED), (30, FULL)], True),
    ],
)
def test_refused_keys_are_told_from_an_outage_by_time(
    errors: Sequence[tuple[float, VolubileError]], ends: bool
) -> None:
    assert fault(*errors).ends_wait(errors[-1][0] * MINUTE) is ends


def test_what_can_never_be_sent_ends_a_wait_at_once() -> None:
    assert fault((0, VolubileInputError("no id"))).ends_wait(0)


def test_a_refusal_concerns_one_object_except_that_of_keys() -> None:
    assert all(map(concerns_one_object, [FORBIDDEN, UNKNOWN, REFUSED, VolubileInputError("no id")]))
    assert not any(map(concerns_one_object, [REVOKED, DOWN, GARBLED, FULL, DEFECT]))
