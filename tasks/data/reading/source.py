"""Open a source: find out what its folder holds, and give readers for it."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import polars as pl

from tasks.data.layouts.fields import CorpusFormat, Format, Layout, layout_of
from tasks.data.reading import beir, qrels
from tasks.data.reading.columns import fits, read_columns
from tasks.data.reading.files import SourceFile, list_files, not_read, of_split, split_of
from tasks.data.reading.ids import Identities
from tasks.data.reading.objects import read_frames, read_objects
from tasks.data.reading.passages import PassageKeys
from tasks.data.reading.records import Batch, Given, IngestError, Judgement, Passage, Query, batches_of
from tasks.data.reading.rows import RowOptions, read_rows
from tasks.lines import Problem

_OPTIONS = RowOptions()
_SHOWN = 200  # characters of keys that an error names
_PART = r"(-\d{5}-of-\d{5}|-\d+)?[./].*"  # what follows the name of a part of a corpus, as a file or as a folder
_SPLIT = re.compile(r"(?P<split>.+?)(-\d{5}-of-\d{5}|-\d+)?(\.[a-z]+)*", re.IGNORECASE)
_JUDGED = ("qrels", "default", "data")  # folders of qrels: BEIR's, and those of the Hugging Face hub
_COLUMNS = ("tsv", "csv", "columns")  # kinds of files whose lines hold columns


@dataclass(frozen=True)
class RowSource:
    """Training rows that carry their passages.

    passed_over: a problem for each file of the source that is not read.
    recognised: which field of the first usable row holds what, by role (`query`, `positive`, …).
    """

    form: Format
    files: Sequence[SourceFile]
    passed_over: Sequence[Problem] = ()
    options: RowOptions = _OPTIONS
    recognised: Mapping[str, str] = field(default_factory=dict)

    def batches(self, apart: Callable[[str], Iterator[Batch] | None] | None = None) -> Iterator[Batch]:
        """Yield the rows of all files, in the order of the files' names; first, what is passed over.

        apart: returns the batches of a file that was read before, by its name; None for a file that is read here. It is
        asked for one file after another, each time when all batches of the file before were taken.
        """
        if self.passed_over:
            yield from batches_of(self.passed_over)
        identities = Identities(several=len(self.files) > 1)
        for file in self.files:
            found = None if apart is None else apart(file.name)
            batches = batches_of_file(file, self.options) if found is None else found
            yield from identities.of_file(file.name, batches)


def batches_of_file(file: SourceFile, options: RowOptions) -> Iterator[Batch]:
    """Yield the rows of a file: by column where its layout allows it, else row by row."""
    if file.kind in ("parquet", "arrow"):
        frames = read_frames(file, options.limits)
        begun: list[tuple[int, pl.DataFrame] | Problem] = []
        for item in frames:
            begun.append(item)
            if not isinstance(item, Problem):
                if fits(item[1].schema, options):
                    return read_columns(chain(begun, frames), file.name, options)
                break
    return batches_of(read_rows(read_objects(file, options.limits), file.name, options))


@dataclass(frozen=True)
class CorpusSource:
    """A corpus with queries, and judgements in splits.

    Attributes:
        form: `beir`, or `tevatron-ids` where the rows of the queries name their passages by id.
        corpus: files with the passages.
        asked: files with the queries; of `tevatron-ids` all splits.
        judged: files with judgements, by split.
        runs: files with given candidates.
        passed_over: a problem for each file of the source that is not read.
        recognised: which field of the first row of each part holds what, by role.
    """

    form: CorpusFormat
    corpus: Sequence[SourceFile]
    asked: Sequence[SourceFile]
    judged: Mapping[str, Sequence[SourceFile]]
    runs: Sequence[SourceFile] = ()
    passed_over: Sequence[Problem] = ()
    options: RowOptions = _OPTIONS
    recognised: Mapping[str, str] = field(default_factory=dict)

    def documents(self) -> Iterator[Passage | Problem]:
        """Yield the passages of the corpus."""
        for file in self.corpus:
            yield from beir.read_corpus(self._objects(file), file.name, self.options.names)

    def queries(self) -> Iterator[Query | Problem]:
        """Yield the queries of all splits."""
        for file in self.asked:
            if self.form == "beir":
                yield from beir.read_queries(self._objects(file), file.name, self.options.names)
                continue
            for item in beir.read_references(self._objects(file), file.name, self.options.names):
                if isinstance(item, Problem):
                    yield item
                else:
                    yield item.query
                    yield from item.problems

    def has_split(self, split: str) -> bool:
        """Whether judgements of a split can be asked for. In a BEIR folder a missing one is an error."""
        return self.form == "beir" or split in self.judged

    def judgements(self, split: str) -> Iterator[Judgement | Problem]:
        """Yield the judgements of a split.

        Raises:
            IngestError: there is no such split; at once, not when the first one is asked for.
        """
        if split not in self.judged:
            there = ", ".join(sorted(self.judged)) or "none"
            wanted = f"qrels/{split}.tsv" if self.form == "beir" else f"a file of the split {split}"
            raise IngestError(f"ingest: {wanted} not found; splits there are: {there}. Set train_split and test_split")
        return (item for file in self.judged[split] for item in self._judgements(file))

    def negatives(self) -> Iterator[Given | Problem]:
        """Yield the candidates that the source gives for its queries, each query's in the order of their ranks."""
        for file in self.runs:
            yield from qrels.read_run(file.path, file.name, self.options.limits)
        for file in self.asked if self.form == "tevatron-ids" else ():
            for item in self._references(file):
                yield from item.given()

    def _judgements(self, file: SourceFile) -> Iterator[Judgement | Problem]:
        if self.form == "tevatron-ids":
            return (judgement for item in self._references(file) for judgement in item.judgements())
        if file.kind in _COLUMNS or file.name.endswith((".tsv", ".tsv.gz")):
            return qrels.read_qrels(file.path, file.name, self.options.limits, self.options.names)
        return qrels.judgements_of(self._objects(file), self.options.names)

    def _references(self, file: SourceFile) -> Iterator[beir.Reference]:
        """Yield the usable rows; `queries` reports the others."""
        items = beir.read_references(self._objects(file), file.name, self.options.names)
        return (item for item in items if isinstance(item, beir.Reference))

    def _objects(self, file: SourceFile) -> beir.Objects:
        return read_objects(file, self.options.limits)


