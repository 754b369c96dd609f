"""Everything this package imports of Airflow that is not part of its public interface (``airflow.sdk``).

Airflow may change these without notice. Each function says what would replace it. A test holds that no other module
imports them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context


class PermanentStateStore:
    """The task state store of a task, in which nothing expires: a task cleared after a year must not dial again.

    Replace it when a retention of "for ever" can be given through ``airflow.sdk``.

    :param store: ``context["task_state_store"]``.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def get(self, key: str, default: Any = None) -> Any:
        return self._store.get(key, default)

    def set(self, key: str, value: Any) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        self._store.set(key, value, retention=NEVER_EXPIRE)


def task_states(ti: Any) -> list[str | None]:
    """The present state of a task instance, asked of the API server. Empty when its Dag run was deleted. Blocking.

    Replace it when task instances offer their state through ``airflow.sdk``.

    :param ti: the task instance, as an operator or a trigger has it.
    """
    ask = getattr(ti, "get_task_states", None)  # public, but a trigger's task instance has none
    if ask is None:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ask = RuntimeTaskInstance.get_task_states
    states = ask(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
    return list(states.get(ti.run_id, {}).values())


def show_question(ti_id: Any, *, subject: str, body: str, options: Sequence[str]) -> bool:
    """Have Airflow's UI ask a person a question about a task (human in the loop), with a field for a campaign's id.

    Replace it with a public way to ask from any operator; ``airflow.providers.standard`` offers operators only.

    :return: whether Airflow shows this question. It keeps the first question of a task, over tries and clears.
    """
    from airflow.sdk import Param
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload

    question = CreateHITLDetailPayload(
        ti_id=ti_id,
        options=list(options),
        subject=subject,
        body=body,
        params={"id": Param("", type="string", title="Campaign id", maxLength=64).serialize()},
        assigned_users=[],  # the API server refuses the model's own default
    )
    shown = task_runner.SUPERVISOR_COMMS.send(msg=question)
    return getattr(shown, "body", None) == body


def render_to_text(template: Any, context: Context) -> Any:
    """Render a template to text, whatever ``render_template_as_native_obj`` says.

    Replace it when ``airflow.sdk`` renders a single template to text.

    :raises TypeError: the template gives a number, and no text.
    """
    from airflow.sdk.definitions.context import render_template_to_string

    return render_template_to_string(template, context)
