"""Which faults end a wait, and when. One policy for waits in a worker, in the triggerer and in a rescheduled sensor."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import timedelta

from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileRequestRefused,
)
from airflow_provider_volubile.masking import mask_phones

# Faults that may pass by themselves: no connection, 5xx, a full request window, an answer that cannot be read. Calls
# and campaigns go on meanwhile, so there is no hurry.
OUTAGE_LIMIT = timedelta(minutes=30)
# A refusal (401, 403, 404, any other 4xx) is definite only when it stays: an outage of the service that checks keys
# looks like revoked keys, and a new campaign may not be known everywhere at once.
REFUSAL_LIMIT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Fault:
    """Requests for one object, or for the whole account, that failed one after the other without an answer in between.

    Moments are in seconds of :func:`time.monotonic`: the wall clock may jump.

    :param error: the latest error.
    :param since: when the first of them failed.
    :param refused_since: since when each of them was refused; None if the latest was not.
    """

    error: VolubileError
    since: float
    refused_since: float | None

    @classmethod
    def after(cls, earlier: Fault | None, error: VolubileError, now: float) -> Fault:
        """The fault with one more error."""
        if earlier is None:
            return cls(error, now, now if is_refusal(error) else None)
        refused_since = now if earlier.refused_since is None else earlier.refused_since
        return cls(error, earlier.since, refused_since if is_refusal(error) else None)

    def ends_wait(self, now: float) -> bool:
        """Whether waiting longer cannot be expected to help."""
        if isinstance(self.error, VolubileInputError):  # it was never sent, and never will be
            return True
        if self.refused_since is not None:
            return now - self.refused_since >= REFUSAL_LIMIT.total_seconds()
        return now - self.since >= OUTAGE_LIMIT.total_seconds()


def is_refusal(error: VolubileError) -> bool:
    """Whether the service answered with a definite no."""
    return isinstance(error, VolubileAuthError | VolubileNotFound | VolubileRequestRefused)


def concerns_one_object(error: VolubileError) -> bool:
    """Whether only the object that was asked for is concerned; otherwise the whole account may be.

    A refusal shows that the service works, except for refused keys (401).
    """
    return isinstance(error, VolubileInputError) or (is_refusal(error) and error.status != 401)


def as_volubile_error(error: BaseException) -> VolubileError:
    """What only this package raises, as it is; anything else with the place where it happened."""
    if isinstance(error, VolubileError):
        return error
    places = traceback.extract_tb(error.__traceback__)
    where = f" in {places[-1].name}, line {places[-1].lineno}" if places else ""
    return VolubileError(f"{type(error).__name__}: {mask_phones(str(error))}{where}")
