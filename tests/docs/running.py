"""Run the blocks of a page in order. They share variables, a folder, an environment and a simulator."""

from __future__ import annotations

import ast
import configparser
import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml
from airflow.sdk import DAG
from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_provider_volubile.hooks.volubile import VolubileHook
from tests.airflow.conftest import Ran, store
from tests.live import free_port

from .blocks import ROOT, TELLING, Block

PATIENCE = 300
PORT = "8765"  # port of the simulator in examples; another process may use it while the suite runs


class Session:
    """State that the blocks of one page share.

    :param folder: working folder of commands and code.
    :param environment: environment of commands; its ``AIRFLOW_HOME`` holds a migrated database.
    """

    def __init__(self, page: str, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.module = types.ModuleType(re.sub(r"\W", "_", f"example_{page}"))
        self.printed = ""
        self.ran: list[Ran] = []
        self._servers: list[subprocess.Popen[str]] = []
        self._port = str(free_port())

    def __enter__(self) -> Session:
        sys.modules[self.module.__name__] = self.module
        return self

    def __exit__(self, *_: object) -> None:
        sys.modules.pop(self.module.__name__, None)
        for server in self._servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()

    def run(self, block: Block) -> None:
        """Run or check a block, as its language and its mark say.

        :raises AssertionError: the block does not work; the message names its page and line.
        """
        if block.mark in TELLING:
            assert block.says, f"{block.where}: the mark '{block.mark}' must say something after a colon"
        try:
            if block.mark == "file":
                self._compare(block)
                return
            block = replace(block, text=block.text.replace(PORT, self._port))
            if block.mark == "not run":
                if block.language == "python":
                    ast.parse(block.text)
            elif block.mark == "output":
                _assert_shown(block.text.splitlines(), self.printed)
            elif block.mark == "server":
                self._serve(block)
            else:
                self._runner(block)(block)
        except Exception as error:
            raise AssertionError(f"{block.where}: {type(error).__name__}: {error}\n\n{block.text}") from error

    def _runner(self, block: Block) -> Callable[[Block], object]:
        runners: dict[str, Callable[[Block], object]] = {
            "python": self._python,
            "console": self._console,
            "bash": self._script,
            "shell": self._script,
            "json": self._json,
            "ini": _ini,
            "toml": lambda block: tomllib.loads(block.text),
            "yaml": lambda block: yaml.safe_load(block.text),
            "sql": self._sql,
        }
        assert block.language in runners, (
            f"a block of language {block.language!r} cannot be run: choose one of {', '.join(runners)}, "
            "or mark it as tests/docs/blocks.py describes"
        )
        return runners[block.language]

    # --- Python -----------------------------------------------------------------------------------------------------

    def _python(self, block: Block) -> None:
        if re.search(r"^def test_", block.text, re.MULTILINE):
            self._pytest(block.text)
            return
        # Put as many empty lines before the block as the page has, so that tracebacks name the page's lines.
        code = compile("\n" * (block.line - 1) + block.text, str(ROOT / block.page), "exec", dont_inherit=True)
        printed = io.StringIO()
        name = re.sub(r"\W+", "_", block.where)
        with (
            _dags_of(self.module) as dags,
            DAG(name, schedule=None, auto_register=False) as fragment,
            contextlib.redirect_stdout(printed),
        ):
            exec(code, self.module.__dict__)
        self.printed = printed.getvalue()
        if fragment.tasks:
            dags.add(fragment)
        for dag in sorted(dags, key=lambda dag: dag.dag_id):
            store(dag)
            if block.mark != "only parsed":
                self._run_dag(dag)

    def _run_dag(self, dag: DAG) -> None:
        ran = Ran(dag.test())
        self.ran.append(ran)
        failed = [f"{ti.task_id} {ti.state}" for ti in ran.run.get_task_instances() if ti.state != "success"]
        assert ran.state == "success", f"Dag {dag.dag_id}: {ran.state}: {', '.join(failed)}"

    def _pytest(self, text: str) -> None:
        file = self.folder / "test_example.py"
        file.write_text(text)
        self._command(f"{shlex.quote(sys.executable)} -m pytest -q -p no:cacheprovider -c /dev/null {file}")

    # --- commands ---------------------------------------------------------------------------------------------------

    def _console(self, block: Block) -> None:
        printed = []
        for command, shown in _commands(block.text):
            printed.append(self._command(command))
            _assert_shown(shown, printed[-1])
        self.printed = "".join(printed)

    def _script(self, block: Block) -> None:
        self.printed = self._command(block.text)

    def _command(self, command: str) -> str:
        """Run a command. Later commands see the variables that it exports."""
        left = self.folder / ".environment"
        script = f"set -euo pipefail\n{command}\nenv -0 > {shlex.quote(str(left))}\n"
        result = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert result.returncode == 0, f"{command}\nended with {result.returncode}:\n{result.stdout[-3000:]}"
        before = self.environment
        self.environment = dict(entry.split("=", 1) for entry in left.read_text().split("\0") if "=" in entry)
        for name in self.environment.keys() - before.keys() | {
            name for name, value in self.environment.items() if before.get(name) != value
        }:
            if name.startswith("AIRFLOW_CONN_"):
                check_connection(self.environment[name])
        return result.stdout

    def _serve(self, block: Block) -> None:
        [(command, _)] = _commands(block.text)
        log = self.folder / "server.log"
        with log.open("w") as file:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        self._servers.append(server)
        deadline = time.monotonic() + PATIENCE
        while block.says not in log.read_text():
            assert server.poll() is None, f"it ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"it did not print {block.says!r}:\n{log.read_text()}"
            time.sleep(0.1)
        self.printed = log.read_text()

    # --- data -------------------------------------------------------------------------------------------------------

    def _json(self, block: Block) -> None:
        data = json.loads(block.text)
        connections = [data, *data.values()] if isinstance(data, dict) else []
        for connection in connections:
            if isinstance(connection, dict) and "conn_type" in connection:
                check_connection(json.dumps(connection))

    def _sql(self, block: Block) -> None:
        import duckdb

        self.printed = str(duckdb.sql(block.text.replace("{folder}", str(self.folder))))

    def _compare(self, block: Block) -> None:
        lines = [line.strip() for line in (ROOT / block.says).read_text("utf-8").splitlines()]
        wanted = [line.strip() for line in block.text.splitlines()]
        assert any(lines[start : start + len(wanted)] == wanted for start in range(len(lines))), (
            f"this is not what {block.says} says"
        )


def check_connection(value: str) -> None:
    """Fail unless the hook accepts a connection, given as JSON or as a URI."""
    is_ours = re.search(r'"conn_type":\s*"volubile"|^volubile:', value)
    if is_ours:
        os.environ["AIRFLOW_CONN_EXAMPLE"] = value
        try:
            assert VolubileHook("example").settings.base_url
        finally:
            del os.environ["AIRFLOW_CONN_EXAMPLE"]


@contextlib.contextmanager
def _dags_of(module: types.ModuleType) -> Iterator[set[DAG]]:
    """Collect the Dags that the block defines, as the Dag processor does."""
    found: set[DAG] = set()
    DagContext.autoregistered_dags.clear()
    DagContext.current_autoregister_module_name = module.__name__
    known = {id(value) for value in vars(module).values()}
    try:
        yield found
        found |= {dag for dag, _ in DagContext.autoregistered_dags}
        found |= {value for value in vars(module).values() if isinstance(value, DAG) and id(value) not in known}
    finally:
        DagContext.current_autoregister_module_name = None
        DagContext.autoregistered_dags.clear()


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Return the commands after ``$`` (continued by a backslash), each with the output lines shown below it."""
    command: list[str] = []
    shown: list[str] = []
    for line in text.splitlines():
        if command and command[-1].endswith("\\") and not shown:
            command.append(line)
        elif line.startswith("$ "):
            if command:
                yield "\n".join(command), shown
            command, shown = [line[2:]], []
        elif command:
            shown.append(line)
        else:
            assert not line.strip() or line.startswith("#"), f"a console block begins with '$ ': {line!r}"
    assert command, "a console block needs a command: a line that begins with '$ '"
    yield "\n".join(command), shown


def _assert_shown(shown: list[str], printed: str) -> None:
    """Fail unless the output holds the lines in order. Spaces do not count, and … stands for anything."""
    printed = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    at = 0
    for line in filter(str.strip, shown):
        pattern = r"\s+".join(map(re.escape, line.split())).replace("…", ".*?").replace(r"\.\.\.", ".*?")
        match = re.compile(pattern).search(printed, at)
        assert match, f"the page shows {line!r}, which was not printed:\n{printed[-3000:]}"
        at = match.end()


def _ini(block: Block) -> None:
    """Fail unless Airflow knows every option of a part of airflow.cfg."""
    from airflow.configuration import conf

    parser = configparser.ConfigParser()
    parser.read_string(block.text)
    for section in parser.sections():
        for option in parser[section]:
            assert option in conf.configuration_description[section]["options"], f"[{section}] {option} is unknown"
