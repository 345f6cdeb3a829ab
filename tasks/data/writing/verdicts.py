"""Write the verdicts of all judges on all candidates as parquet and TSV, with the columns documented beside them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tasks.data.writing.files import Parquet
from tasks.schemas import HUMAN_JUDGE

_PAIR = ["dataset", "query_id", "doc_id"]
_TEXT, _FLOAT = pl.String(), pl.Float64()
# Each column: its type, and what it holds.
COLUMNS: dict[str, tuple[pl.DataType, str]] = {
    "dataset": (_TEXT, "the dataset of the query"),
    "query_id": (_TEXT, "the query, unique within its dataset"),
    "doc_id": (_TEXT, "the passage, unique within its dataset"),
    "tier": (_TEXT, "who gave this verdict: `similarity`, the name of a tier, or `cascade` for the final decision"),
    "judge": (
        _TEXT,
        "digests of model and prompts; `human:<n>` where n people labelled it, `human:source` where its qrels did",
    ),
    "state": (_TEXT, "this verdict: `relevant`, `not_relevant`, `unsure` or `unparsed`"),
    "score": (_FLOAT, "P(relevant) of this verdict, 0 to 1; empty where the answer could not be read"),
    "grade": (_FLOAT, "the grade of a judge that grades; else empty"),
    "preference": (_TEXT, "compared with the positives: `better`, `equal`, `worse` or `none`; else empty"),
    "call_id": (_TEXT, "the call to the judge; several verdicts of one listwise call share it. Empty without a call"),
    "p": (_FLOAT, "P(relevant) of the final decision on the pair, the same in each of its rows"),
    "decision": (_TEXT, "the final decision on the pair, one of the values of `state`"),
    "why": (_TEXT, "who decided: `judge`, or `human` where people's labels took the place of the judges' decision"),
    "rank": (pl.Int32(), "rank of the passage among the query's candidates, from 1"),
    "mining_score": (_FLOAT, "score of the retriever, or of the source; empty where there was none"),
    "retriever": (
        _TEXT,
        "who found the passage: `given` for negatives of the source, `positive` for a positive that was checked",
    ),
}


@dataclass(frozen=True)
class VerdictPart:
    """A part of the verdicts: candidates, the verdicts of all tiers on them, and the final decisions."""

    candidates: pl.DataFrame
    verdicts: pl.DataFrame
    decisions: pl.DataFrame


def write_verdicts(folder: Path, parts: Iterable[VerdictPart]) -> dict[str, int]:
    """Write `verdicts.parquet`, `verdicts.tsv` and `README.md`, part by part; returns the counts of rows and pairs.

    The rows of a part are sorted by dataset, query_id and rank, then in the order in which the tiers judged, with the
    final decision last.
    """
    schema = pl.Schema({name: kind for name, (kind, _) in COLUMNS.items()})
    folder.mkdir(parents=True, exist_ok=True)
    pairs = 0
    with Parquet(folder / "verdicts.parquet", schema) as file, (folder / "verdicts.tsv").open("wb") as lines:
        lines.write(("\t".join(COLUMNS) + "\n").encode())
        for part in parts:
            rows = _rows(part)
            pairs += part.decisions.height
            file.add(rows)
            rows.write_csv(lines, separator="\t", include_header=False)
    (folder / "README.md").write_text(_readme(file.count, pairs), encoding="utf-8")
    return {"rows": file.count, "pairs": pairs}


def _rows(part: VerdictPart) -> pl.DataFrame:
    """Put the verdicts of all tiers and the decisions below each other, with decision and candidate beside each."""
    is_human = pl.col("judge").str.starts_with(f"{HUMAN_JUDGE}:")
    decided = part.decisions.select(
        *_PAIR, p="score", decision="state", why=pl.when(is_human).then(pl.lit("human")).otherwise(pl.lit("judge"))
    )
    found = part.candidates.select(*_PAIR, "rank", "retriever", mining_score="score")
    verdicts = pl.concat([part.verdicts, part.decisions]).with_row_index("order")
    joined = verdicts.join(decided, on=_PAIR, how="left").join(found, on=_PAIR, how="left")
    return joined.sort("dataset", "query_id", "rank", "doc_id", "order").select(*COLUMNS)


def _readme(rows: int, pairs: int) -> str:
    columns = "\n".join(f"| `{name}` | {kind} | {text} |" for name, (kind, text) in COLUMNS.items())
    return f"""# Verdicts

{rows:,} verdicts on {pairs:,} pairs of a query and a candidate: one row for each tier that judged the pair, and one,
of the tier `cascade`, for the final decision. `verdicts.parquet` and `verdicts.tsv` hold the same rows. In the TSV, an
empty field is null, and fields with quotation marks are quoted as in CSV.

| column | type | |
|---|---|---|
{columns}
"""
