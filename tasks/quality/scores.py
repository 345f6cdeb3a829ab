"""Read the verdicts of a tier from a file: scores or grades of a judge that was asked elsewhere. Nothing is asked.

Rows are found by dataset, query id and document id. A pair that the file lacks is `unparsed`: its absence says nothing
about relevance.
"""

from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.schemas import FILE_JUDGE, PASSAGE, QUERY, VERDICTS
from tasks.summaries import SCORE_ROWS
from tasks.verdicts.file_rows import cut_rows, slices
from tasks.verdicts.pairs import PAIR

FILE = "scores.parquet"
# The columns of the file in the store. `value`: the score as it was given, in its scale.
COLUMNS = {"dataset": pl.String, "query_id": pl.String, "doc_id": pl.String, "value": pl.Float64}
Scale = Literal["probability", "logit", "grade"]
_QUERY = ["dataset", "query_id"]


class ScoresConfig(BaseModel):
    """How the values of a file become verdicts.

    tier, judge: names of tier and judge for the tables; set by the flow.
    scale: `probability`: P(relevant). `logit`: its log-odds. `grade`: 0 to max_grade.
    max_grade: the highest grade. relevant_grade: the lowest grade that counts as relevant.
    relevant_from, not_relevant_below: as for other judges (`JudgeConfig`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: str
    judge: str
    scale: Scale = "probability"
    max_grade: int = Field(3, ge=1)
    relevant_grade: int = Field(2, ge=1)
    relevant_from: float = Field(0.5, ge=0, le=1)
    not_relevant_below: float = Field(0.5, ge=0, le=1)


class SplitConfig(BaseModel):
    """No settings: the file and the data say it all."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def name_judge(label: str, scale: Scale, *, max_grade: int, relevant_grade: int) -> str:
    """Name the judge of a file for the tables. The path is not in it: another file may hold the same judge's verdicts.

    >>> name_judge("gpt4o", "grade", max_grade=3, relevant_grade=2)
    'file:gpt4o:grade>=2/3'
    """
    grades = f">={relevant_grade}/{max_grade}" if scale == "grade" else ""
    return f"{FILE_JUDGE}:{label}:{scale}{grades}"


