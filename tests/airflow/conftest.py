"""Real Airflow: a migrated metadata database, Dags run by ``dag.test()``, and what they left behind."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_provider_volubile.simulator import Simulator
from tests.live import connection_json


@pytest.fixture
def connection(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default connection, to the simulator, with both keys."""
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", connection_json(simulator))
    return "volubile_default"


@dataclass
class Ran:
    """A Dag run that is over."""

    run: Any

    @property
    def state(self) -> str:
        return str(self.run.state)

    def task(self, task_id: str, map_index: int = -1) -> Any:
        return self.run.get_task_instance(task_id, map_index=map_index)

    def xcom(self, task_id: str, map_index: int = -1) -> Any:
        from airflow.models.xcom import XComModel
        from airflow.sdk.serde import deserialize
        from airflow.utils.session import create_session

        with create_session() as session:
            row = session.scalars(
                XComModel.get_many(
                    run_id=self.run.run_id,
                    dag_ids=self.run.dag_id,
                    task_ids=task_id,
                    map_indexes=map_index,
                    key="return_value",
                ).with_only_columns(XComModel.value)
            ).first()
        return None if row is None else deserialize(json.loads(row) if isinstance(row, str) else row)


RunDag = Callable[..., Ran]


def store(dag: DAG) -> None:
    """Write a Dag that stands in no file to the database, as the Dag processor would."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


@pytest.fixture
def run_dag(metadata_database: None, connection: str) -> RunDag:
    """Run a Dag, or one operator made by a function, to its end in this process."""

    def run(make: Callable[[], BaseOperator | None], **conf: Any) -> Ran:
        with DAG(f"test_{uuid.uuid4().hex[:12]}", schedule=None) as dag:
            make()
        store(dag)
        return Ran(dag.test(run_conf=conf or None))

    return run
