"""The routes of agents."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from airflow_provider_volubile.simulator import bodies
from airflow_provider_volubile.simulator.incoming import (
    Incoming,
    Refused,
    json_response,
    no_body,
    page_response,
    paging,
    parse,
    path_id,
    sorting,
)
from airflow_provider_volubile.simulator.render import to_json

_SORTS = ("name", "type", "id")


def list_agents(incoming: Incoming) -> Response:
    page, size = paging(incoming.query)
    agents = list(incoming.state.agents.values())
    order = sorting(incoming, _SORTS, "name,ASC")
    agents.sort(key=lambda agent: agent[order[0]], reverse=order[1])
    shown = [to_json(agent) for agent in agents[(page - 1) * size : page * size]]
    return page_response(shown, page, size, len(agents))


def get_agent(incoming: Incoming) -> Response:
    return json_response(_agent(incoming))


def update_agent(incoming: Incoming) -> Response:
    agent = _agent(incoming)
    changes = parse(incoming, bodies.UpdateAgent)
    # Make a new object: calls in progress keep the agent as it was when they were accepted.
    changed = agent | changes.model_dump(exclude_unset=True)
    incoming.state.agents[agent["id"]] = changed
    match incoming.state.config.patch_answer:
        case "agent":
            return json_response(changed)
        case "empty":
            return no_body(200)
        case _:
            return no_body(204)


def _agent(incoming: Incoming) -> dict[str, Any]:
    agent = incoming.state.agents.get(path_id(incoming))
    if agent is None:
        raise Refused(404, "Agent not found")
    return agent
