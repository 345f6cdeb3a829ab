"""Check that few enough pairs are without a verdict before any treatment is made."""

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.schemas import COMPLETENESS, FILE_JUDGE
from tasks.summaries import TALLY

_FEW_ASKED = 20  # with fewer pairs the share is too uncertain to check


class IncompleteError(ValueError):
    """Too many pairs have no verdict, so no treatment may be made."""


class CompleteConfig(BaseModel):
    """How many pairs may be without a verdict.

    max_unparsed: the largest share of all pairs with which treatments are made.
    max_unparsed_of_asked: the same for the pairs that a tier after similarity was asked about, so that a judge that
        never answers is noticed although it was asked about few pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_unparsed: float = Field(0.05, ge=0, le=1)
    max_unparsed_of_asked: float = Field(0.2, ge=0, le=1)


class TallyConfig(BaseModel):
    """No settings: everything is counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def tally(config: TallyConfig, *, decisions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Count the decisions of one part.

    Returns:
        `tally`: TALLY.
    """
    counted = (
        decisions.select(
            "judge", asked=pl.col("call_id").is_not_null(), unparsed=(pl.col("state") == "unparsed").fill_null(False)
        )
        .group_by(*TALLY.key)
        .agg(pairs=pl.len().cast(pl.Int64))
    )
    return {"tally": counted.select(*TALLY.columns).sort(TALLY.key)}


def complete(config: CompleteConfig, *, tally: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Check, before any treatment, that over all parts few enough pairs are unparsed, and count them.

    tally: TALLY of all parts.

    Raises:
        IncompleteError: too many pairs are unparsed.
    """
    check_complete(tally, config.max_unparsed)
    asked = tally.filter("asked")
    if asked["pairs"].sum() >= _FEW_ASKED:
        check_complete(asked, config.max_unparsed_of_asked, "max_unparsed_of_asked")
    counted = {"pairs": [tally["pairs"].sum()], "unparsed": [tally.filter("unparsed")["pairs"].sum()]}
    return {"completeness": pl.DataFrame(counted, schema=COMPLETENESS.columns)}


def check_complete(tally: pl.DataFrame, max_unparsed: float, name: str = "max_unparsed") -> None:
    """Raise an error if too many decisions are unparsed.

    Raises:
        IncompleteError: the share of unparsed pairs exceeds `max_unparsed`.
    """
    open_ = tally.filter("unparsed")
    unparsed, pairs = int(open_["pairs"].sum()), int(tally["pairs"].sum())
    if unparsed > max_unparsed * pairs:
        absent = open_.filter(pl.col("judge").str.contains(rf"(^|\+){FILE_JUDGE}:"))
        asked = "read raw and finish_reason in the judge's `calls`, correct the prompt, the lengths or the engine and "
        raise IncompleteError(
            f"judgments: {unparsed} of {pairs} pairs unparsed ({unparsed / pairs:.0%} > "
            f"{name}={max_unparsed:.0%}); {_on_files(absent)}"
            + ("" if absent["pairs"].sum() == unparsed else f"{asked}judge again, ")
            + f"or raise {name}"
        )


def _on_files(absent: pl.DataFrame) -> str:
    """Say what to do about pairs that a file with verdicts lacks."""
    if absent.is_empty():
        return ""
    judges = ", ".join(sorted(set(absent["judge"])))
    return (
        f"{absent['pairs'].sum()} of them are missing in the file of {judges}: add them to the file, or put a tier "
        "after it, which is asked about them; "
    )
