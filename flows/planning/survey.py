"""Looks at a source before there is a configuration: its form, sizes, splits and lengths, and what is passed over."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from flows.config.section import ConfigError
from tasks.data.reading.records import IngestError
from tasks.data.reading.source import CorpusSource, RowSource, open_source
from tasks.lines import Problem
from tasks.rejects import reason_of

MOST = 20_000  # rows, passages, queries or judgements of each split that are read


@dataclass
class Passed:
    """What is passed over for one reason: how often, and the first time."""

    count: int
    first: str


@dataclass(frozen=True)
class Survey:
    """What a source holds, as far as it was read.

    form: the format. complete: whether all of it was read. rows: training rows; 0 for a corpus. bare: rows without a
        negative. datasets: rows by the dataset that they name; the empty name for those that name none.
    positives, negatives: passages per row, on average. documents: passages of the corpus; 0 for rows.
    queries: of the corpus, or different texts of rows. splits: judged queries by split. given: queries of a corpus that
        bring candidates. query_chars, passage_chars: medians.
    repeated_queries, repeated_passages: texts that came before. titles, scores: whether any passage has one.
    extras: further fields that are kept. recognised: fields by what they hold. passed_over: by reason.
    """

    form: str
    complete: bool
    rows: int = 0
    bare: int = 0
    datasets: Mapping[str, int] = field(default_factory=dict)
    positives: float = 0.0
    negatives: float = 0.0
    documents: int = 0
    queries: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    given: int = 0
    query_chars: int = 0
    passage_chars: int = 0
    repeated_queries: int = 0
    repeated_passages: int = 0
    titles: bool = False
    scores: bool = False
    extras: tuple[str, ...] = ()
    recognised: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, Passed] = field(default_factory=dict)

    @property
    def is_corpus(self) -> bool:
        """Whether the passages are a corpus of their own."""
        return self.documents > 0

    def too_much_lost(self, most: float) -> str:
        """Say why a curation would stop after ingest; empty if it would go on.

        most: the share of the rows that may be lost (`ingest.max_rejected`). The rows of a corpus are not weighed.
        """
        lost = {name: reason_of(name) for name in self.passed_over if reason_of(name).kind == "loss"}
        rest = [name for name, reason in lost.items() if reason.extent == "rest"]
        if rest and most < 1:
            return f"an unknown number of rows is missing ({', '.join(rest)})"
        rows = sum(self.passed_over[name].count for name, reason in lost.items() if reason.extent == "row")
        if self.is_corpus or rows <= most * (rows + self.rows):
            return ""
        return f"{rows:,} of {rows + self.rows:,} rows are lost"


def survey(folder: Path, most: int = MOST) -> Survey:
    """Read the beginning of a source.

    Raises:
        ConfigError: it is no source; the message says what it is.
    """
    try:
        source = open_source(folder)
        return _of_corpus(source, most) if isinstance(source, CorpusSource) else _of_rows(source, most)
    except IngestError as error:
        raise ConfigError(str(error).removeprefix("ingest: ")) from error


class _Count:
    """Counts texts, their lengths, and what is passed over."""

    def __init__(self) -> None:
        self.passed: dict[str, Passed] = {}
        self.seen: dict[str, set[int]] = {"query": set(), "passage": set()}
        self.lengths: dict[str, list[int]] = {"query": [], "passage": []}
        self.repeated = Counter[str]()

    def pass_over(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            known = self.passed.setdefault(problem.reason, Passed(0, f"{problem.key}: {problem.detail}"))
            known.count += 1

    def add(self, kind: str, texts: Iterable[str]) -> None:
        for text in texts:
            number = hash(text)
            self.repeated[kind] += number in self.seen[kind]
            self.seen[kind].add(number)
            self.lengths[kind].append(len(text))

    def facts(self) -> dict[str, Any]:
        medians = {kind: sorted(lengths)[len(lengths) // 2] for kind, lengths in self.lengths.items() if lengths}
        return {
            "query_chars": medians.get("query", 0),
            "passage_chars": medians.get("passage", 0),
            "repeated_queries": self.repeated["query"],
            "repeated_passages": self.repeated["passage"],
            "passed_over": self.passed,
        }


def _of_rows(source: RowSource, most: int) -> Survey:
    count, datasets, extras = _Count(), Counter[str](), set[str]()
    rows = bare = titles = scores = 0
    sides = Counter[bool]()
    complete = True
    for batch in source.batches():
        count.pass_over(batch.problems)
        count.add("query", batch.rows["query"])
        count.add("passage", batch.passages["text"])
        datasets.update(batch.rows["dataset"].fill_null("").to_list())
        extras.update(batch.extras["name"])
        sides.update(dict(batch.passages.group_by("positive").len().iter_rows()))
        rows += batch.rows.height
        bare += batch.rows.height - batch.passages.filter(~pl.col("positive"))["row"].n_unique()
        titles += batch.passages.filter(pl.col("title") != "").height
        scores += batch.passages["score"].count()
        if rows >= most:
            complete = False
            break
    if not rows:
        reasons = ", ".join(f"{reason} ({passed.first})" for reason, passed in count.passed.items())
        raise IngestError(f"the files hold no usable row{f': {reasons}' if reasons else ''}")
    return Survey(
        form=source.form,
        complete=complete,
        rows=rows,
        bare=bare,
        datasets=dict(datasets.most_common()),
        positives=sides[True] / rows,
        negatives=sides[False] / rows,
        queries=len(count.seen["query"]),
        titles=titles > 0,
        scores=scores > 0,
        extras=tuple(sorted(extras)),
        recognised=source.recognised,
        **count.facts(),
    )


def _of_corpus(source: CorpusSource, most: int) -> Survey:
    count = _Count()
    documents = titles = queries = 0
    complete = True
    for document in source.documents():
        if isinstance(document, Problem):
            count.pass_over([document])
            continue
        count.add("passage", [document.text])
        documents, titles = documents + 1, titles + bool(document.title)
        if documents >= most:
            complete = False
            break
    for query in source.queries():
        if isinstance(query, Problem):
            count.pass_over([query])
            continue
        count.add("query", [query.text])
        queries += 1
        if queries >= most:
            complete = False
            break
    if not documents or not queries:
        raise IngestError(f"the corpus holds {documents} usable passages and {queries} usable queries")
    splits = {name: _judged(source, name, most, count) for name in sorted(source.judged)}
    return Survey(
        form=source.form,
        complete=complete,
        documents=documents,
        queries=queries,
        splits={name: asked for name, asked in splits.items() if asked},
        titles=titles > 0,
        given=len({item.query_id for item in islice(source.negatives(), most) if not isinstance(item, Problem)}),
        recognised=source.recognised,
        **count.facts(),
    )


def _judged(source: CorpusSource, split: str, most: int, count: _Count) -> int:
    """Count the queries of a split."""
    asked = set[str]()
    for number, item in enumerate(source.judgements(split)):
        if number >= most:
            break
        if isinstance(item, Problem):
            count.pass_over([item])
        else:
            asked.add(item.query_id)
    return len(asked)
