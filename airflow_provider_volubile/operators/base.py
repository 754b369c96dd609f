"""The base of all operators: a connection, and rendered fields that hide personal data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from airflow.sdk import BaseOperator, Context

from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.tasks import UI_COLOR, UI_FGCOLOR, Personal, keep_plus


class VolubileOperator(BaseOperator):
    """Base of the operators.

    :param volubile_conn_id: the :ref:`connection <connection>`.
    """

    template_fields: Sequence[str] = ("volubile_conn_id",)
    ui_color = UI_COLOR
    ui_fgcolor = UI_FGCOLOR

    #: Template fields with personal data: Airflow shows their rendered values masked.
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
        # Airflow stores rendered fields and shows them in its UI. It calls `serialize()` on each value.
        super()._do_render_template_fields(parent, template_fields, *args, **kwargs)
        if parent is self:
            for name in self.personal_fields:
                value = getattr(self, name)
                if not isinstance(value, Personal):
                    setattr(self, name, Personal(value))
