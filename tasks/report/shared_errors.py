"""The report's part on judges: where two of them are wrong together, and what to beware of in the cascade."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import polars as pl

from tasks.formatting import percent
from tasks.report.parts.add_up import Sums
from tasks.report.parts.errors import KNOWN, LABELS, PEOPLE, labels_of
from tasks.report.parts.tallies import PASSED
from tasks.schemas import SHARED_ERRORS
from tasks.verdicts.shared_errors import ALL, FEWEST, KINDS, compare_errors

_MOST = 12  # kinds of pairs shown


@dataclass(frozen=True)
class CommonErrors:
    """Errors that judges have in common.

    measured_by: people | known | the name of the last tier, by whose verdicts the others are measured; empty where
        nothing could be measured.
    rows: rows of `tasks.schemas.SHARED_ERRORS`: all pairs first, then the kinds of pairs with the largest excess.
    """

    measured_by: str
    rows: tuple[Mapping[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the entry of summary.json; empty where nothing was measured."""
        rows = [dict(row) for row in self.rows]
        return {"shared_errors": {"measured_by": self.measured_by, "rows": rows}} if rows else {}

    @property
    def sentences(self) -> list[str]:
        """Name the judges that are wrong together more often than by chance, surely (95%), over all pairs."""
        return [
            f"{row['first']} and {row['second']} are wrong together on {percent(row['both_wrong'])} of "
            f"{row['pairs']:,} pairs, by chance it would be {percent(row['by_chance'])}: their agreement proves less "
            "than it seems."
            for row in self.rows
            if row["kind"] == ALL and row["excess_low"] is not None and row["excess_low"] > 0
        ]


def find_common_errors(judges: Sequence[str], sums: Sums) -> CommonErrors:
    """Compare judges by people's labels, by the known false negatives, or by the last tier, whichever comes first.

    Args:
        judges: in the order asked, similarity first. A judge that decides nothing is left out.
        sums: of all parts.
    """
    compared = [name for name in judges if sums.decides(name)]
    measured_by = next((by for by in (PEOPLE, KNOWN) if sums.count(LABELS, by) >= FEWEST), "")
    labels = measured_by
    if not measured_by and compared:
        measured_by = compared.pop()
        labels = labels_of(measured_by)
    both = pl.col("first").is_in(compared) & pl.col("second").is_in(compared)
    rows = _compare(sums.errors.filter(pl.col("by") == labels, both), compared)
    if rows.is_empty():
        return CommonErrors("", ())
    excess = pl.col("both_wrong") - pl.col("by_chance")
    every = rows.filter(pl.col("kind") == ALL)
    kinds = rows.filter(pl.col("kind") != ALL, excess > 0).sort("excess_low", descending=True, nulls_last=True)
    return CommonErrors(measured_by, tuple([*every.to_dicts(), *kinds.head(_MOST).to_dicts()]))


def _compare(errors: pl.DataFrame, judges: Sequence[str]) -> pl.DataFrame:
    """Return SHARED_ERRORS of each two judges, all pairs first. What tells nothing apart is left out."""
    rows = []
    for first, second in combinations(judges, 2):
        of_both = errors.filter(pl.col("first") == first, pl.col("second") == second)
        for kind in (ALL, *KINDS):
            found = of_both.filter(pl.col("kind") == kind).partition_by("value", as_dict=True)
            if kind != ALL and len(found) < 2:  # noqa: PLR2004 - of one kind alone nothing is told apart
                continue
            for (value,), counts in sorted(found.items()):
                compared = compare_errors(counts)
                if compared.pairs >= FEWEST:
                    rows.append((first, second, kind, value, *compared))
    return pl.DataFrame(rows, schema=SHARED_ERRORS.columns, orient="row")


def say_passed_on(judges: Sequence[str], sums: Sums, warn_shares: Mapping[str, float]) -> list[str]:
    """Warn of each tier that is asked about more than a share of what the tier before judged.

    Args:
        judges: in the order asked, similarity first.
        sums: of all parts.
        warn_shares: by tier, the share above which a warning is due (`escalate.warn_share`).
    """
    said = []
    for before, tier in pairwise(judges):
        judged, passed = sums.judged(before), sums.count(PASSED, before, tier)
        share = passed / judged if judged else 0.0
        if share > warn_shares.get(tier, 1.0):
            said.append(
                f"{before} passes {passed:,} of {judged:,} pairs ({percent(share)}) on to {tier}, more than "
                f"{percent(warn_shares[tier])} (escalate.warn_share): it saves little. A calibration "
                "(reneg calibrate) with decide: {precision: …}, escalate.lower and upper, or max_share passes on fewer."
            )
    return said
