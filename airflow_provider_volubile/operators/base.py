"""What all operators of the provider have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_volubile.exceptions import VolubileError, VolubileInputError, needs_a_person
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.templates import keep_plus

UI_COLOR = "#e6f4f1"
UI_FGCOLOR = "#0b3b36"
SAMPLE = 3
WAIT_FOR = ("ended", "transcript")


@contextmanager
def useless_retries_avoided() -> Iterator[None]:
    """Turn errors that no retry can mend into failures that Airflow does not retry."""
    try:
        yield
    except VolubileError as error:
        if needs_a_person(error):
            raise AirflowFailException(str(error)) from error
        raise


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Check a parameter that knows a few values only.

    :raises VolubileInputError: it has another.
    """
    if value not in known:
        raise VolubileInputError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")


def check_number(name: str, value: Any, high: float | None = None) -> None:
    """Check a parameter that is a number from 0, such as of seconds.

    :raises VolubileInputError: it is none, or outside these bounds.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= (math.inf if high is None else high):
        bounds = "from 0" if high is None else f"from 0 to {high:g}"
        raise VolubileInputError(f"{name} is {value!r}; it must be a number {bounds}.")


class VolubileOperator(BaseOperator):
    """Base of the operators: a connection, and personal data that stays out of sight.

    :param volubile_conn_id: the :ref:`connection <connection>`.
    """

    template_fields: Sequence[str] = ("volubile_conn_id",)
    ui_color = UI_COLOR
    ui_fgcolor = UI_FGCOLOR

    #: Template fields that hold people: their rendered values are shown masked.
    personal_fields: Sequence[str] = ()

    def __init__(self, *, volubile_conn_id: str = VolubileHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.volubile_conn_id = volubile_conn_id

    @cached_property
    def hook(self) -> VolubileHook:
        return VolubileHook(self.volubile_conn_id)

    def _render(self, template: Any, context: Context, dag: Any = None) -> Any:
        return keep_plus(super()._render(template, context, dag), template, context)

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], *args: Any, **kwargs: Any
    ) -> None:
        # Airflow stores the rendered fields and shows them in its UI, asking each value for its `serialize()`.
        super()._do_render_template_fields(parent, template_fields, *args, **kwargs)
        if parent is self:
            for name in self.personal_fields:
                value = getattr(self, name)
                if not isinstance(value, Personal):
                    setattr(self, name, Personal(value))


class Personal:
    """A rendered value that holds people. Airflow shows how many and a masked sample, or what file they are in.

    :param value: as it was rendered.
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
        return {"count": len(rows), "sample": [_masked(row) for row in rows[:SAMPLE]]}

    def __repr__(self) -> str:
        return f"Personal({self.serialize()!r})"


def unwrap(value: Any) -> Any:
    """The value itself, whether Airflow has rendered it or not."""
    return value.value if isinstance(value, Personal) else value


def _masked(row: Any) -> str:
    """A person of a sample: the first thing that looks like a number, masked. Names and the rest are not shown."""
    from airflow_provider_volubile.masking import mask_phone

    values = row.values() if isinstance(row, Mapping) else [row]
    for value in values:
        if isinstance(value, str | int) and (masked := mask_phone(str(value))) != "***":
            return masked
    return "***"
