"""The table of outcomes: one row per recipient of a submission, dialled or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.exports.columns import OUTCOMES
from airflow_provider_volubile.exports.files import write_table
from airflow_provider_volubile.waiting.outcomes import REFUSED, outcomes
from airflow_provider_volubile.waiting.poll_round import poll_once

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.calling.schedule import Redial
    from airflow_provider_volubile.waiting.watches import Watch


def write_outcomes(
    path: str,
    client: VolubileClient,
    watches: Sequence[Watch],
    phones: Iterable[str],
    *,
    redial: Redial,
    refused: Mapping[str, str],
    counts: Mapping[str, int],
) -> None:
    """Poll once more, and write what became of everybody.

    :param path: its suffix names the format: ``.jsonl.gz``, ``.parquet`` or ``.csv``.
    :param watches: what the submission waited for.
    :param phones: the recipients' numbers, in the order of the rows.
    :param refused: why the service did not take some of them, by number.
    :param counts: people by outcome, as the wait ended; rows that tell otherwise are not written.
    :raises VolubileError: they do, the calls cannot be listed, or the store refused.
    """
    result = poll_once(client, watches, now=datetime.now(UTC))
    if error := result.fault or next((watch.error for watch in watches if watch.error), None):
        raise error
    attempts = [attempt for watch in watches for attempt in watch.attempts]
    rows = outcomes(phones, attempts, redial, refused=refused)
    listed = Counter(row["status"] for row in rows if row["status"] != REFUSED)
    if listed != Counter(counts):
        raise VolubileError(
            f"The list of calls shows {dict(listed)}, but the wait ended with {dict(counts)}: it is late, or somebody "
            "was called meanwhile. Nothing was written; another try lists them again and calls no one."
        )
    write_table(path, rows, OUTCOMES)
