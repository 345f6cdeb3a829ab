"""Check that few enough pairs are without a verdict before any treatment is made."""

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.schemas import COMPLETENESS, FILE_JUDGE

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


def complete(config: CompleteConfig, *, decisions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Check, before any treatment, that over all parts few enough pairs are unparsed, and count them.

    Raises:
        IncompleteError: too many pairs are unparsed.
    """
    check_complete(decisions, config.max_unparsed)
    asked = decisions.filter(pl.col("call_id").is_not_null())
    if asked.height >= _FEW_ASKED:
        check_complete(asked, config.max_unparsed_of_asked, "max_unparsed_of_asked")
    counted = {"pairs": [decisions.height], "unparsed": [decisions.filter(pl.col("state") == "unparsed").height]}
    return {"completeness": pl.DataFrame(counted, schema=COMPLETENESS.columns)}


def check_complete(decisions: pl.DataFrame, max_unparsed: float, name: str = "max_unparsed") -> None:
    """Raise an error if too many decisions are unparsed.

    Raises:
        IncompleteError: the share of unparsed pairs exceeds `max_unparsed`.
    """
    open_ = decisions.filter(pl.col("state") == "unparsed")
    unparsed = open_.height
    if unparsed > max_unparsed * decisions.height:
        absent = open_.filter(pl.col("judge").str.contains(rf"(^|\+){FILE_JUDGE}:"))
        asked = "read raw and finish_reason in the judge's `calls`, correct the prompt, the lengths or the engine and "
        raise IncompleteError(
            f"judgments: {unparsed} of {decisions.height} pairs unparsed ({unparsed / decisions.height:.0%} > "
            f"{name}={max_unparsed:.0%}); {_on_files(absent)}"
            + ("" if absent.height == unparsed else f"{asked}judge again, ")
            + f"or raise {name}"
        )


def _on_files(absent: pl.DataFrame) -> str:
    """Say what to do about pairs that a file with verdicts lacks."""
    if absent.is_empty():
        return ""
    judges = ", ".join(sorted(set(absent["judge"])))
    return (
        f"{absent.height} of them are missing in the file of {judges}: add them to the file, or put a tier after it, "
        "which is asked about them; "
    )
