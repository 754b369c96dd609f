"""A local simulator of Volubile, for developing and testing Dags. It makes no real calls.

Run it with ``python -m airflow_provider_volubile.simulator``, or from Python with :class:`Simulator`. The
server needs the extra ``airflow-provider-volubile[simulator]``; importing this package does not.
"""

from airflow_provider_volubile.simulator.agents import (
    ARCHIVED_AGENT_ID,
    FOLLOW_UP_AGENT_ID,
    INACTIVE_AGENT_ID,
    RECEPTION_AGENT_ID,
    REMINDER_AGENT_ID,
)
from airflow_provider_volubile.simulator.config import PRIMARY_KEY, SECONDARY_KEY
from airflow_provider_volubile.simulator.handle import LedgerEntry, LedgerSummary, Simulator, SimulatorError

__all__ = [
    "ARCHIVED_AGENT_ID",
    "FOLLOW_UP_AGENT_ID",
    "INACTIVE_AGENT_ID",
    "PRIMARY_KEY",
    "RECEPTION_AGENT_ID",
    "REMINDER_AGENT_ID",
    "SECONDARY_KEY",
    "LedgerEntry",
    "LedgerSummary",
    "Simulator",
    "SimulatorError",
]
