"""The runner of the examples fails on wrong pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_volubile.simulator import Simulator

from .blocks import read_page
from .running import Session

pytestmark = pytest.mark.airflow

DIALS = """
.. code-block:: python

   from airflow.sdk import dag
   from airflow_provider_volubile.operators.calls import VolubileCreateCallOperator

   def call(phone: str) -> VolubileCreateCallOperator:
       return VolubileCreateCallOperator(
           task_id="call", agent_id="5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10", phone=phone, poll_interval=1
       )

.. code-block:: python

   call("{phone}")
"""


@pytest.fixture
def run_page(tmp_path: Path, session: Callable[[str], Session]) -> Callable[..., Session]:
    def run(text: str, suffix: str = ".rst") -> Session:
        page = tmp_path / f"page{suffix}"
        page.write_text(text)
        ran = session("page")
        for block in read_page(page):
            ran.run(block)
        return ran

    return run


def block(language: str, text: str, comment: str = "") -> str:
    body = "\n".join(f"   {line}" for line in text.splitlines())
    above = f".. {comment}\n\n" if comment else ""
    return f"{above}.. code-block:: {language}\n\n{body}\n\n"


def test_tasks_of_an_example_dial(run_page: Callable[..., Session], simulator: Simulator) -> None:
    run_page(DIALS.format(phone="+33639980100"))
    assert [entry["phone"] for entry in simulator.ledger()] == ["+33639980100"]


def test_a_dag_that_is_only_parsed_does_not_dial(run_page: Callable[..., Session], simulator: Simulator) -> None:
    mark = ".. only parsed: it is an example\n\n.. code-block:: python\n\n   call"
    run_page(DIALS.format(phone="+33639980100").replace(".. code-block:: python\n\n   call", mark))
    assert simulator.ledger() == []


def test_commands_share_their_environment(run_page: Callable[..., Session]) -> None:
    run_page(block("console", "$ export GREETING=hello") + block("console", "$ echo $GREETING \\\n    you\nhello …u"))


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (block("python", "1 / 0"), "page.rst:3: ZeroDivisionError"),
        (block("python", "a b", "not run: wrong all the same"), "page.rst:5: SyntaxError"),
        (block("python", "pass", "not run"), "must say something"),
        (block("cobol", "DISPLAY 1"), "cannot be run"),
        (block("", "something"), "cannot be run"),
        (block("console", "$ false"), "ended with 1"),
        (block("console", "$ echo one\ntwo"), "'two', which was not printed"),
        (block("python", "print('one')") + block("text", "two", "output"), "'two', which was not printed"),
        (block("console", "no prompt"), "begins with '\\$ '"),
        (block("json", "{"), "JSONDecodeError"),
        (block("json", '{"conn_type": "volubile"}'), "VolubileInputError"),
        (block("json", '{"mine": {"conn_type": "volubile", "host": "http://far.example"}}'), "VolubileInputError"),
        (block("console", "$ export AIRFLOW_CONN_MINE='volubile://'"), "VolubileInputError"),
        (block("ini", "[operators]\ndefault_deferable = True"), "default_deferable is unknown"),
        (block("python", "import sys", "file: dags/volubile_campaign.py"), "not what dags/volubile_campaign.py says"),
        (DIALS.format(phone="0639"), "failed"),
    ],
)
def test_a_page_that_is_wrong_fails(run_page: Callable[..., Session], page: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        run_page(page)


def test_markdown_is_read_like_the_pages(run_page: Callable[..., Session]) -> None:
    with pytest.raises(AssertionError, match=r"page.md:2: ZeroDivisionError"):
        run_page("```python\n1 / 0\n```\n", suffix=".md")
    run_page("<!-- not run: it divides -->\n\n```python\n1 / 0\n```\n", suffix=".md")


def test_a_server_stays_until_the_page_ends(run_page: Callable[..., Session]) -> None:
    server = "$ python -m airflow_provider_volubile.simulator --port 8765"
    client = "$ python -c \"import urllib.request as r; r.urlopen('http://127.0.0.1:8765/_sim/state')\""
    run_page(block("console", server, "server: listening on") + block("console", client))
