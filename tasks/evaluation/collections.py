"""Collections that models are evaluated on beside the held-out queries: read as they are, nothing merged or drawn.

A collection is a BEIR folder: `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv`; or a data set of a hub as mteb and
BEIR lay them out there: `corpus/`, `queries/`, and `qrels/`, `default/` or `data/` with parquet files or JSON lines.
Measures are to equal those of other tools on the same folder, so copies of passages stay, and each judged query is
asked.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.data.ingesting.seen import Seen, keys_of
from tasks.data.reading.files import of_split, split_of
from tasks.data.reading.records import IngestError, Passage
from tasks.data.reading.source import CorpusSource, open_source
from tasks.evaluation.left_out import LEFT_OUT, SharedIds, choose_left_out, find_same_ids
from tasks.lines import Problem
from tasks.schemas import PASSAGES, QRELS, QUERIES
from tasks.texts import hash_passage, hash_text

_AT_ONCE = 10_000  # records that are Python objects at a time
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CollectionConfig(BaseModel):
    """One collection: an address, or a set that is known by name (`beir: nfcorpus`, `mteb: SciFact`).

    path: address of a folder of BEIR or mteb, as `source.path`. name: in results; default: the last part of the
    address, without its query and its user.
    split: of the judgements. languages: for tools that read the results, such as `eng-Latn`.
    main: the measure that mteb's tools take for the main score; default: the first of `evaluate.measures`.
    revision: of a data set of a hub, for the results.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1)
    name: str = ""
    split: str = Field("test", min_length=1)
    languages: tuple[str, ...] = ()
    main: str = Field("", json_schema_extra={"keyed_when_set": True})
    revision: str = Field("", json_schema_extra={"keyed_when_set": True})

    @model_validator(mode="before")
    @classmethod
    def _from_address(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """Accept an address alone, and name the collection after it."""
        data = {"path": data} if isinstance(data, str) else data
        if isinstance(data, dict) and isinstance(data.get("path"), str) and not data.get("name"):
            return {**data, "name": _last_part(data["path"])}
        return data

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        """Refuse a name that is none of a file; the message does not repeat it, for an address may hold a secret."""
        if not _NAME.fullmatch(name):
            raise ValueError(
                "a name of letters, digits, dots, dashes and underscores expected, got "
                f"{len(name)} characters with others among them; give the collection such a `name`"
                if name
                else "the address ends in no name; give the collection a `name`"
            )
        return name

    @property
    def label(self) -> str:
        """The name, fit for names of stages."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")


def _last_part(address: str) -> str:
    """Return the last part of an address's path: no query, no fragment, no user.

    >>> _last_part("https://user:password@host/sets/nf.zip?signature=abc"), _last_part("https://user:password@host")
    ('nf.zip', 'host')
    """
    path = re.split(r"[?#]", address, maxsplit=1)[0].rstrip("/")
    return path.rpartition("/")[2].rpartition("@")[2]


class ReadConfig(BaseModel):
    """How a collection is read.

    name: its dataset in all tables. split: of the judgements.
    ignore_same_id: as in the evaluation of held-out queries.
    query_rows, passage_rows: rows of a part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    split: str = "test"
    ignore_same_id: SharedIds = "auto"
    query_rows: int = Field(5_000, ge=1)
    passage_rows: int = Field(50_000, ge=1)


def read_collection(config: ReadConfig, *, source: Path) -> dict[str, Any]:
    """Read a folder part by part: its judged queries, their judgements, and all passages.

    Where the names of files of passages or queries say a split, those of other splits are not read, as by mteb.

    The outputs are to be written in their order: what is left out is known once the passages have gone by.

    Returns:
        `queries` and `qrels` by query part, `passages` by corpus part, `left_out`: the passages that are left out of a
        query's ranking (`tasks.evaluation.left_out`), in one frame; `facts`: counts, and `unreadable`: what could not
        be read, by part of the folder and reason (complete once the passages have gone by).

    Raises:
        ValueError: the folder is none of BEIR's, has no judged query of the split, lacks the text of a judged query, or
            has no passage that can be read (when the passages are taken).
    """
    unreadable: dict[str, int] = {}
    try:
        found = open_source(source, split=config.split)
        if not isinstance(found, CorpusSource):
            raise IngestError("rows came")
        found = _of_split(config, found)
        labels = _labels(config, found, unreadable)
    except IngestError as error:
        raise ValueError(
            f"evaluate.collections: {config.name}: a BEIR folder with corpus.jsonl, queries.jsonl and "
            f"qrels/{config.split}.tsv expected ({error})"
        ) from error
    queries = _queries(config, found, labels, unreadable)
    if queries.is_empty():
        raise ValueError(
            f"evaluate.collections: {config.name}: no query of queries.jsonl is judged in qrels/{config.split}.tsv; "
            "their ids differ, or `split` names another file"
        )
    _refuse_textless(config, labels, queries)
    labels = labels.select(*QRELS.columns).sort(QRELS.key)
    parts = [queries[start : start + config.query_rows] for start in range(0, queries.height, config.query_rows)]
    reading = _Corpus(config, queries, labels, unreadable)
    facts = {"queries": queries.height, "judgements": labels.height, "unreadable": unreadable}
    return {
        "queries": parts,
        "qrels": (labels.join(part, on="query_id", how="semi", maintain_order="left") for part in parts),
        "passages": reading.parts(found.documents()),
        "left_out": reading.left_out(),
        "facts": facts,
    }


def _of_split(config: ReadConfig, source: CorpusSource) -> CorpusSource:
    """Leave out files with passages or queries of other splits."""
    split = split_of(config.split) or config.split
    return replace(source, corpus=of_split(source.corpus, split)[0], asked=of_split(source.asked, split)[0])


def say_unreadable(name: str, unreadable: Mapping[str, int]) -> str:
    """Say what of a collection could not be read.

    >>> say_unreadable("nf", {"corpus: broken_json": 2, "qrels: wrong_type": 1})
    'evaluate.collections: nf: 3 lines could not be read and were left out (corpus: broken_json 2, qrels: wrong_type 1)'
    """
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(unreadable.items()))
    lines = f"{sum(unreadable.values()):,} lines could not be read and were left out"
    return f"evaluate.collections: {name}: {lines} ({reasons})"