def open_source(
    folder: Path,
    form: Format | None = None,
    options: RowOptions = _OPTIONS,
    *,
    split: str = "train",
    run: str | None = None,
) -> RowSource | CorpusSource:
    """Return the readers of a folder; without `form` the layout is found out.

    Args:
        folder: with the files.
        form: the layout that all rows must have; None: each row is read by its own.
        options: names of fields, limits, and the lowest label of a positive.
        split: of training rows only its files are read, if the names of files say which split they hold.
        run: the name of the file of given candidates in `runs/`, where there are several.

    Raises:
        IngestError: no file and no row fits a known format.
    """
    files, problems = list_files(folder)
    options = replace(options, form=form)
    parts = _Parts(files, options)
    if form in ("beir", None) and parts.corpus and parts.queries and not parts.references(parts.queries):
        return parts.beir(problems, run)
    if form == "beir":
        raise IngestError("ingest: a BEIR folder needs corpus.jsonl and queries.jsonl (or .gz) at its top")
    if form in ("tevatron-ids", None) and parts.corpus and (asked := parts.references(parts.rest)):
        return parts.tevatron_ids(asked, problems, run)
    if form == "tevatron-ids":
        raise IngestError("ingest: rows with ids of passages need a corpus (corpus.jsonl or corpus/) beside them")
    kept, others = of_split(parts.rest or files, split)
    unneeded = [not_read(file, "a corpus; rows with passages of their own do not need it") for file in parts.corpus]
    passed_over = [*problems, *others, *(unneeded if parts.rest else ())]
    layout = _first_layout(kept, passed_over, options)
    if layout is None:
        return RowSource(form or "tevatron", kept, passed_over, options)
    return RowSource(form or layout.form, kept, passed_over, options, layout.recognised())


def files_of_rows(names: Iterable[str], form: str, split: str) -> list[str]:
    """Return the files that `open_source` reads as training rows, as far as their names tell, in its order.

    Which of them hold no rows is only found out when they are read. There are none where the names tell of a corpus.

    Args:
        names: of all files of a source.
        form: the layout that is asked for, or `auto`.
        split: whose files are read, where names of files say which split they hold.
    """
    ordered = sorted(names, key=lambda name: name.split("/"))
    if form in ("beir", "tevatron-ids") or any(re.fullmatch("corpus" + _PART, name) for name in ordered):
        return []
    rest = [name for name in ordered if not name.startswith("runs/")] or ordered
    kept, _ = of_split([SourceFile(Path(name), name, "lines") for name in rest], split)
    return [file.name for file in kept]


