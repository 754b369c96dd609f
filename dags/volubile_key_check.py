"""Try both API keys of a connection every morning, and fail when one of them no longer works.

While one key works, tasks go on and at most log a warning. This Dag fails instead, so that a person notices before the
other key is replaced too. Give it the alert you use for other Dags.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_volubile.exceptions import VolubileAuthError
from airflow_provider_volubile.hooks.volubile import VolubileHook

CONNECTION = "volubile_default"


@dag(
    schedule="0 7 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Paris"),
    catchup=False,
    max_active_runs=1,
    tags=["volubile"],
)
def volubile_key_check():
    @task(retries=2, retry_delay=timedelta(minutes=10))  # an outage is not a refused key
    def check_keys() -> None:
        try:
            print(VolubileHook(CONNECTION).check_connection())
        except VolubileAuthError as error:  # a retry does not mend a key: fail at once
            raise AirflowFailException(str(error)) from error

    check_keys()


volubile_key_check()
