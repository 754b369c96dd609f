"""What can go wrong between us and Volubile, one class per thing a caller does about it.

Every message says what happened, to what, and what to do next. None holds a key, a token, a full telephone number or
the content of an answer. All of them can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = [
    "VolubileAuthError",
    "VolubileError",
    "VolubileInputError",
    "VolubileInputsChanged",
    "VolubileNotFound",
    "VolubileOutcomeGap",
    "VolubileProtocolError",
    "VolubileRateLimitError",
    "VolubileRequestRefused",
    "VolubileUnavailable",
    "VolubileUnknownOutcome",
    "VolubileUnknownSubmission",
    "VolubileWaitFailed",
    "VolubileWaitTimeout",
    "is_permanent",
    "without_frames",
]

P = ParamSpec("P")
R = TypeVar("R")


class VolubileError(Exception):
    """Base of everything this package raises about Volubile.

    :param message: What happened, to what, and what to do next.
    :param operation: The operation concerned, as in the API's own list of routes (``createCampaign``, ``getCall``…).
    :param status: HTTP status of the answer, None when there was none.
    """

    def __init__(self, message: str, *, operation: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.operation = operation
        self.status = status


class VolubileInputError(VolubileError, ValueError):
    """Bad input, found before anything was sent. The message names the value and the rule."""


class VolubileAuthError(VolubileError):
    """The credentials were refused (401), or they do not allow the operation (403).

    Repeating the request does not help: somebody has to look at the connection or at the dashboard.
    """


class VolubileRateLimitError(VolubileError):
    """The account's request window stayed full (429) for longer than we are ready to wait. Nothing was taken."""


class VolubileNotFound(VolubileError):
    """There is no such object in this account (404), or it has no transcript or recording (yet)."""


class VolubileRequestRefused(VolubileError):
    """A definite "no" (any other 4xx): nothing was taken.

    :param reason: The server's own explanation, bounded and with numbers masked; empty when it gave none.
    """

    def __init__(
        self, message: str, *, operation: str | None = None, status: int | None = None, reason: str = ""
    ) -> None:
        super().__init__(message, operation=operation, status=status)
        self.reason = reason


class VolubileUnavailable(VolubileError):
    """Volubile could not be reached or kept failing (connection faults, 5xx), beyond the retry budget.

    For a request that dials, this is only raised when the server certainly took nothing.
    """


class VolubileUnknownOutcome(VolubileError):
    """A request that dials may have been taken, and no answer says so. Never repeat it before looking.

    :param accepted: True when the server said yes but its answer could not be read (a campaign without its id).
    """

    def __init__(
        self, message: str, *, operation: str | None = None, status: int | None = None, accepted: bool = False
    ) -> None:
        super().__init__(message, operation=operation, status=status)
        self.accepted = accepted


class VolubileProtocolError(VolubileError):
    """An answer we cannot read: not JSON, a wrong shape, too large, an unexpected redirect."""


class VolubileInputsChanged(VolubileError):
    """A retry found other recipients than an earlier try had already sent. Nothing more was sent."""


class VolubileUnknownSubmission(VolubileError):
    """Nobody could find out whether a request that dials was taken, and it was not sent again."""


class VolubileWaitFailed(VolubileError):
    """Waiting ended with an error that another try would meet again."""


class VolubileOutcomeGap(VolubileError):
    """Fewer people were reached than the task asked for, or the accounts do not add up."""


class VolubileWaitTimeout(VolubileError):
    """Waiting took longer than allowed. Calls and campaigns go on; a retry goes on waiting and dials no one again."""


def is_permanent(error: BaseException) -> bool:
    """Whether trying again cannot help: input, credentials or a decision must come from somebody first."""
    return isinstance(
        error,
        (
            VolubileAuthError,
            VolubileInputError,
            VolubileInputsChanged,
            VolubileNotFound,
            VolubileOutcomeGap,
            VolubileRequestRefused,
            VolubileUnknownSubmission,
            VolubileWaitFailed,
        ),
    )


def without_frames(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function's :class:`VolubileError` leave without its frames.

    Error trackers store the variables of every frame that an error passes: bodies with telephone numbers, signed links.
    The messages of these errors say what a person needs to know.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except VolubileError as error:
            failure = error.with_traceback(None)
        del args, kwargs
        raise failure

    return call
