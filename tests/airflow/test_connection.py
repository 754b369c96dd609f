"""The connection through Airflow's own commands, with connections in the metadata database."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from airflow_provider_volubile.simulator import Simulator

pytestmark = pytest.mark.airflow

# Several commands in one process: starting Airflow is what takes the time.
RUN = """
import json, sys
from airflow.__main__ import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["airflow", *command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            print(f"It ended with {end.code}.")
"""


def airflow(*commands: str) -> str:
    """Run commands one after the other; return all they printed, on one line: consoles wrap."""
    environment = os.environ | {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled", "COLUMNS": "200"}
    result = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([command.split(" ") for command in commands])],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return " ".join(result.stdout.split())


def test_airflow_knows_the_provider_and_has_nothing_to_complain_about(metadata_database: None) -> None:
    printed = airflow(
        "providers list",
        "providers get airflow-provider-volubile --full",
        "providers hooks",
        "providers widgets",
        "providers behaviours",
        "providers triggers",
    )
    for shown in (
        "airflow-provider-volubile | Telephone campaigns",
        "volubile | airflow_provider_volubile.hooks.volubile.VolubileHook | volubile_conn_id",
        "extra__volubile__secondary_api_key | airflow_provider_volubile.hooks.volubile.VolubileHook",
        "airflow_provider_volubile.triggers.campaigns",
    ):
        assert shown in printed
    for complaint in ("warning", "error", "exception", "deprecat", "traceback", "it ended with"):
        assert complaint not in printed.lower()


def test_stored_connections_are_tested_from_the_command_line(metadata_database: None, simulator: Simulator) -> None:
    primary, secondary = simulator.primary_key, simulator.secondary_key
    by_uri = f"{simulator.url.replace('http://', f'volubile://http://:{primary}@')}/?secondary_api_key={secondary}"
    fields = {
        "conn_type": "volubile",
        "host": simulator.url,
        "password": primary,
        "extra": {"secondary_api_key": secondary, "auth": "bearer"},
    }
    by_json = json.dumps(fields, separators=(",", ":"))
    printed = airflow(
        f"connections add by_uri --conn-uri {by_uri}",
        f"connections add by_json --conn-json {by_json}",
        "connections test by_uri",
        "connections test by_json",
    )
    assert printed.count("Connection success!") == 2, printed
    used = list(dict.fromkeys((request["operation"], request["credential"]) for request in simulator.requests()))
    assert used == [
        ("listAgents", "primary"),
        ("listAgents", "secondary"),
        ("issueToken", "primary"),
        ("listAgents", "token"),
        ("issueToken", "secondary"),
    ]

    simulator.revoke_key("primary")
    told = airflow(
        "connections test by_uri",
        "connections test by_json",
        "connections delete by_uri",
        "connections delete by_json",
    )
    assert told.count("Connection failed! The primary API key is refused (401)") == 2, told
    assert told.count("The secondary API key works") == 2
    assert told.count("It ended with 1.") == 2
    for key in (primary, secondary):
        assert key not in told
