"""The report's part on judges: where two of them are wrong together, and what to beware of in the cascade."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from tasks.agreement import SURE
from tasks.formatting import percent
from tasks.schemas import HUMAN_JUDGE, SOURCE_JUDGE
from tasks.verdicts.pairs import PAIR
from tasks.verdicts.shared_errors import ALL, FEWEST, deciding, kinds_of_pairs, shared_errors

SIMILARITY = "similarity"
_MOST = 12  # kinds of pairs shown
_RELEVANT = pl.col("state") == "relevant"


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


def find_common_errors(
    verdicts: Mapping[str, pl.DataFrame],
    *,
    candidates: pl.DataFrame,
    decisions: pl.DataFrame,
    lengths: pl.DataFrame,
    known: pl.DataFrame,
) -> CommonErrors:
    """Compare judges by people's labels, by the known false negatives, or by the last tier, whichever comes first.

    Args:
        verdicts: VERDICTS by judge, in the order asked. A judge that decides nothing is left out.
        candidates: a table of CANDIDATES.
        decisions: of the curation; people's labels are those whose judge is `human:<n>`.
        lengths: a table of LENGTHS.
        known: a table of KNOWN. They are all relevant, so by them only misses are seen.
    """
    judges = deciding(verdicts)
    by_people = pl.col("judge").str.starts_with(f"{HUMAN_JUDGE}:") & (pl.col("judge") != SOURCE_JUDGE)
    labelled = decisions.filter(by_people, pl.col("state").is_in(SURE)).select(*PAIR, relevant=_RELEVANT)
    found = candidates.join(known.select(PAIR).unique(), on=PAIR, how="semi").select(*PAIR, relevant=pl.lit(True))
    measured_by, truth = "people", labelled
    if truth.height < FEWEST:
        measured_by, truth = "known", found
    if truth.height < FEWEST and judges:
        measured_by, last = list(judges.items())[-1]
        truth = last.filter(pl.col("state") != "unparsed").select(*PAIR, relevant=_RELEVANT)
        del judges[measured_by]
    if len(judges) < 2:  # noqa: PLR2004 - errors in common need two
        return CommonErrors("", ())
    kinds = kinds_of_pairs(candidates.join(truth, on=PAIR, how="semi"), decisions, lengths)
    rows = shared_errors(judges, truth, kinds)
    if rows.is_empty():
        return CommonErrors("", ())
    excess = pl.col("both_wrong") - pl.col("by_chance")
    every = rows.filter(pl.col("kind") == ALL)
    kinds = rows.filter(pl.col("kind") != ALL, excess > 0).sort("excess_low", descending=True, nulls_last=True)
    return CommonErrors(measured_by, tuple([*every.to_dicts(), *kinds.head(_MOST).to_dicts()]))


def say_passed_on(verdicts: Mapping[str, pl.DataFrame], warn_shares: Mapping[str, float]) -> list[str]:
    """Warn of each tier that is asked about more than a share of what the tier before judged.

    Args:
        verdicts: VERDICTS by judge, in the order asked, similarity first.
        warn_shares: by tier, the share above which a warning is due (`escalate.warn_share`).
    """
    said, judges = [], list(verdicts.items())
    for (before, judged), (tier, asked) in pairwise(judges):
        passed = judged.join(asked, on=PAIR, how="semi").height
        share = passed / judged.height if judged.height else 0.0
        if share > warn_shares.get(tier, 1.0):
            said.append(
                f"{before} passes {passed:,} of {judged.height:,} pairs ({percent(share)}) on to {tier}, more than "
                f"{percent(warn_shares[tier])} (escalate.warn_share): it saves little. A calibration "
                "(reneg calibrate) with decide: {precision: …}, escalate.lower and upper, or max_share passes on fewer."
            )
    return said
