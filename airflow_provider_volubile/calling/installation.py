"""What tells this Airflow from another one that uses the same Volubile account, such as staging beside production."""

from __future__ import annotations

import secrets

from airflow.sdk import Variable

INSTALLATION = "volubile_installation"


def installation_id() -> str:
    """A name for this Airflow, made once and kept in a Variable. It is part of the reference that calls carry."""
    if found := Variable.get(INSTALLATION, default=None):
        return str(found)
    Variable.set(
        INSTALLATION,
        secrets.token_hex(4),
        description="Tells calls of this Airflow from those of others on the same Volubile account. Do not change it.",
    )
    return str(Variable.get(INSTALLATION))  # another task may have written one meanwhile