def split_scores(
    config: SplitConfig,
    *,
    source: Path,
    copies: pl.DataFrame,
    queries: pl.DataFrame,
    earlier: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """Cut the file into the rows of each query part, under the ids that ingest kept.

    Args:
        config: nothing to set.
        source: the folder with the file, as `settle_scores` makes it.
        copies: ids under which ingest met texts that it keeps under another id.
        queries: one generation of the data's, with the column `part`.
        earlier: those of the generations before, whose rows were cut apart.

    Returns:
        `rows`: SCORE_ROWS of each part of `queries`, with its number. `facts`: counts of rows, and of rows whose query
        is in neither table, with an example.
    """
    table = pl.scan_parquet(source / FILE)
    names = _names(queries, copies)
    known = names if earlier is None else pl.concat([names, _names(earlier, copies)])
    passages = copies.filter(pl.col("kind") == PASSAGE).select("dataset", doc_id="id", kept_doc="kept")
    rows = ((part, _under_kept_ids(found, passages)) for part, found in cut_rows(table, names, _QUERY))
    return {"rows": rows, "facts": _unknown(table, known)}


def _names(queries: pl.DataFrame, copies: pl.DataFrame) -> pl.DataFrame:
    """List the ids of queries, also those of their copies, with the id that is kept, and the part."""
    kept = queries.select("dataset", "part", kept_query="query_id")
    merged = copies.filter(pl.col("kind") == QUERY).select("dataset", kept_query="kept", query_id="id")
    columns = ("dataset", "query_id", "kept_query", "part")
    own = kept.with_columns(query_id="kept_query").select(columns)
    return pl.concat([own, merged.join(kept, on=["dataset", "kept_query"]).select(columns)])


def _under_kept_ids(rows: pl.DataFrame, passages: pl.DataFrame) -> pl.DataFrame:
    """Give rows the ids under which their passages were kept, beside those of the file."""
    own = rows.with_columns(kept_doc="doc_id")
    copied = rows.join(passages, on=["dataset", "doc_id"]).select(own.columns)
    renamed = {"query_id": "named_query", "doc_id": "named_doc", "kept_query": "query_id", "kept_doc": "doc_id"}
    return pl.concat([own, copied]).rename(renamed).select(*SCORE_ROWS.columns).sort(SCORE_ROWS.key)


def read_scores(config: ScoresConfig, *, escalated: pl.DataFrame, rows: pl.DataFrame) -> dict[str, Any]:
    """Look up the escalated pairs of a part in the rows of the file.

    A query or passage that ingest merged with its copies is found under its own id, else under the id of a copy; of
    several copies the one with the lowest ids counts.

    Args:
        config: the scale, and which scores give which state.
        escalated: the pairs that the tier is asked about.
        rows: SCORE_ROWS of the part.

    Returns:
        `verdicts`: one per pair, without calls. `facts`: counts of pairs, of those that the file lacks, with an
        example, and of those found under another id.
    """
    own = (pl.col("named_query") == pl.col("query_id")) & (pl.col("named_doc") == pl.col("doc_id"))
    found = (
        rows.join(escalated.select(PAIR), on=PAIR, how="semi")
        .with_columns(own=own)
        .sort("own", "named_query", "named_doc", descending=[True, False, False])
        .unique(PAIR, keep="first", maintain_order=True)
    )
    pairs = escalated.select(PAIR).join(found.select(*PAIR, "value"), on=PAIR, how="left")
    facts = _facts(pairs, held=found.filter(~pl.col("own")).height)
    return {"verdicts": _verdicts(config, pairs), "facts": facts}


def _verdicts(config: ScoresConfig, pairs: pl.DataFrame) -> pl.DataFrame:
    """Make verdicts of values; a pair without a value is `unparsed`."""
    score = _score(config, pl.col("value"))
    state = (
        pl.when(pl.col("score").is_null())
        .then(pl.lit("unparsed"))
        .when(pl.col("score") >= config.relevant_from)
        .then(pl.lit("relevant"))
        .when(pl.col("score") < config.not_relevant_below)
        .then(pl.lit("not_relevant"))
        .otherwise(pl.lit("unsure"))
    )
    made = pairs.with_columns(
        score=score,
        grade=pl.col("value") if config.scale == "grade" else pl.lit(None),
        tier=pl.lit(config.tier),
        judge=pl.lit(config.judge),
        preference=pl.lit(None),
        call_id=pl.lit(None),
        attempt=pl.lit(1),
    ).with_columns(state=state)
    return made.select(pl.col(name).cast(dtype) for name, dtype in VERDICTS.columns.items()).sort(VERDICTS.key)


def _score(config: ScoresConfig, value: pl.Expr) -> pl.Expr:
    """Return a score from 0 to 1.

    A grade g of at most m, with relevant ones from r on, becomes (g + ½) / (2r + 1) below r, and
    ½ + (g - r + ½) / (2(m - r + 1)) from r on: it rises with the grade, and it is at least ½ exactly from r on.
    """
    if config.scale == "probability":
        return value
    if config.scale == "logit":
        return 1 / (1 + (-value).exp())
    least, most = config.relevant_grade, config.max_grade
    below = (value + 0.5) / (2 * least + 1)
    above = 0.5 + (value - least + 0.5) / (2 * (most - least + 1))
    return pl.when(value < least).then(below).otherwise(above)


def _facts(pairs: pl.DataFrame, held: int) -> dict[str, Any]:
    missing = pairs.filter(pl.col("value").is_null()).sort(PAIR)
    facts: dict[str, Any] = {"pairs": pairs.height, "unparsed": missing.height, "under_other_ids": held}
    if missing.height:
        facts["failures"] = {"not_in_file": missing.height}
        facts["not_in_file"] = _show(missing.row(0, named=True))
    return facts


def _unknown(table: pl.LazyFrame, names: pl.DataFrame) -> dict[str, Any]:
    """Count the rows of queries that the data does not hold, and name one."""
    facts: dict[str, Any] = {"rows": 0, "unknown_queries": 0}
    for rows in slices(table):
        unknown = rows.join(names, on=_QUERY, how="anti", maintain_order="left")
        facts["rows"] += rows.height
        if unknown.height and not facts["unknown_queries"]:
            facts["unknown_query"] = _show(unknown.row(0, named=True))
        facts["unknown_queries"] += unknown.height
    return facts


def _show(row: dict[str, Any]) -> str:
    return f"dataset {row['dataset']}, query {row['query_id']}, document {row['doc_id']}"


def settle_scores(rows: pl.LazyFrame, scale: Scale, max_grade: int) -> tuple[pl.DataFrame, dict[str, tuple[int, str]]]:
    """Make the table of a file's rows: one row per pair, sorted.

    Args:
        rows: the columns of `COLUMNS`, all of them strings or numbers.
        scale: which values are possible.
        max_grade: the highest grade.

    Returns:
        The table with the columns of `COLUMNS`; and by reason how many rows are left out, with the first one. `no_id`:
        an id is missing. `no_score`: the value is empty. `not_a_number`. `out_of_range`: for the scale.
        `several_scores`: rows of one pair with different values, which are left out all. `repeated`: rows that say the
        same as another row, of which one is kept.
    """
    value = pl.col("value").cast(pl.Float64, strict=False)
    ids = [pl.col(name).cast(pl.String).alias(name) for name in PAIR]
    said = pl.col("value").cast(pl.String).str.strip_chars()
    most = {"probability": 1.0, "grade": float(max_grade)}.get(scale)
    checked = (
        rows.select(*ids, said=said, value=said.cast(pl.Float64, strict=False) if _is_text(rows) else value)
        .with_columns(
            reason=pl.when(pl.any_horizontal(pl.col(name).fill_null("") == "" for name in PAIR))
            .then(pl.lit("no_id"))
            .when(pl.col("said").fill_null("") == "")
            .then(pl.lit("no_score"))
            .when(~pl.col("value").is_finite().fill_null(False))
            .then(pl.lit("not_a_number"))
            .when(pl.lit(False) if most is None else ~pl.col("value").is_between(0, most))
            .then(pl.lit("out_of_range"))
        )
        .collect()
    )
    left_out = checked.filter(pl.col("reason").is_not_null())
    good = checked.filter(pl.col("reason").is_null())
    settled = good.group_by(PAIR).agg(pl.col("value").first(), pl.len(), values=pl.col("value").n_unique())
    several, same = settled.filter(pl.col("values") > 1), settled.filter(pl.col("values") == 1)
    counts = _counts(left_out)
    if several.height:
        first = several.sort(PAIR).row(0, named=True)
        counts["several_scores"] = (int(several["len"].sum()), _show(first))
    if (repeated := int(same["len"].sum()) - same.height) > 0:
        counts["repeated"] = (repeated, _show(same.filter(pl.col("len") > 1).sort(PAIR).row(0, named=True)))
    return same.select(*COLUMNS).sort(PAIR), counts


def _is_text(rows: pl.LazyFrame) -> bool:
    return rows.collect_schema()["value"] == pl.String


def _counts(left_out: pl.DataFrame) -> dict[str, tuple[int, str]]:
    counts: dict[str, tuple[int, str]] = {}
    for (reason,), group in left_out.partition_by("reason", as_dict=True, maintain_order=True).items():
        first = group.row(0, named=True)
        counts[str(reason)] = (group.height, f"{_show(first)}: {first['said']!r}")
    return dict(sorted(counts.items()))
