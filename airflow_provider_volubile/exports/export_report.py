"""What became of each call of an export: it is there, or has a reason why not."""

from __future__ import annotations

from collections import Counter

from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileIncompleteExport,
    VolubileInputError,
    VolubileNotFound,
)
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.waiting.find_calls import CallRef


class ExportReport:
    """Counts what became of each call and tells the export's manifest why one is not there.

    :ivar calls: calls asked for.
    :ivar written: those in the export.
    :ivar none: those that never had what is exported.
    :ivar missing: those that should have it, and do not (yet).
    :ivar failed: those the service could not answer for.
    :ivar lost: of these, calls that an earlier run had, and whose rows this one cannot keep.
    """

    def __init__(self, export: Export) -> None:
        self._export = export
        self.calls = self.written = self.none = self.missing = self.failed = self.lost = 0
        self._reasons: Counter[str] = Counter()

    def add_none(self, ref: CallRef, reason: str) -> None:
        self._export.missing[ref.call_id] = reason
        self.none += 1

    def add_missing(self, ref: CallRef, reason: str) -> None:
        self._export.missing[ref.call_id] = reason
        self._reasons[reason] += 1
        self.missing += 1

    def add_error(self, ref: CallRef, error: VolubileError) -> None:
        """A call whose id is wrong or unknown is missing; any other error is a failure.

        A failure says nothing of the call: what an earlier run has of it stays.
        """
        if isinstance(error, VolubileInputError):
            self.add_missing(ref, "this is not the id of a call")
            return
        if isinstance(error, VolubileNotFound):
            self.add_missing(ref, "Volubile knows no such call, or it has nothing to give")
            return
        reason = f"{type(error).__name__}: {error}"
        if self._export.keep(ref.call_id):
            reason += " The file of an earlier run stays."
        else:
            self.lost += self._export.had(ref.call_id)
        self._export.missing[ref.call_id] = reason
        self._reasons[type(error).__name__] += 1
        self.failed += 1

    @property
    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("calls", "written", "none", "missing", "failed")}

    def __str__(self) -> str:
        parts = [f"{self.written} of {self.calls} written"]
        parts += [f"{count} {name}" for name, count in list(self.counts.items())[2:] if count]
        reasons = "; ".join(f"{count} × {reason}" for reason, count in self._reasons.most_common(5))
        return ", ".join(parts) + (f" ({reasons})" if reasons else "")

    def check(self, what: str, max_missing: int | None) -> None:
        """Check how much is missing.

        :param max_missing: so many may be missing or have failed; None: any number may be missing, none have failed.
        :raises VolubileIncompleteExport: more than that.
        """
        too_many = self.failed > 0 if max_missing is None else self.missing + self.failed > max_missing
        if too_many:
            raise VolubileIncompleteExport(
                f"{what}: {self}. What is there was written and is listed in {self._export.manifest}; a retry asks "
                "again. To go on without the rest, set max_missing."
            )
