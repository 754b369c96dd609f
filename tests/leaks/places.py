"""Every place where Airflow stores or shows data, as texts with the name of their place."""

from __future__ import annotations

import gzip
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import requests
from cryptography.fernet import Fernet, InvalidToken
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from tests.live import LiveAirflow

Texts = Iterator[tuple[str, str]]

_FERNET = re.compile(r"gAAAA[\w-]{60,}={0,2}")
_EVERY = re.compile(r"/logs/|/{xcom_key|/{task_id}/{map_index}$|/state-store|{connection_id}|{variable_key")
_LEFT_OUT = re.compile(r"/login$|/logout$|/ui/calendar/")
_OWNERS = ("dag_id", "task_id", "map_index", "key", "conn_id", "classpath", "event", "connection_id")


def files(folder: Path, count: Counter[str], kind: str = "file") -> Texts:
    """Yield every file, also binary and compressed ones."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            count[f"{kind}s"] += 1
            count[f"bytes of {kind}s"] += len(content)
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            yield f"{kind} {path.relative_to(folder)}", content.decode("utf-8", "replace")


def database(path: Path, fernet_key: str, count: Counter[str], name: str = "db") -> Texts:
    """Yield every cell of every table, decrypted and decompressed."""
    fernet = Fernet(fernet_key)

    def decrypt(found: re.Match[str]) -> str:
        with suppress(InvalidToken):
            count["cells decrypted"] += 1
            return fernet.decrypt(found[0].encode()).decode("utf-8", "replace")
        return found[0]

    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in cursor.description]
            count["tables"] += 1
            count["columns"] += len(columns)
            for row in cursor:
                cells = dict(zip(columns, row, strict=True))
                count["rows"] += 1
                owner = " ".join(str(cells[column]) for column in _OWNERS if cells.get(column) is not None)
                for column, cell in cells.items():
                    if cell is not None:
                        yield f"{name} {table}.{column} {owner}", _FERNET.sub(decrypt, _text(cell))


def _text(cell: Any) -> str:
    if isinstance(cell, bytes):
        with suppress(zlib.error):
            cell = zlib.decompress(cell)
        return bytes(cell).decode("utf-8", "replace")
    return str(cell)


def answers(airflow: LiveAirflow, objects: Sequence[Mapping[str, Any]], count: Counter[str]) -> Texts:
    """Yield the answers of all GET routes of Airflow's REST API and of its UI's API.

    Each route is asked about one object of each kind of Dag. Routes that show what tasks leave behind are asked about
    every task.

    :param objects: parameters of paths and queries; one mapping for each task instance, XCom…
    """
    urls: dict[tuple[str, str], str] = {}
    routes = set()
    for path, options in read_routes():
        for number, names in enumerate(objects):
            if url := _url(path, options, names):
                kind = str(names.get("dag_id", number)).partition("_with_")[0]
                urls.setdefault((path, url if _EVERY.search(path) else kind), url)
                routes.add(path)
    count["REST routes"] += len(routes)
    token = {"Authorization": f"Bearer {airflow.token()}"}

    with requests.Session() as session, ThreadPoolExecutor(4) as threads:
        # SQLite may be locked for a moment: Airflow then answers 500.
        patience = Retry(3, status_forcelist=(500,), backoff_factor=1, raise_on_status=False)
        session.mount("http://", HTTPAdapter(pool_maxsize=4, max_retries=patience))

        def ask(url: str) -> tuple[str, requests.Response]:
            return url, session.get(airflow.url + url, headers=token, timeout=120)

        for url, answer in threads.map(ask, sorted(set(urls.values()))):
            count["REST answers"] += 1
            count[f"REST answers {answer.status_code}"] += 1
            count["bytes answered"] += len(answer.content)
            yield f"rest {url}", f"{dict(answer.headers)}\n{answer.text}"


def read_routes() -> list[tuple[str, frozenset[str]]]:
    """Return all GET routes: the path, with ``{parameters}``, and the names of its query parameters.

    The routes come from the routers, since ``openapi.json`` lacks the routes of the UI. Left out are login and logout,
    which would end the search, and the calendar, which fails on runs without a logical date in Airflow 3.3.
    """
    from airflow.api_fastapi.core_api.routes.public import public_router
    from airflow.api_fastapi.core_api.routes.ui import ui_router
    from fastapi.routing import APIRoute

    return [
        (route.path, frozenset(option.alias for option in route.dependant.query_params))
        for router in (public_router, ui_router)
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in route.methods and not _LEFT_OUT.search(route.path)
    ]


def objects(database: Path) -> list[dict[str, Any]]:
    """Return the parameters of every object that a route can show or list."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row

        def rows(query: str) -> list[dict[str, Any]]:
            return [dict(row) for row in connection.execute(query)]

        task = "dag_id, run_id, run_id AS dag_run_id, task_id, map_index"
        everything = {"dag_id": "~", "dag_run_id": "~", "task_id": "~", "limit": 1000}
        return [
            {"limit": 1000},
            everything,
            *rows(f"SELECT {task}, max(try_number, 1) AS try_number, 'true' AS full_content FROM task_instance"),
            *rows(f"SELECT {task}, key AS xcom_key, 'true' AS stringify FROM xcom"),
            *rows("SELECT dag_id, run_id, run_id AS dag_run_id, run_id AS run_ids, 1 AS interval FROM dag_run"),
            *rows("SELECT dag_id, version_number FROM dag_version"),
            *rows("SELECT conn_id AS connection_id FROM connection"),
            *rows("SELECT key AS variable_key FROM variable"),
            *rows("SELECT id AS asset_id FROM asset"),
            *rows("SELECT pool AS pool_name FROM slot_pool"),
            *rows("SELECT id AS import_error_id FROM import_error"),
        ]


def _url(path: str, options: frozenset[str], names: Mapping[str, Any]) -> str | None:
    """Fill in the parameters of a route; return None if ``names`` lacks one of them."""
    needed = set(re.findall(r"{(\w+)", path))
    if not needed <= names.keys():
        return None
    filled = re.sub(r"{(\w+)(?::\w+)?}", lambda found: quote(str(names[found[1]]), safe="~"), path)
    query = {name: names[name] for name in sorted(options & names.keys() - needed)}
    return f"{filled}?{urlencode(query)}" if query else filled
