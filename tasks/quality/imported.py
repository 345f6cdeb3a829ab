"""Take verdicts from a table: answers of a judge that was asked elsewhere, or silver labels. Nothing is asked.

Pairs are found by their texts. A pair that the table does not hold has no verdict here; the judges are asked about it.
"""

from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.schemas import CANDIDATES, VERDICTS
from tasks.summaries import IMPORTED_ROWS
from tasks.verdicts.file_rows import cut_rows

IMPORTED = "imported"  # the tier of these verdicts
FILE = "verdicts.parquet"
# The columns of the file: hashes of query and passage (`tasks.texts`), a state, and P(relevant).
COLUMNS = IMPORTED_ROWS.columns
STATES = ("relevant", "not_relevant", "unsure")
_TEXTS = ["query_hash", "text_hash"]
_SCORES = {"relevant": 1.0, "not_relevant": 0.0, "unsure": 0.5}


class ImportedConfig(BaseModel):
    """No settings: the table says it all."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def split_imported(config: ImportedConfig, *, source: Path, queries: pl.DataFrame) -> dict[str, Any]:
    """Cut the table into the rows of each query part.

    queries: of the data, or of one generation of it, with the column `part`.

    Returns:
        `rows`: IMPORTED_ROWS of each part, with its number.
    """
    names = queries.select("part", query_hash="text_hash").unique().sort("query_hash")
    return {"rows": cut_rows(pl.scan_parquet(source / FILE), names, ["query_hash"])}


def import_verdicts(config: ImportedConfig, *, candidates: pl.DataFrame, rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Look up the candidates of a part in the rows of the table.

    Returns:
        `verdicts`: of the candidates that the table holds, without calls. `left`: the other candidates.
    """
    found = candidates.join(rows.rename({"score": "said"}), on=_TEXTS)
    verdicts = found.select(
        "dataset",
        "query_id",
        "doc_id",
        "state",
        score="said",
        tier=pl.lit(IMPORTED),
        judge=pl.lit(IMPORTED),
        grade=pl.lit(None, dtype=pl.Float64),
        preference=pl.lit(None, dtype=pl.String),
        call_id=pl.lit(None, dtype=pl.String),
        attempt=pl.lit(1, dtype=pl.Int32),
    )
    left = candidates.join(rows, on=_TEXTS, how="anti")
    return {
        "verdicts": verdicts.select(*VERDICTS.columns).sort(VERDICTS.key),
        "left": left.select(*CANDIDATES.columns).sort(CANDIDATES.key),
    }


def settle_verdicts(rows: pl.LazyFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Make the table of rows with the columns of `COLUMNS`: one row per pair of texts, sorted.

    Returns:
        The table, and how many rows are left out by reason: `no_hash`, `unknown_state`, `bad_score` (none in 0..1), and
        `contradiction` where rows of one pair have several states. A missing score becomes that of the state.
    """
    state, score = pl.col("state"), pl.col("score").fill_nan(None)
    checked = rows.with_columns(
        reason=pl.when(pl.any_horizontal(pl.col(_TEXTS).str.count_matches("^[0-9a-f]{32}$").fill_null(0) == 0))
        .then(pl.lit("no_hash"))
        .when(~state.is_in(STATES).fill_null(False))
        .then(pl.lit("unknown_state"))
        .when(~score.is_between(0, 1).fill_null(True))
        .then(pl.lit("bad_score"))
    ).collect()
    left_out = dict(checked.group_by("reason").len().drop_nulls().sort("reason").iter_rows())
    usual = state.replace_strict(_SCORES, return_dtype=pl.Float64)
    good = checked.filter(pl.col("reason").is_null()).with_columns(score=score.fill_null(usual))
    settled = good.group_by(_TEXTS).agg(state.first(), pl.col("score").mean(), rows=pl.len(), states=state.n_unique())
    against = int(settled.filter(pl.col("states") > 1)["rows"].sum())
    table = settled.filter(pl.col("states") == 1).select(*COLUMNS).sort(_TEXTS)
    return table, left_out | ({"contradiction": against} if against else {})
