"""What operators, sensors and notifiers have in common: checked parameters, rendered numbers, masked fields, errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_volubile._airflow import render_to_text
from airflow_provider_volubile.exceptions import VolubileError, VolubileInputError, is_permanent

UI_COLOR = "#e6f4f1"
UI_FGCOLOR = "#0b3b36"
WAIT_FOR = ("ended", "transcript")
# Recipients shown in a rendered field.
SAMPLE_SIZE = 3


@contextmanager
def fail_without_retry() -> Iterator[None]:
    """Turn errors that no retry can mend into failures that Airflow does not retry."""
    try:
        yield
    except VolubileError as error:
        if is_permanent(error):
            raise AirflowFailException(str(error)) from error
        raise


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Check a parameter that takes one of a few values.

    :raises VolubileInputError: it has another value.
    """
    if value not in known:
        raise VolubileInputError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")


def check_number(name: str, value: Any, high: float | None = None) -> None:
    """Check a parameter that is a number of 0 or more, such as seconds.

    :param high: the largest value allowed.
    :raises VolubileInputError: it is not a number, or it is out of bounds.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= (math.inf if high is None else high):
        bounds = "from 0" if high is None else f"from 0 to {high:g}"
        raise VolubileInputError(f"{name} is {value!r}; it must be a number {bounds}.")


def keep_plus(rendered: Any, template: Any, context: Context) -> Any:
    """Give a telephone number its ``+`` back.

    With ``render_template_as_native_obj`` Airflow reads ``"+33639980001"`` as an integer and drops the sign. Without
    it the number's country is unknown.

    :param rendered: what Airflow made of ``template``.
    """
    if type(rendered) is int:
        with suppress(TypeError):  # the template gives a number, and no text
            text = render_to_text(template, context)
            return text if text.startswith("+") else rendered
    return rendered


class Personal:
    """A rendered value with personal data. Airflow shows a count and a masked sample, or the path of a file.

    :param value: the value as it was rendered.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def serialize(self) -> Any:
        from airflow_provider_volubile.masking import mask_personal

        if self.value is None:
            return None
        if isinstance(self.value, str) or not hasattr(self.value, "__iter__"):
            return mask_personal(str(self.value))
        rows = list(self.value)
        return {"count": len(rows), "sample": [_masked(row) for row in rows[:SAMPLE_SIZE]]}

    def __repr__(self) -> str:
        return f"Personal({self.serialize()!r})"


def unwrap(value: Any) -> Any:
    """The value itself, whether Airflow has rendered it or not."""
    return value.value if isinstance(value, Personal) else value


def _masked(row: Any) -> str:
    """The first value of a row that looks like a number, masked. Names and everything else stay hidden."""
    from airflow_provider_volubile.masking import mask_phone

    values = row.values() if isinstance(row, Mapping) else [row]
    for value in values:
        if isinstance(value, str | int) and (masked := mask_phone(str(value))) != "***":
            return masked
    return "***"
