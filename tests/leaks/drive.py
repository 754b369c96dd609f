"""Run everything in a whole Airflow, then search everything that Airflow stores and shows."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import requests
from cryptography.fernet import Fernet

from airflow_provider_volubile.simulator import Simulator
from tests.leaks import places, planted
from tests.leaks.search import Hit, Search, token_secrets
from tests.leaks.servers import Echo, Listener
from tests.live import LiveAirflow

ROOT = Path(__file__).parents[2]
WORKING = [f"works_with_{mode}" for mode in planted.MODES]
FAILING = [f"fails_with_{connection}" for connection in planted.FAILING]
#: Dags whose notifier calls a person, on success or failure, through a service that can receive the request.
NOTIFIED = {*WORKING, *(f"fails_with_{connection}" for connection in planted.NOTIFYING if "echo" in connection)}
#: Dags that run when calls have ended.
STARTED = {f"starts_with_{mode}" for mode in planted.MODES}
FAULTY = "fails_on_a_service_that_works"
CARELESS = "careless"
UNFINISHED = (None, "scheduled", "queued", "running", "deferred", "up_for_retry", "restarting")
#: Tasks that are deferred at the same time, while the test copies the database.
WAITING = [
    *((dag, task) for dag in WORKING for task in ("campaign", "bulk", "call", "abroad")),
    (FAULTY, "stopped"),
    (CARELESS, "tells"),
]
_DEBUG = re.compile(r'"level":"debug"|\[debug ')
#: Only connections may hold keys, stored ones and those to be tested: Airflow encrypts them. Only exported files may
#: hold numbers.
KEYS_ALLOWED = re.compile(r"(db|waiting) (connection|connection_test_request)\.(password|extra) ")
NUMBERS_ALLOWED = re.compile(r"export ")


@dataclass
class Found:
    """The results of a run.

    :param hits: all hits, also the intended ones.
    :param count: counts of what was searched.
    :param states: state of every task, by Dag and task.
    :param triggers: classes of the triggers that were in the database while tasks waited.
    :param watchers: connections whose watchers logged a fault.
    :param told: requests that the failing services received.
    :param notified: Dags whose notifier tried to call a person.
    :param tokens: tokens that went over the wire.
    :param tested: answers of the connection tests.
    :param rendered: rendered fields as the REST API shows them, by Dag and task.
    """

    hits: list[Hit] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)
    states: dict[tuple[str, str], str] = field(default_factory=dict)
    triggers: set[str] = field(default_factory=set)
    watchers: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    notified: set[str] = field(default_factory=set)
    tokens: list[str] = field(default_factory=list)
    tested: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rendered: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def echoed_tokens(self) -> list[str]:
        """Tokens that a failing service received, and so repeated."""
        return [token for token in self.tokens if any(token in told for told in self.told)]

    @property
    def leaks(self) -> list[Hit]:
        """Hits that are leaks."""
        return [hit for hit in self.hits if not hit.what.startswith("canary") and not self._is_allowed(hit)]

    def places_of(self, canary: planted.Canary, what: str) -> set[str]:
        """Return the places where the search found the ``secret`` or the ``number`` of a canary."""
        return {hit.place for hit in self.hits if hit.what == f"canary {canary.name} {what}"}

    def report(self) -> str:
        """Return the figures as text."""
        count, states = self.count, Counter(self.states.values())
        controls = {hit.what for hit in self.hits if hit.what.startswith("canary")}
        return f"""\
planted    {len(planted.KEYS)} API keys, {len(self.tokens)} tokens, {len(planted.NUMBERS)} numbers
driven     {len(self.states)} tasks: {states["success"]} succeeded, {states["failed"]} failed
           {len(self.tested)} tests of connections; {len(self.told)} requests that a service repeated in its answer
searched   {count["files"]} files: logs, output of the components, the database; {count["bytes of files"]:,} bytes,
           {count["lines at DEBUG"]:,} lines of them at DEBUG level
           {count["tables"]} tables, while tasks waited and after: {count["columns"]} columns, {count["rows"]:,} rows
           {count["REST answers"]} REST answers of {count["REST routes"]} routes; {count["bytes answered"]:,} bytes
           {count["exports"]} exported files, for secrets