def _refuse_textless(config: ReadConfig, labels: pl.DataFrame, queries: pl.DataFrame) -> None:
    """Refuse a collection whose judgements name queries without a text: their scores would be missing in the mean."""
    textless = labels.join(queries, on="query_id", how="anti")["query_id"].unique().sort()
    if textless.len():
        raise ValueError(
            f"evaluate.collections: {config.name}: {textless.len():,} queries that qrels/{config.split}.tsv judges "
            f"have no readable text in queries.jsonl (the first is {textless[0]!r}); add their texts, or remove their "
            "judgements"
        )


def _labels(config: ReadConfig, source: CorpusSource, unreadable: dict[str, int]) -> pl.DataFrame:
    """Return the judgements; of several about one pair the last, as other tools read them."""
    frames = [QRELS.empty()]
    for some in _chunks(source.judgements(config.split), "qrels", unreadable):
        rows = [(config.name, one.query_id, one.doc_id, int(one.relevance)) for one in some]
        frames.append(pl.DataFrame(rows, schema=QRELS.columns, orient="row"))
    return pl.concat(frames).unique(["query_id", "doc_id"], keep="last", maintain_order=True)


def _queries(
    config: ReadConfig, source: CorpusSource, labels: pl.DataFrame, unreadable: dict[str, int]
) -> pl.DataFrame:
    frames = [QUERIES.empty()]
    for some in _chunks(source.queries(), "queries", unreadable):
        rows = [(config.name, one.query_id, one.text, hash_text(one.text), config.split) for one in some]
        frame = pl.DataFrame(rows, schema=QUERIES.columns, orient="row")
        frames.append(frame.join(labels, on="query_id", how="semi", maintain_order="left"))
    return pl.concat(frames).unique("query_id", keep="first").sort("query_id")


class _Corpus:
    """The passages of a collection, read once, and what is left out because of them."""

    def __init__(
        self, config: ReadConfig, queries: pl.DataFrame, labels: pl.DataFrame, unreadable: dict[str, int]
    ) -> None:
        self._config, self._queries, self._unreadable = config, queries, unreadable
        self._relevant = labels.filter(pl.col("relevance") > 0)
        self._same = [pl.DataFrame(schema=LEFT_OUT)]

    def parts(self, items: Iterable[Passage | Problem]) -> Iterator[pl.DataFrame]:
        """Yield the passages part by part; of several with one id the first."""
        seen, begun, rows = Seen(), PASSAGES.empty(), self._config.passage_rows
        count = 0
        for some in _chunks(items, "corpus", self._unreadable):
            columns = [(self._config.name, one.doc_id, one.title, one.text) for one in some]
            hashes = [hash_passage(one.title, one.text) for one in some]
            frame = pl.DataFrame(
                [(*row, found) for row, found in zip(columns, hashes, strict=True)],
                schema=PASSAGES.columns,
                orient="row",
            ).unique("doc_id", keep="first", maintain_order=True)
            keys = keys_of(frame.select("doc_id"))
            new = seen.find(keys) < 0
            frame, keys = frame.filter(pl.Series(new)), keys.filter(pl.Series(new))
            seen.add(keys, np.arange(count, count + frame.height, dtype=np.uint32))
            count += frame.height
            self._same.append(find_same_ids(self._queries, frame))
            begun = pl.concat([begun, frame])
            while begun.height >= rows:
                yield begun[:rows]
                begun = begun[rows:]
        if not count:
            raise ValueError(
                f"evaluate.collections: {self._config.name}: no passage of the corpus could be read "
                f"({', '.join(sorted(self._unreadable)) or 'it is empty'}); each line of corpus.jsonl needs _id, text"
            )
        if begun.height:
            yield begun

    def left_out(self) -> Iterator[pl.DataFrame]:
        """Yield what is left out, once all parts were read."""
        same = pl.concat(self._same)
        chosen = choose_left_out(same, self._relevant, same_id=self._config.ignore_same_id, same_text=False)
        yield chosen.sort("query_id")


def _chunks(items: Iterable[Any], part: str, unreadable: dict[str, int]) -> Iterator[list[Any]]:
    """Collect records; those that cannot be read are counted by part and reason."""

    def usable() -> Iterator[Any]:
        for item in items:
            if isinstance(item, Problem):
                reason = f"{part}: {item.reason}"
                unreadable[reason] = unreadable.get(reason, 0) + 1
            else:
                yield item

    records = usable()
    while some := list(islice(records, _AT_ONCE)):
        yield some
