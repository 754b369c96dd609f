"""What rendering templates must not do to telephone numbers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from airflow.sdk import Context
from airflow.sdk.definitions.context import render_template_to_string


def keep_plus(rendered: Any, template: Any, context: Context) -> Any:
    """Give a number its ``+`` back.

    Rendering to native objects reads ``"+33639980001"`` as a number, and so loses the sign without which nobody knows
    which country's it is.

    :param rendered: what Airflow made of ``template``.
    """
    if type(rendered) is int:
        with suppress(TypeError):  # of templates that give numbers and no text
            text = render_template_to_string(template, context)
            return text if text.startswith("+") else rendered
    return rendered
