"""Change an agent: switch it on or off, rename it, archive it, have it record or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict

from airflow.sdk import Context

from airflow_provider_volubile.exceptions import VolubileInputError, VolubileNotFound, VolubileProtocolError
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.operators.base import VolubileOperator
from airflow_provider_volubile.tasks import fail_without_retry


class AgentState(TypedDict):
    """What :class:`VolubileUpdateAgentOperator` returns: the agent after the change."""

    id: str
    name: str | None
    type: str | None
    active: bool | None
    recordable: bool | None
    archived: bool | None


class VolubileUpdateAgentOperator(VolubileOperator):
    """Change an agent. Repeating it does no harm.

    API facts: `Patch agent <https://docs.volubile.ai/api-reference/agents/patch>`__. That only the named members
    change is assumed, so the agent is read before and after, and anything else that changed is an error.

    Returns an :class:`AgentState`.

    :param agent_id: the agent.
    :param changes: some of ``name``, ``active``, ``recordable``, ``archived``; such as ``{"active": False}``. Templates
        render to text, so ``"true"`` and ``"false"`` are understood too.
    """

    template_fields: Sequence[str] = ("agent_id", "changes", "volubile_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"changes": "json"}

    def __init__(
        self,
        *,
        agent_id: str,
        changes: Mapping[str, Any],
        volubile_conn_id: str = VolubileHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(volubile_conn_id=volubile_conn_id, **kwargs)
        self.agent_id = agent_id
        self.changes = changes

    @fail_without_retry()
    def execute(self, context: Context) -> AgentState:
        from airflow_provider_volubile.api import wire

        changes = wire.agent_body(_from_templates(self.changes))
        client = self.hook.client()
        try:
            before = client.get_agent(self.agent_id)
        except VolubileNotFound:
            raise VolubileInputError(f"agent_id {self.agent_id!r}: this account has no such agent.") from None
        client.update_agent(self.agent_id, changes)
        after = client.get_agent(self.agent_id)
        for name in wire.AGENT_CHANGES:
            wanted = changes.get(name, getattr(before, name))
            if getattr(after, name) != wanted:
                raise VolubileProtocolError(
                    f"After the change, {name!r} of agent {self.agent_id} is {getattr(after, name)!r} and not "
                    f"{wanted!r}. Check the agent in Volubile's dashboard.",
                    operation="updateAgent",
                )
        self.log.info("Agent %s (%s): %s", self.agent_id, after.name, changes)
        return AgentState(
            id=after.id,
            name=after.name,
            type=after.type,
            active=after.active,
            recordable=after.recordable,
            archived=after.archived,
        )


def _from_templates(changes: Any) -> dict[str, Any]:
    """The changes, with the text that a template renders for a truth value read as one."""
    if not isinstance(changes, Mapping):
        raise VolubileInputError(
            f"changes is a {type(changes).__name__}; expected an object, such as {{'active': False}}."
        )
    truth = {"true": True, "false": False}
    return {
        name: truth.get(value.strip().lower(), value) if isinstance(value, str) and name != "name" else value
        for name, value in changes.items()
    }
