"""Questions that Airflow's UI puts to people on behalf of a task (its human-in-the-loop)."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload


def show_question(ti_id: Any, *, subject: str, body: str, options: list[str]) -> bool:
    """Have Airflow's UI ask a question.

    :return: whether it does. It keeps the text of a task's first question, over tries and clears, and would have an
        answer to that taken for an answer to this one.
    """
    params = {"id": Param("", type="string", title="Campaign id", maxLength=64).serialize()}
    question = CreateHITLDetailPayload(
        ti_id=ti_id,
        options=options,
        subject=subject,
        body=body,
        params=params,
        assigned_users=[],  # the API server refuses the default of the model
    )
    shown = task_runner.SUPERVISOR_COMMS.send(msg=question)
    return getattr(shown, "body", None) == body
