"""What the page says of a tier with a guarantee: what it asked, what it saved, and which bounds it reached."""

from typing import Any

import polars as pl

from tasks.formatting import percent
from tasks.report.parts.add_up import Sums


def sum_up_guarantee(guarantee: pl.DataFrame | None, sums: Sums, people: pl.DataFrame) -> dict[str, Any] | None:
    """Return the figures of the guarantee, and what they mean in a sentence; None where no tier has one.

    Args:
        guarantee: a table of `schemas.GUARANTEE`, of one row.
        sums: of all parts.
        people: a table of `schemas.PEOPLE`. Its recall is an estimate, and not of the oracle but of people.

    Returns:
        The columns of the table, and asked_share: of all questions, the audit included. saved: questions that are not
        asked. tokens_saved: what they would have cost, at the mean of the calls; None if none was counted. met: whether
        any question could be left out. said: the sentence. people: recall of all decisions against people with its
        interval, None if it was not estimated.
    """
    if guarantee is None or guarantee.is_empty():
        return None
    (row,) = guarantee.iter_rows(named=True)
    saved = row["questions"] - row["asked"]
    spent = sums.calls_of(row["tier"]).select(pl.sum("prompt_tokens") + pl.sum("output_tokens")).item()
    estimates = people.filter((pl.col("tier") == "cascade") & pl.col("recall").is_not_null()).to_dicts()
    return {
        **row,
        "asked_share": row["asked"] / row["questions"] if row["questions"] else 0.0,
        "saved": saved,
        "tokens_saved": round(spent / row["asked"] * saved) if row["asked"] and spent else None,
        "met": saved > 0,
        "said": _sentence(row, saved),
        "people": estimates[0] if estimates else None,
    }


def _sentence(row: dict[str, Any], saved: int) -> str:
    demands = " and ".join(f"{name} {row[name]:g}" for name in ("recall", "precision") if row[name] is not None)
    if not saved:
        return (
            f"The target ({demands}) could not be met with fewer questions: everything was passed on to "
            f"{row['tier']}, whose verdicts decide."
        )
    bounds = (
        f"a recall of at least {row['recall_bound']:.3f} and a precision of at least {row['precision_bound']:.3f}, "
        f"both with {percent(row['confidence'])} confidence"
    )
    asked = f"{row['asked']:,} of {row['questions']:,} questions ({percent(row['asked'] / row['questions'])})"
    return (
        f"Target: {demands} against what {row['tier']} would say of all pairs. It was asked {asked}, "
        f"{row['audited']:,} of them as an audit sample. Reached: {bounds}."
    )
