"""The agents of the simulated account. Their ids are fixed, so tests and examples can name them."""

from __future__ import annotations

from typing import Any

#: Outbound, active, records its calls.
REMINDER_AGENT_ID = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
#: Outbound, active, does not record.
FOLLOW_UP_AGENT_ID = "8c4d1f0a-3e57-4b1d-a7c2-91d6e0b45f21"
#: Inbound: cannot be used to dial.
RECEPTION_AGENT_ID = "2e9b7d14-6c08-4f5a-b3e1-0d87c5a2f632"
#: Outbound, but not active.
INACTIVE_AGENT_ID = "d17a6e93-52bf-4c86-8f04-7ba3e19c0d43"
#: Outbound, active, but archived.
ARCHIVED_AGENT_ID = "f6308b2d-9e41-4d7c-95ab-c2e05f71d854"

_EXTRACTORS = [
    {
        "name": "visit",
        "description": "What the customer agreed to",
        "extractors": [
            {"name": "day", "description": "Day of the visit"},
            {"name": "remarks", "description": "What the garage should know"},
        ],
    }
]
_CLASSIFIERS = [
    {
        "name": "outcome",
        "description": "How the call ended for the garage",
        "values": ["confirmed", "moved", "refused"],
    }
]


def _agent(agent_id: str, name: str, number: str, **changes: Any) -> dict[str, Any]:
    agent = {
        "id": agent_id,
        "name": name,
        "type": "OUTBOUND",
        "active": True,
        "recordable": True,
        "archived": False,
        "telephonyConfiguration": {"phoneNumbers": [number], "sipConnection": None},
        "configuration": {"extractors": _EXTRACTORS, "classifiers": _CLASSIFIERS},
    }
    return agent | changes


def initial_agents() -> dict[str, dict[str, Any]]:
    """Return the agents at start, by id, each as the API shows it."""
    agents = [
        _agent(REMINDER_AGENT_ID, "Garage appointment reminder", "+33199001201"),
        _agent(FOLLOW_UP_AGENT_ID, "Garage follow-up", "+33199001202", recordable=False),
        _agent(
            RECEPTION_AGENT_ID,
            "Garage reception",
            "+33199001203",
            type="INBOUND",
            telephonyConfiguration={"phoneNumbers": ["+33199001203"], "sipConnection": {"did": "4071120"}},
        ),
        _agent(INACTIVE_AGENT_ID, "Summer check", "+33199001204", active=False),
        _agent(ARCHIVED_AGENT_ID, "Winter tyres (old)", "+33199001205", archived=True),
    ]
    return {agent["id"]: agent for agent in agents}