controls   {2 * len(planted.CANARIES)} secrets and numbers leaked on purpose; {len(controls)} found
hits       {len(self.leaks)}
"""

    @staticmethod
    def _is_allowed(hit: Hit) -> bool:
        if hit.what in planted.KEYS:
            return bool(KEYS_ALLOWED.match(hit.place))
        return hit.what != "token" and bool(NUMBERS_ALLOWED.match(hit.place))


def drive_and_search(folder: Path) -> Found:
    """Run everything, then search. This takes about a minute.

    :param folder: an empty folder.
    """
    found = Found()
    home, people = folder / "airflow", folder / "people"
    home.mkdir(parents=True)
    people.mkdir()
    planted.write_files(people)
    fernet_key = Fernet.generate_key().decode()
    Thread(target=places.read_routes).start()  # takes seconds to import, while other processes start
    environment = {
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        "AIRFLOW__CORE__FERNET_KEY": fernet_key,
        "AIRFLOW__CONNECTION_TEST__TIMEOUT": "600",
        "AIRFLOW__CORE__PARALLELISM": "12",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
        "LEAKS_FOLDER": str(people),
        "PYTHONPATH": str(ROOT),
    }
    with _services() as services:
        database = home / "airflow.db"
        with LiveAirflow(home, ROOT / "tests" / "leaks" / "dags", environment=environment) as airflow:
            runs = _drive(airflow, services, people, found)
            found.tokens = services.listener.tokens + services.echo.tokens
            found.told = services.echo.told
            search = Search(_secrets(found.tokens), _numbers())

            def look(texts: places.Texts) -> None:
                for place, text in texts:
                    found.count["lines at DEBUG"] += len(_DEBUG.findall(text)) if place.startswith("file ") else 0
                    found.hits.extend(search.look(place, text))

            look(places.answers(airflow, places.objects(database), found.count))
            for dag, run in runs.items():
                for task in airflow.api("GET", f"/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]:
                    found.rendered[dag, task["task_id"]] = task["rendered_fields"]
    look(places.database(database, fernet_key, found.count))
    look(places.database(folder / "waiting.db", fernet_key, found.count, name="waiting"))
    look(places.files(home, found.count))
    look(places.files(people / "output", found.count, kind="export"))
    return found


@dataclass(frozen=True)
class _Services:
    """The services.

    :param works: a simulator whose calls end only after its speed is set.
    :param lost: a simulator that drops the connection of requests that dial.
    :param deaf: a bound socket that refuses connections, so that no other process gets its port.
    """

    works: Simulator
    lost: Simulator
    listener: Listener
    echo: Echo
    deaf: socket.socket

    def connections(self) -> Iterator[dict[str, Any]]:
        good, refused = (planted.PRIMARY, planted.SECONDARY), (planted.REFUSED_PRIMARY, planted.REFUSED_SECONDARY)
        yield _connection("keys", self.listener.url, *good)
        # Its first key is refused, so every process must fall back to the second.
        yield _connection("tokens", self.listener.url, planted.REFUSED_PRIMARY, planted.SECONDARY, auth="bearer")
        yield _connection("refused", self.listener.url, *refused)
        yield _connection("lost", self.lost.url, *good)
        yield _connection("unreachable", f"http://127.0.0.1:{self.deaf.getsockname()[1]}", *good)
        yield _connection("echo_400", f"{self.echo.url}/400", *good)
        yield _connection("echo_401", f"{self.echo.url}/401", *good)
        yield _connection("echo_503", f"{self.echo.url}/503", *good, auth="bearer")
        yield _connection("echo_200", f"{self.echo.url}/200", *good, auth="bearer")


def _connection(name: str, host: str, primary: str, secondary: str, auth: str = "api_key") -> dict[str, Any]:
    extra = json.dumps({"secondary_api_key": secondary, "auth": auth})
    return {"connection_id": name, "conn_type": "volubile", "host": host, "password": primary, "extra": extra}


@contextmanager
def _services() -> Iterator[_Services]:
    settings: dict[str, Any] = {"primary_key": planted.PRIMARY, "secondary_key": planted.SECONDARY}
    settings |= {"speed": 0, "ignore_windows": True, "limit": 100_000, "recording_answer": "redirect"}
    with ExitStack() as stack:
        works = stack.enter_context(Simulator(seed=11, **settings))
        works.outcomes({"*": ["COMPLETED"]})
        lost = stack.enter_context(Simulator(seed=12, **settings))
        for operation in ("createCampaign", "createBulkCalls"):
            lost.fault(operation, "drop", accept=False, times=None)
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        yield _Services(works, lost, stack.enter_context(Listener(works.url)), stack.enter_context(Echo()), deaf)


def _drive(airflow: LiveAirflow, services: _Services, people: Path, found: Found) -> dict[str, str]:
    """Run all Dags to their ends, and copy the database while most tasks wait. Return the runs, by Dag."""
    database = airflow.home / "airflow.db"

    def reached(tasks: Iterable[tuple[str, str]], *wanted: str) -> bool:
        found.states = _states(database)
        reached = {found.states.get(task) for task in tasks}
        assert reached <= {*wanted, *UNFINISHED}, {task: found.states.get(task) for task in tasks}
        return reached <= set(wanted)

    for connection in services.connections():
        airflow.api("POST", "/connections", json=connection)
    runs = {dag: airflow.trigger(dag) for dag in (*WORKING, FAULTY)}
    runs[CARELESS] = airflow.trigger(CARELESS, **planted.spelled("conf"))
    runs |= {dag: airflow.trigger(dag) for dag in FAILING}
    _be_careless(airflow)
    for connection in services.connections():
        name = connection["connection_id"]
        found.tested[name] = airflow.api("POST", "/connections/test", json=connection)
        if name in planted.MODES:  # also test the connection in a worker
            airflow.api("POST", "/connections/enqueue-test", json=connection)
    airflow.wait_until(lambda: reached(WAITING, "deferred"), 300)
    # A trigger that the triggerer has not started yet does not notice that its task was stopped.
    airflow.wait_until(lambda: any(airflow.home.glob("logs/*/*/task_id=stopped/*.trigger.*")), 120)
    with closing(sqlite3.connect(database)) as live, closing(sqlite3.connect(people.parent / "waiting.db")) as copy:
        live.backup(copy)
        found.triggers = {name.rpartition(".")[2] for (name,) in copy.execute("SELECT classpath FROM trigger")}
    with suppress(TimeoutError):  # a test reports missing watchers after the search
        airflow.wait_until(lambda: _watchers_that_complain(airflow.home) >= set(planted.WATCHED), 45)
    found.watchers = _watchers_that_complain(airflow.home)
    (people / "looked_at").touch()
    stopped = f"/dags/{FAULTY}/dagRuns/{runs[FAULTY]}/taskInstances/stopped"
    airflow.api("PATCH", stopped, json={"new_state": "failed"})
    airflow.wait_until(
        lambda: "PAUSED" in {campaign["status"] for campaign in services.works.state()["campaigns"]}, 120
    )
    airflow.wait_until(lambda: reached([(FAULTY, "too_long")], "failed"), 120)
    services.works.configure(speed=600)
    airflow.wait_until(lambda: reached([(FAULTY, "asks")], "awaiting_input"), 120)
    asks = f"/dags/{FAULTY}/dagRuns/{runs[FAULTY]}/taskInstances/asks/-1/hitlDetails"
    airflow.api("PATCH", asks, json={"chosen_options": ["Stop"], "params_input": {"id": ""}})
    for dag, run in runs.items():
        airflow.wait_for(dag, run, timeout=300)
    airflow.wait_until(lambda: _succeeded(database) >= STARTED, 120)
    # Callbacks of Dags run in the Dag processor, after their Dag.
    airflow.wait_until(lambda: _notified(services) >= NOTIFIED, 120)
    found.notified = _notified(services)
    airflow.wait_until(lambda: len(_tests_in_workers(database)) == len(planted.MODES), 120)
    found.tested |= _tests_in_workers(database)
    found.states = _states(database)
    return runs


def _notified(services: _Services) -> set[str]:
    """Return the Dags about which the services received a notifier's call."""
    about = "\n".join(str(call["context"]) for call in services.works.ledger()) + "\n".join(services.echo.told)
    return {dag for dag in (*WORKING, *FAILING) if re.search(rf"""["']dag_id["']: ?["']{dag}["']""", about)}


