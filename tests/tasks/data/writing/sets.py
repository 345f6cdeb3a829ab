"""Training sets for the tests of the writers, from a few words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

from tasks import schemas
from tasks.data.reading.source import RowSource, open_source
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.scores import Evidence
from tasks.data.writing.training_set import TrainingSet, join_texts
from tasks.texts import clean, combine_hashes, hash_passage, hash_text, show_passage

Texts = dict[str, tuple[str, str]]  # doc_id: title, text
Row = tuple[str, str, list[str], list[str]]  # dataset, query_id, positives, negatives

TEXTS: Texts = {f"d{number}": ("", f"text {number}") for number in range(9)} | {"d1": ("One", "text 1")}


def tables(rows: list[Row], texts: Texts = TEXTS) -> dict[str, pl.DataFrame]:
    """Instances, queries and passages; the text of a query is `about <query_id>`."""
    datasets = list(dict.fromkeys(row[0] for row in rows))
    passages = [(d, key, *text, hash_passage(*text)) for d in datasets for key, text in texts.items()]
    queries = [(row[0], row[1], f"about {row[1]}", hash_text(f"about {row[1]}"), "train") for row in rows]
    instances = [(*row, "relabel", _hash(row, texts)) for row in rows]
    frames = {"passages": passages, "queries": queries, "instances": instances}
    kinds = {"passages": schemas.PASSAGES, "queries": schemas.QUERIES, "instances": schemas.INSTANCES}
    return {name: pl.DataFrame(frames[name], schema=kinds[name].columns, orient="row") for name in frames}


def _hash(row: Row, texts: Texts) -> str:
    return combine_hashes([hash_text(f"about {row[1]}"), *(hash_passage(*texts[key]) for key in (*row[2], *row[3]))])


def training_set(
    rows: list[Row], config: ExportConfig | None = None, texts: Texts = TEXTS, **evidence: Any
) -> TrainingSet:
    """A training set of one part; `evidence` are the tables besides, by name."""
    asked, of_card = config or ExportConfig(), {name: evidence.pop(name, None) for name in ("agreement", "people")}
    extras = tuple(evidence["extras"]["name"].unique().sort()) if "extras" in evidence else ()
    made = TrainingSet(extras, corpus=True, **of_card)
    made.add(join_texts(asked, **tables(rows, texts), evidence=Evidence(**evidence), extras=extras))
    return made


@dataclass(frozen=True)
class Parts:
    """A table in parts, as the store gives it to an export."""

    frames: Sequence[pl.DataFrame]
    empty: pl.DataFrame

    @property
    def parts(self) -> range:
        return range(len(self.frames))

    def at(self, part: int) -> pl.DataFrame:
        return self.frames[part] if self.frames else self.empty


def in_parts(frames: Mapping[str, pl.DataFrame], count: int) -> dict[str, Parts]:
    """Cut the tables of an export into query parts; each gets the passages of its own instances."""
    instances = frames["instances"]
    number = pl.concat_str("dataset", "query_id", separator="\0").hash(7) % count
    named = {name: frame for name, frame in frames.items() if name != "passages"}
    found = {name: [frame.filter(number == part) for part in range(count)] for name, frame in named.items()}
    used = []
    for part in found["instances"]:
        sides = [part.select("dataset", doc_id=side).explode("doc_id") for side in ("positives", "negatives")]
        used.append(frames["passages"].join(pl.concat(sides), on=["dataset", "doc_id"], how="semi"))
    assert sum(part.height for part in found["instances"]) == instances.height
    return {name: Parts(cut, cut[0].clear()) for name, cut in {**found, "passages": used}.items()}


def pairs(schema: schemas.Schema, *rows: tuple[object, ...]) -> pl.DataFrame:
    """Rows of a table whose first columns are dataset, query_id, doc_id; the other columns are filled."""
    fill: dict[Any, object] = {pl.String: "x", pl.Float64: 0.0, pl.Int32: 1, pl.Int64: 1, pl.Boolean: False}
    kinds = list(schema.columns.items())
    whole = [
        (*row, *(None if name in schema.nullable else fill[kind] for name, kind in kinds[len(row) :])) for row in rows
    ]
    return pl.DataFrame(whole, schema=schema.columns, orient="row")


def decided(*rows: tuple[str, str, str, str, str, float | None]) -> pl.DataFrame:
    """Decisions: dataset, query_id, doc_id, judge, state, score."""
    return pairs(schemas.VERDICTS, *((*row[:3], "cascade", *row[3:]) for row in rows))


def teacher(*rows: tuple[str, str, str, float]) -> pl.DataFrame:
    return pairs(schemas.TEACHER, *rows)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


# Texts and ids as ingest leaves them: no control characters, nothing at the ends, no breaks in ids.
shown = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(clean).filter(bool)
ids = shown.map(lambda text: " ".join(text.split("\t")).replace("\n", " ").replace("\r", " ").strip()).filter(bool)


@st.composite
def generated(draw: st.DrawFn, datasets: st.SearchStrategy[str] = ids) -> tuple[list[Row], Texts]:
    """Rows over generated passages; each has a positive, and most have negatives."""
    texts = draw(st.dictionaries(ids, st.tuples(st.just("") | shown, shown), min_size=2, max_size=8))
    texts = dict({show_passage(*text): (key, text) for key, text in texts.items()}.values())  # one id for each text
    keys = st.permutations(sorted(texts))
    rows = {}
    for dataset, query_id in draw(st.lists(st.tuples(datasets, ids), min_size=1, max_size=5, unique=True)):
        order = draw(keys)
        count = draw(st.integers(1, len(order)))
        rows[dataset, query_id] = (dataset, query_id, order[:1], order[1:count])
    return list(rows.values()), texts


def read_back(
    folder: Path, *more: Path, by: str = "query_id"
) -> tuple[dict[tuple[str, str], dict[bool, list[tuple[Any, ...]]]], pl.DataFrame]:
    """Read rows with our own readers: by dataset and `by`, the passages of each side as (doc_id, title, text, score).

    `more`: further folders of the same format, such as the one for rows without negatives. The second result are the
    further fields of the rows.
    """
    rows: dict[tuple[str, str], dict[bool, list[tuple[Any, ...]]]] = {}
    extras = []
    for place in (folder, *(place for place in more if place.exists())):
        source = open_source(place)
        assert isinstance(source, RowSource)
        for batch in source.batches():
            assert {problem.reason for problem in batch.problems} <= {"metadata", "empty_file"}  # the card
            keys = list(batch.rows.select(pl.col("dataset").fill_null(""), by).iter_rows())
            for key in keys:
                assert key not in rows
                rows[key] = {True: [], False: []}
            for row, positive, *passage in batch.passages.iter_rows():
                rows[keys[row]][positive].append(tuple(passage))
            extras.append(batch.extras)
    return rows, pl.concat(extras)
