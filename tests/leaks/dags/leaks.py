"""Every operator, sensor, trigger and notifier, in success and in failure, with planted people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator, task

from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.notifications.call import VolubileCallNotifier
from airflow_provider_volubile.operators.agents import VolubileUpdateAgentOperator
from airflow_provider_volubile.operators.calls import (
    VolubileBulkCallsOperator,
    VolubileCreateCallOperator,
    VolubileGetTranscriptOperator,
)
from airflow_provider_volubile.operators.campaigns import (
    VolubileCreateCampaignOperator,
    VolubileUpdateCampaignStatusOperator,
)
from airflow_provider_volubile.operators.exports import (
    VolubileExportCallsOperator,
    VolubileExportRecordingsOperator,
    VolubileExportTranscriptsOperator,
)
from airflow_provider_volubile.sensors.calls import VolubileCallsSensor
from airflow_provider_volubile.sensors.campaigns import VolubileCampaignSensor
from airflow_provider_volubile.simulator import FOLLOW_UP_AGENT_ID, REMINDER_AGENT_ID
from airflow_provider_volubile.triggers.finished import VolubileFinishedCallTrigger
from tests.leaks import planted
from tests.leaks.careless import CarelessOperator

FOLDER = planted.folder()
OUTPUT = FOLDER / "output"
UNKNOWN_ID = "11111111-2222-3333-4444-555555555555"
CAMPAIGN: dict[str, Any] = {"name": "Winter tyres", "time_slots": ["09:00-12:00"], "agent_id": REMINDER_AGENT_ID}
CALLS: dict[str, Any] = {"agent_id": REMINDER_AGENT_ID, "default_region": "FR"}
# A busy Airflow may lose a task that resumes soon after it was deferred. Airflow then retries it, and we wait on.
AGAIN: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=1)}
SOON: dict[str, Any] = {"poll_interval": 1}


def dag(name: str, schedule: Any = None, **settings: Any) -> DAG:
    macros = {
        "people": lambda: [
            {"phone": phone, "note": f"or {phone}", "firstName": "Marc"} for phone in planted.rendered_numbers()[1:]
        ],
        "somebody": lambda: planted.rendered_numbers()[0],
        "briton": lambda: planted.british_numbers()[0],
        "another_briton": lambda: planted.british_numbers()[1],
        "no_number": (FOLDER / "rejected.txt").read_text,
    }
    native: dict[str, Any] = {"user_defined_macros": macros, "render_template_as_native_obj": True}
    return DAG(name, schedule=schedule, **native | settings)


def notifier(connection: str) -> VolubileCallNotifier:
    return VolubileCallNotifier(phone="{{ somebody() }}", volubile_conn_id=connection, **CALLS)


def works(connection: str, is_first: bool) -> None:
    """Run everything. Of two ways to wait, each of the two Dags uses one."""
    common: dict[str, Any] = {"volubile_conn_id": connection} | AGAIN
    output = OUTPUT / connection
    file = str(FOLDER / "people.csv")
    campaign = VolubileCreateCampaignOperator(
        task_id="campaign",
        recipients=file,
        outcomes_path=str(output / "campaign.jsonl.gz"),
        wait_for="transcript",
        deferrable=True,
        **(CAMPAIGN | SOON | common),
    )
    bulk = VolubileBulkCallsOperator(
        task_id="bulk",
        recipients="{{ people() }}",
        outcomes_path=str(output / "bulk.csv"),
        deferrable=True,
        **(CALLS | SOON | common),
    )
    call = VolubileCreateCallOperator(
        task_id="call",
        phone="{{ somebody() }}",
        call_context={"firstName": "Lucie", "reachable": "{{ somebody() }}"},
        deferrable=True,
        on_success_callback=notifier(connection),
        **(CALLS | SOON | common),
    )

    abroad = VolubileCreateCallOperator(
        task_id="abroad",
        phone="{{ briton() }}",
        call_context={"other": "{{ 'or ' ~ another_briton() }}"},
        deferrable=True,
        **(CALLS | {"default_region": "GB"} | SOON | common),
    )

    @task
    def hand_over() -> str:
        token = VolubileHook(connection).issue_token(["calls:read"])
        print(token, token.token)
        return repr(token)

    def in_its_worker() -> BaseOperator:
        if is_first:
            return VolubileCreateCampaignOperator(
                task_id="in_its_worker", recipients=file, **(CAMPAIGN | SOON | common)
            )
        return VolubileBulkCallsOperator(
            task_id="in_its_worker", recipients="{{ people() }}", submit_as="single", **(CALLS | SOON | common)
        )

    (
        [campaign, bulk, call, abroad]
        >> EmptyOperator(task_id="over")
        >> [
            hand_over(),
            in_its_worker(),
            VolubileCampaignSensor(
                task_id="campaign_sensor", campaign=campaign.output, poke_interval=1, deferrable=is_first, **common
            ),
            VolubileCallsSensor(
                task_id="calls_sensor", calls=bulk.output, poke_interval=1, deferrable=not is_first, **common
            ),
            VolubileGetTranscriptOperator(
                task_id="transcript", call_id="{{ ti.xcom_pull('call')['call_ids'][0] }}", **common
            ),
            VolubileExportCallsOperator(
                task_id="export_calls",
                output_path=str(output / "calls"),
                interval_start="{{ dag_run.run_after - macros.timedelta(days=1) }}",
                interval_end="{{ macros.datetime.now(macros.dateutil.tz.UTC) }}",
                **common,
            ),
            VolubileExportTranscriptsOperator(
                task_id="export_transcripts", calls=bulk.output, output_path=str(output / "transcripts"), **common
            ),
            VolubileExportRecordingsOperator(
                task_id="export_recordings", calls=bulk.output, output_path=str(output / "recordings"), **common
            ),
            VolubileUpdateCampaignStatusOperator(
                task_id="pause_campaign", campaign_id=campaign.output, status="PAUSED", **common
            ),
            VolubileUpdateAgentOperator(
                task_id="change_agent", agent_id=FOLLOW_UP_AGENT_ID, changes={"recordable": False}, **common
            ),
        ]
    )


for number, mode in enumerate(planted.MODES):
    with dag(f"works_with_{mode}"):
        works(mode, is_first=number == 0)


for connection in planted.MODES:
    trigger = VolubileFinishedCallTrigger(volubile_conn_id=connection, poll_interval=1)
    calls = Asset(f"calls_of_{connection}", watchers=[AssetWatcher(name=f"ended_{connection}", trigger=trigger)])
    with dag(f"starts_with_{connection}", schedule=[calls]):
        EmptyOperator(task_id="heard")

for connection in planted.WATCHED:
    trigger = VolubileFinishedCallTrigger(volubile_conn_id=connection, poll_interval=1)
    calls = Asset(f"calls_of_{connection}", watchers=[AssetWatcher(name=f"ended_{connection}", trigger=trigger)])
    with dag(f"waits_for_{connection}", schedule=[calls]):
        EmptyOperator(task_id="never")


def fails(connection: str, *only: str) -> None:
    """Run everything, or only some tasks, independently of each other."""
    people = {"recipients": str(FOLDER / "failing.csv"), "confirmation_timeout": 1}
    soon = {"timeout": 2, "poke_interval": 1}
    output = {"output_path": str(OUTPUT / connection)}
    handle: Any = {
        "kind": "campaign",
        "campaigns": [{"id": UNKNOWN_ID, "name": "Winter tyres", "recipients": 3}],
        "recipients": 3,
        "submitted_at": "2026-01-01T00:00:00+00:00",
        "redial": None,
    }
    operators: dict[str, tuple[type[BaseOperator], dict[str, Any]]] = {
        "campaign": (VolubileCreateCampaignOperator, CAMPAIGN | people | {"default_region": "FR"}),
        "bulk": (VolubileBulkCallsOperator, CALLS | people),
        "single": (VolubileBulkCallsOperator, CALLS | people | {"submit_as": "single", "deferrable": True}),
        "call": (
            VolubileCreateCallOperator,
            CALLS
            | {"phone": "{{ somebody() }}", "call_context": {"or": "{{ somebody() }}"}, "confirmation_timeout": 1},
        ),
        "campaign_sensor": (VolubileCampaignSensor, soon | {"campaign": handle, "deferrable": True}),
        "calls_sensor": (VolubileCallsSensor, soon | {"calls": [UNKNOWN_ID]}),
        "calls_deferred": (VolubileCallsSensor, soon | {"calls": [UNKNOWN_ID], "deferrable": True}),
        "transcript": (VolubileGetTranscriptOperator, {"call_id": UNKNOWN_ID, "timeout": 1, "poll_interval": 1}),
        "export_calls": (VolubileExportCallsOperator, output),
        "export_transcripts": (
            VolubileExportTranscriptsOperator,
            output | {"calls": UNKNOWN_ID, "transcript_timeout": 1, "max_missing": 0},
        ),
        "export_recordings": (VolubileExportRecordingsOperator, output | {"calls": UNKNOWN_ID, "max_missing": 0}),
        "pause_campaign": (VolubileUpdateCampaignStatusOperator, {"campaign_id": UNKNOWN_ID, "status": "PAUSED"}),
        "change_agent": (VolubileUpdateAgentOperator, {"agent_id": UNKNOWN_ID, "changes": {"active": False}}),
    }
    for name, (operator, parameters) in operators.items():
        if not only or name in only:
            operator(task_id=name, volubile_conn_id=connection, **parameters)


for connection, only in planted.FAILING.items():
    # A Dag's callback holds up the Dag processor, so leave it out where the client retries for long.
    callback = notifier(connection) if connection in planted.NOTIFYING else None
    with dag(f"fails_with_{connection}", on_failure_callback=callback):
        fails(connection, *only)

with dag("fails_on_a_service_that_works"):
    lost = CALLS | {"volubile_conn_id": "lost", "recipients": str(FOLDER / "failing.csv"), "confirmation_timeout": 1}
    # The service drops the answers to these requests.
    VolubileCreateCampaignOperator(task_id="unknown", deferrable=True, **(lost | CAMPAIGN))
    VolubileBulkCallsOperator(task_id="asks", on_unknown="ask", **lost)
    known = CALLS | {"volubile_conn_id": "keys"}
    rejected = str(FOLDER / "rejected.csv")
    VolubileBulkCallsOperator(task_id="nobody_to_call", recipients=rejected, **(known | {"default_region": None}))
    VolubileBulkCallsOperator(task_id="no_path", recipients="{{ briton() }}", **(known | {"default_region": "GB"}))
    VolubileCreateCallOperator(task_id="no_number", phone="{{ no_number() }}", **known)
    # No call ends before these tasks end.
    VolubileBulkCallsOperator(task_id="too_long", recipients="{{ people() }}", timeout=1, **(known | SOON))
    VolubileCreateCampaignOperator(
        task_id="stopped",
        recipients=str(FOLDER / "people.csv"),
        deferrable=True,
        volubile_conn_id="keys",
        **(CAMPAIGN | SOON | AGAIN),
    )


# Leaks that the search must find, each in a different kind of place.
print(planted.spelled("parsing"))
with DAG(
    "careless",
    schedule=None,
    doc_md=str(planted.spelled("dag")),
    user_defined_macros={"shown": lambda: planted.spelled("rendered")},
):
    CarelessOperator(task_id="tells", shown="{{ shown() }}", outlets=[Asset("careless")], **AGAIN)

    @task
    def raises() -> None:
        raise ValueError(f"no answer: {planted.spelled('exception')}")

    raises()
