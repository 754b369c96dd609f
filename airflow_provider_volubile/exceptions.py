"""Errors of the provider: one class for each way in which a caller can react.

Every message says what happened, to what, and what to do next. None holds a key, a token, a full telephone number or
the content of an answer. All errors can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = [
    "VolubileAuthError",
    "VolubileError",
    "VolubileIncompleteExport",
    "VolubileInputError",
    "VolubileInputsChanged",
    "VolubileNotFound",
    "VolubileOutcomeGap",
    "VolubileProtocolError",
    "VolubileRateLimitError",
    "VolubileRequestRefused",
    "VolubileStoreError",
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
    """Base class of the provider's errors.

    :param message: What happened, to what, and what to do next.
    :param operation: The operation concerned, as in the API's own list of routes (``createCampaign``, ``getCall``…).
    :param status: HTTP status of the answer, None when there was none.
    """

    def __init__(self, message: str, *, operation: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.operation = operation
        self.status = status


class VolubileInputError(VolubileError, ValueError):
    """Somebody must correct an input; a retry cannot help. The message names the value and the rule."""


class VolubileAuthError(VolubileError):
    """The credentials were refused (401), or they do not allow the operation (403).

    A retry does not help: a person must check the connection or the dashboard.
    """


class VolubileRateLimitError(VolubileError):
    """The account's request window stayed full (429) for longer than the client waits. The service accepted nothing."""


class VolubileNotFound(VolubileError):
    """There is no such object in this account (404), or it has no transcript or recording (yet)."""


class VolubileRequestRefused(VolubileError):
    """The service refused the request (any other 4xx). It accepted nothing.

    :param reason: The server's own explanation, bounded and with numbers masked; empty when it gave none.
    """

    def __init__(
        self, message: str, *, operation: str | None = None, status: int | None = None, reason: str = ""
    ) -> None:
        super().__init__(message, operation=operation, status=status)
        self.reason = reason


class VolubileUnavailable(VolubileError):
    """The service was unreachable or kept failing (connection faults, 5xx) beyond the retry budget.

    For a request that dials, the client raises this only if the server certainly accepted nothing.
    """


class VolubileUnknownOutcome(VolubileError):
    """The service may have accepted a request that dials, but its answer is missing. Look for its calls before a retry.

    :param accepted: True if the server accepted the request but its answer is unreadable (a campaign without its id).
    """

    def __init__(
        self, message: str, *, operation: str | None = None, status: int | None = None, accepted: bool = False
    ) -> None:
        super().__init__(message, operation=operation, status=status)
        self.accepted = accepted


class VolubileProtocolError(VolubileError):
    """An unreadable answer: not JSON, a wrong shape, too large, an unexpected redirect."""


class VolubileInputsChanged(VolubileError):
    """The recipients of a retry differ from those that an earlier try sent. The retry sent nothing."""


class VolubileUnknownSubmission(VolubileError):
    """It stayed unknown whether the service accepted a request that dials. The task did not send it again."""


class VolubileWaitFailed(VolubileError):
    """The wait ended with an error that a retry would meet again."""


class VolubileOutcomeGap(VolubileError):
    """Fewer people were reached than the task requires, or counts do not add up."""


class VolubileStoreError(VolubileError):
    """The store in which results are kept refused to read, write or remove a file."""


class VolubileIncompleteExport(VolubileError):
    """Parts of an export are missing; a retry may find more.

    What could be had was written, unless that would have taken away what an earlier run wrote.
    """


class VolubileWaitTimeout(VolubileError):
    """The wait timed out. Calls and campaigns go on. A retry waits again and dials no one again."""


def is_permanent(error: BaseException) -> bool:
    """Whether a retry cannot help: a person must first change the input or the credentials, or decide."""
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
