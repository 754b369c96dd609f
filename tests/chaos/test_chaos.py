"""The short form of the chaos suite; ``make chaos`` runs the long one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.run import World, world

# Both tests share one Airflow. Time decides nothing: a storm ends when it has delivered its injections.
pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("chaos"), pytest.mark.timeout(1800)]

SEED = 7


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world(seed=SEED) as running:
        yield running


def test_a_storm_calls_nobody_twice_and_loses_nobody(here: World) -> None:
    report = here.storm(60)
    assert int(report.tally) >= 60
    assert not report.tally.untouched, str(report)
    assert report.verdict.is_good, str(report)


def test_a_storm_without_the_journal_calls_somebody_twice(here: World) -> None:
    report = here.storm_without_journal(200)
    assert report.verdict.duplicates, str(report)