def _watchers_that_complain(home: Path) -> set[str]:
    """Return the connections whose watchers logged a fault."""
    said = "".join(re.findall(r"Volubile could not be asked for the calls .*", (home / "triggerer.log").read_text()))
    return {connection for connection in planted.WATCHED if f"Connection '{connection}'" in said}


def _be_careless(airflow: LiveAirflow) -> None:
    """Leak on purpose in the places that no task can reach."""
    airflow.api("POST", "/variables", json={"key": "careless", "value": str(planted.spelled("variable"))})
    login = {"connection_id": "careless", "conn_type": "volubile", "login": str(planted.spelled("login"))}
    airflow.api("POST", "/connections", json=login)
    requests.get(f"{airflow.url}/api/v2/version", params=planted.spelled("api_log"), timeout=60)


def _tests_in_workers(database: Path) -> dict[str, dict[str, Any]]:
    """Return the finished connection tests in workers."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        rows = connection.execute("SELECT connection_id, state, result_message FROM connection_test_request")
        return {
            f"{name}, in a worker": {"status": state == "success", "message": message}
            for name, state, message in rows
            if state in ("success", "failed")
        }


def _succeeded(database: Path) -> set[str]:
    """Return the Dags with a successful run."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        return {dag for (dag,) in connection.execute("SELECT dag_id FROM dag_run WHERE state = 'success'")}


def _states(database: Path) -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        rows = connection.execute("SELECT dag_id, task_id, state FROM task_instance")
        return {(dag, task): state for dag, task, state in rows}


def _secrets(tokens: Iterable[str]) -> dict[str, str]:
    return (
        {key: name for name, key in planted.KEYS.items()}
        | {token_secrets(token): "token" for token in tokens}
        | {canary.secret: f"canary {canary.name} secret" for canary in planted.CANARIES.values()}
    )


def _numbers() -> dict[str, str]:
    return planted.NUMBERS | {canary.number: f"canary {canary.name} number" for canary in planted.CANARIES.values()}