class _Parts:
    """The files of a folder by what their names say."""

    def __init__(self, files: Sequence[SourceFile], options: RowOptions) -> None:
        self.options = options
        self.corpus = [file for file in files if re.fullmatch("corpus" + _PART, file.name)]
        self.queries = [file for file in files if re.fullmatch("queries" + _PART, file.name)]
        self.runs = [file for file in files if file.name.startswith("runs/")]
        judged = {top: [file for file in files if file.name.startswith(f"{top}/")] for top in _JUDGED}
        self.judged = next((found for found in judged.values() if found), [])
        named = (*self.corpus, *self.runs)
        self.rest = [file for file in files if file not in named]

    def references(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Return the files whose first object names passages by id."""
        return [file for file in files if any(beir.reference_keys(self._first(file), self.options.names))]

    def beir(self, problems: Sequence[Problem], run: str | None) -> CorpusSource:
        """Return the readers of corpus, queries and qrels."""
        splits: dict[str, list[SourceFile]] = {}
        for file in self.judged:
            splits.setdefault(_split(file), []).append(file)
        used = (*self.queries, *self.judged)
        unused = [not_read(file, "in no part of a BEIR folder") for file in self.rest if file not in used]
        first = self._first(self.queries[0])
        keys = beir.query_keys(first, self.options.names)
        return self._source("beir", self.queries, splits, [*problems, *unused], run, keys)

    def tevatron_ids(self, asked: list[SourceFile], problems: Sequence[Problem], run: str | None) -> CorpusSource:
        """Return the readers of rows that name their passages by id, and of their corpus."""
        splits: dict[str, list[SourceFile]] = {}
        for file in asked:
            splits.setdefault(split_of(file.name) or "train", []).append(file)
        unused = [not_read(file, "its rows name no passages") for file in self.rest if file not in asked]
        first, names = self._first(asked[0]), self.options.names
        sides = beir.reference_keys(first, names)
        shown = {role: ", ".join(side) for role, side in zip(("positive", "negative"), sides, strict=True) if side}
        keys = beir.query_keys(first, names) | shown
        return self._source("tevatron-ids", asked, splits, [*problems, *unused], run, keys)

    def _source(
        self,
        form: CorpusFormat,
        asked: Sequence[SourceFile],
        splits: Mapping[str, Sequence[SourceFile]],
        problems: Sequence[Problem],
        run: str | None,
        recognised: Mapping[str, str],
    ) -> CorpusSource:
        keys = PassageKeys.of(tuple(self._first(self.corpus[0])), self.options.names).recognised()
        return CorpusSource(
            form, self.corpus, asked, splits, self._run(run), problems, self.options, {**recognised, **keys}
        )

    def _run(self, wanted: str | None) -> list[SourceFile]:
        """Return the run that the settings name, or the only one."""
        found = [file for file in self.runs if wanted in (None, file.name, file.name.removeprefix("runs/"))]
        if (wanted and not found) or len(found) > 1:
            names = ", ".join(file.name for file in self.runs) or "none"
            raise IngestError(f"ingest: one run is read, and those there are: {names}. Name it in ingest.run")
        return found

    def _first(self, file: SourceFile) -> Mapping[str, object]:
        """Return the first object of a file; empty where there is none."""
        items = read_objects(file, self.options.limits)
        return next((item[1] for item in items if not isinstance(item, Problem)), {})


def _split(file: SourceFile) -> str:
    """Return the split that a file of qrels is named after: `qrels/test.tsv`, `data/test-00000-of-00001.parquet`."""
    match = _SPLIT.fullmatch(file.name.rpartition("/")[2])
    return match["split"] if match else file.name


def _first_layout(files: Sequence[SourceFile], problems: Sequence[Problem], options: RowOptions) -> Layout | None:
    """Return the layout of the first row that has a known one; its keys decide. None where a layout is asked for.

    Raises:
        IngestError: there is none, and none is asked for.
    """
    first = "".join(f"; {item.key}: {item.detail}" for item in problems if item.reason == "not_read")[:_SHOWN]
    for file in files:
        for item in read_objects(file, options.limits):
            if isinstance(item, Problem):
                first = first or f"; {item.key}: {item.reason} ({item.detail})"
                continue
            layout = layout_of(tuple(item[1]), options.names)
            if layout.is_usable:
                return layout
            first = first or f"; {item[0]} has {', '.join(sorted(item[1]))[:_SHOWN] or 'no keys'}"
    if options.form is not None:
        return None
    raise IngestError(
        f"ingest: no row of a known format in {len(files)} file(s){first}. Expected rows with query_id, query, "
        "positive_passages, negative_passages (tevatron), query, pos, neg (flagembedding), a query and its positive "
        "with or without negatives (sentence-transformers), or a folder with corpus.jsonl, queries.jsonl and qrels/ "
        "(beir). ingest.fields names fields that are called otherwise"
    )
