"""Keep the budgets of a tier over all parts of a generation of queries, while each part reads only its own pairs.

Each part counts what it may ask about, by score (`count_open`). One small stage finds how far the budget reaches and
says how much of that each part gets (`allot`). `escalate` then picks it in each part.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.summaries import ALLOTTED, COUNTED
from tasks.verdicts.escalate import EscalateConfig, budget_of, find_questions, fitting, open_units

MOST_BINS = 4096  # rows of a part's table, about


class AllotConfig(BaseModel):
    """The budgets of a tier, as in its `escalate`; set by the flow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Literal["pair", "row"] = "pair"
    max_share: float = Field(1.0, ge=0, le=1)
    max_pairs: int | None = Field(None, ge=0)


def count_open(config: EscalateConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Count what one part may ask about, by score; budgets for all are not looked at.

    Returns:
        `counted`: COUNTED. Each different score is a row of its own while there are at most `MOST_BINS` questions. Of
            more, neighbouring scores share a row; equal ones are never in two. With `unit: row` each row of the
            candidates is one.

    Raises:
        ValueError: a candidate, or the pair of a verdict, comes twice.
    """
    questions = find_questions(config, candidates, verdicts)
    units = open_units(config, questions)
    place = pl.col("place")
    if config.unit == "pair":
        width = max(1, math.ceil(units.height / MOST_BINS))
        place = place.min().over("unparsed", "score") // width
    bins = (
        units.with_row_index("place")
        .with_columns(bin=place)
        .group_by("unparsed", "bin", maintain_order=True)
        .agg(pl.col("score").first(), units=pl.len(), questions=pl.col("questions").sum())
    )
    columns = [pl.col(name).cast(dtype) for name, dtype in COUNTED.columns.items()]
    opened = bins.with_columns(open=True).select(columns)
    closed = questions.height - int(units["questions"].sum())
    row = pl.DataFrame([(False, False, None, 0, closed)], schema=COUNTED.columns, orient="row")
    return {"counted": pl.concat([opened, row])}


def allot(config: AllotConfig, *, counted: pl.DataFrame) -> dict[str, Any]:
    """Say what each part may ask about: unparsed questions first, then the highest scores, ties by the part's number.

    The budget is used up to the last question, as if all parts were one. Which questions these are is the same too, but
    for those whose score is that at which the budget ends: of them the first parts get theirs. In parts of more than
    `MOST_BINS` questions, scores that share a row count as equal.

    Args:
        config: the budgets.
        counted: COUNTED of all parts, with the column `part`.

    Returns:
        `allotment`: ALLOTTED for each part, with its number. `facts`: the questions, those that are open, and those
            that are forwarded.
    """
    opened = counted.filter("open").with_columns(place=pl.col("units").cum_sum().over("part") - pl.col("units"))
    order = ["unparsed", "score", "part", "place"]
    opened = opened.sort(order, descending=[True, True, False, False], nulls_last=True)
    questions = int(counted["questions"].sum())
    budget = budget_of(config.max_share, config.max_pairs, questions)
    if config.unit == "row":
        opened = opened.with_columns(fits=fitting(opened["questions"], budget))
        taken, asked = pl.col("units") * pl.col("fits"), pl.col("questions") * pl.col("fits")
    else:
        left = budget - pl.col("questions").cum_sum() + pl.col("questions")
        taken = asked = left.clip(0, pl.col("questions"))
    opened = opened.with_columns(taken=taken, asked=asked).sort("part", "place")
    facts = {"questions": questions, "open": int(opened["questions"].sum()), "forwarded": int(opened["asked"].sum())}
    return {"allotment": _by_part(opened, sorted(counted["part"].unique())), "facts": facts}


def _by_part(opened: pl.DataFrame, parts: list[int]) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the allotment of each part: neighbouring units that are taken are one row."""
    taken = opened.filter(pl.col("taken") > 0).select("part", first="place", units="taken")
    of_parts = {part: frame for (part,), frame in taken.partition_by("part", as_dict=True).items()}
    for part in parts:
        yield part, _joined(of_parts[part]) if part in of_parts else ALLOTTED.empty()


def _joined(runs: pl.DataFrame) -> pl.DataFrame:
    """Join runs of one part, sorted, of which one begins where the one before ends."""
    first, units = runs["first"].to_numpy(), runs["units"].to_numpy()
    starts = np.flatnonzero(np.append(True, first[1:] != first[:-1] + units[:-1]))
    return pl.DataFrame({"first": first[starts], "units": np.add.reduceat(units, starts)}, schema=ALLOTTED.columns)
