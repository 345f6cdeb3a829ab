"""Write the demo corpus: the documentation of installed libraries, as a BEIR folder.

A query is the summary line of an object; its positive passage is the rest of the object's documentation. Where several
objects have the same summary line, one of their passages is labelled and the others are known false negatives.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.data.docstring_text import cut, read_docstring, words
from tasks.data.installed_docs import find_documentation
from tasks.texts import hash_text

# Named one by one: which submodules a package has as attributes depends on what was imported.
MODULES = (
    *("numpy", "numpy.char", "numpy.fft", "numpy.lib.format", "numpy.lib.npyio", "numpy.lib.stride_tricks"),
    *("numpy.linalg", "numpy.ma", "numpy.polynomial", "numpy.polynomial.chebyshev", "numpy.polynomial.hermite"),
    *("numpy.polynomial.hermite_e", "numpy.polynomial.laguerre", "numpy.polynomial.legendre"),
    *("numpy.polynomial.polynomial", "numpy.random", "numpy.rec", "numpy.strings", "numpy.testing"),
    *("polars", "polars.api", "polars.expr.array", "polars.expr.binary", "polars.expr.categorical"),
    *("polars.expr.datetime", "polars.expr.list", "polars.expr.meta", "polars.expr.name", "polars.expr.string"),
    *("polars.expr.struct", "polars.io.partition", "polars.selectors", "polars.series.array"),
    *("polars.series.binary", "polars.series.categorical", "polars.series.datetime", "polars.series.list"),
    *("polars.series.string", "polars.series.struct", "polars.testing"),
    *("torch", "torch.accelerator", "torch.amp", "torch.autograd", "torch.autograd.functional"),
    *("torch.autograd.graph", "torch.autograd.profiler", "torch.backends.cuda", "torch.compiler", "torch.cpu"),
    *("torch.cuda", "torch.distributions", "torch.export", "torch.fft", "torch.func"),
    *("torch.futures", "torch.fx", "torch.hub", "torch.jit", "torch.library", "torch.linalg", "torch.masked"),
    *("torch.mps", "torch.mtia", "torch.multiprocessing", "torch.nested", "torch.nn", "torch.nn.functional"),
    *("torch.nn.init", "torch.nn.parallel", "torch.nn.utils", "torch.nn.utils.parametrizations"),
    *("torch.nn.utils.rnn", "torch.optim", "torch.optim.lr_scheduler", "torch.optim.swa_utils", "torch.overrides"),
    *("torch.package", "torch.profiler", "torch.random", "torch.serialization", "torch.signal.windows"),
    *("torch.sparse", "torch.special", "torch.testing", "torch.utils.data", "torch.xpu"),
)

# Beginnings of summary lines that say nothing about their object, or that are about another one.
_EMPTY_SUMMARIES = (
    *("see ", "see also", "alias for", "alias of", "deprecated", "refer to", "same as", "equivalent to", "like "),
    *("this is ", "this function", "this method", "this class", "note", "warning", "todo", "internal"),
    *("initialize self", "return self", "overloaded function", "in place version of", "out of place version of"),
    *("scalar method", "scalar attribute", "wrapper ", "decorator", "method equivalent", "for details"),
    *("performs the same", "convenience"),
)
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")  # the address of a default argument, which changes with each process
_LEAST_PASSAGES, _LEAST_QUERIES = 2000, 100


class HarvestConfig(BaseModel):
    """Which modules are read, how passages are cut, and how many queries and passages are kept.

    modules: modules of installed libraries. train_queries, test_queries: the most queries of each split. seed: of the
    choice of queries and passages. With the seed of another corpus, skip_shared and skip_unique leave out its queries:
    without them, two corpora have queries in common, also with different seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: tuple[str, ...] = Field(MODULES, min_length=1)
    passages: int = Field(2200, ge=1, description="Passages kept; those of the chosen queries always are.")
    train_queries: int = Field(110, ge=1)
    train_shared: int = Field(45, ge=0, description="Training queries whose summary line distinct texts share.")
    test_queries: int = Field(110, ge=1)
    test_shared: int = Field(45, ge=0, description="Held-out queries whose summary line distinct texts share.")
    min_chars: int = Field(120, ge=1, description="Shorter passages are left out.")
    max_chars: int = Field(600, ge=1, description="Longer passages are cut at the end of a sentence.")
    min_words: int = Field(4, ge=1, description="Shorter summary lines are no queries.")
    max_words: int = Field(25, ge=1, description="Longer summary lines are no queries.")
    max_sharers: int = Field(6, ge=2, description="Summary lines of more texts are left out with their texts.")
    seed: int = 0
    skip_shared: int = Field(
        0,
        ge=0,
        description="Queries whose summary line distinct texts share: the first so many are no queries of this corpus.",
        json_schema_extra={"keyed_when_set": True},
    )
    skip_unique: int = Field(
        0, ge=0, description="The same of the other queries.", json_schema_extra={"keyed_when_set": True}
    )


class HarvestError(ValueError):
    """The installed libraries have too little documentation for the configured corpus."""


@dataclass(frozen=True)
class Passage:
    """A passage with its shortest name, and how many names have this text."""

    doc_id: str
    summary: str
    text: str
    names: int


@dataclass(frozen=True)
class Selection:
    """The chosen passages, and the queries of both splits, each with all passages of its summary line."""

    passages: list[Passage]
    train: list[list[Passage]]
    test: list[list[Passage]]


def harvest(config: HarvestConfig, *, out: Path) -> dict[str, pl.DataFrame]:
    """Write the documentation of installed libraries below `out` as a BEIR folder with known false negatives.

    Writes `corpus.jsonl`, `queries.jsonl`, `qrels/train.tsv` (one labelled positive a query), `qrels/test.tsv` (every
    passage of the query's summary), `qrels/known.tsv` (the training queries' unlabelled passages of the same summary)
    and `harvest.json` (counts and library versions). Titles are empty, as a qualified name would reveal the answer.

    Raises:
        DocumentationError: a library is not installed.
        HarvestError: there are too few passages or queries.
    """
    documented = find_documentation(config.modules)
    groups, counts = group_passages(documented, config)
    chosen = select(groups, config)
    counts |= {
        "passages": len(chosen.passages),
        "train_queries": len(chosen.train),
        "train_shared": sum(len(group) > 1 for group in chosen.train),
        "known_false_negatives": sum(len(group) - 1 for group in chosen.train),
        "test_queries": len(chosen.test),
        "test_shared": sum(len(group) > 1 for group in chosen.test),
        "test_judgments": sum(len(group) for group in chosen.test),
    }
    _check_counts(counts, config)
    _write(chosen, counts, config, out)
    return {}


def group_passages(
    documented: Mapping[str, Sequence[str]], config: HarvestConfig
) -> tuple[list[list[Passage]], dict[str, int]]:
    """Group the distinct passages by their summary line, and count what is left out by reason.

    Args:
        documented: each docstring with the names that have it.
        config: how passages are cut, and which are left out.

    Returns:
        The groups sorted by summary line, each sorted by a hash of its doc_ids; and counts by name.
    """
    counts = {"names": sum(map(len, documented.values())), "docstrings": len(documented)}
    counts |= dict.fromkeys(("without_prose", "short", "tells_summary", "two_summaries"), 0)
    owners: dict[str, list[tuple[Sequence[str], str]]] = defaultdict(list)
    for doc in sorted(documented):
        read = read_docstring(doc)
        text = cut(read.body, config.max_chars) if read else ""
        if read is None or not words(read.summary) or _ADDRESS.search(text):
            counts["without_prose"] += 1
        elif len(text) < config.min_chars:
            counts["short"] += 1
        else:
            owners[text].append((documented[doc], read.summary))
    groups: dict[str, list[Passage]] = defaultdict(list)
    for text, found in owners.items():
        names = sorted((name for names, _ in found for name in names), key=lambda name: (len(name), name))
        summary = min(summary for _, summary in found)
        if len({words(summary) for _, summary in found}) > 1:  # the passage would answer two queries
            counts["two_summaries"] += 1
        elif f" {words(summary)} " in f" {words(text)} ":
            counts["tells_summary"] += 1
        else:
            groups[words(summary)].append(Passage(names[0], summary, text, len(names)))
    kept = [_by_hash(groups[key], config.seed) for key in sorted(groups) if len(groups[key]) <= config.max_sharers]
    counts["distinct_texts"] = len(owners)
    counts["texts_with_several_names"] = sum(it.names > 1 for group in groups.values() for it in group)
    counts["widely_shared"] = sum(len(group) for group in groups.values() if len(group) > config.max_sharers)
    counts["summaries"] = len(kept)
    counts["shared_summaries"] = sum(len(group) > 1 for group in kept)
    return kept, counts


def select(groups: list[list[Passage]], config: HarvestConfig) -> Selection:
    """Choose queries of both splits and passages by hash. The order of the groups makes no difference."""
    asked = [group for group in groups if is_query(group[0].summary, config)]
    order = sorted(asked, key=lambda group: _rank(words(group[0].summary), config.seed))
    shared = [group for group in order if len(group) > 1][config.skip_shared :]
    unique = [group for group in order if len(group) == 1][config.skip_unique :]
    train = shared[: min(config.train_shared, config.train_queries)]
    test = shared[len(train) :][: min(config.test_shared, config.test_queries)]
    # Where there are too few queries for both splits, each gets half: a split without queries cannot be used.
    wanted = config.train_queries - len(train)
    rest = config.test_queries - len(test)
    at = min(wanted, max(len(unique) - rest, len(unique) // 2))
    train, test = train + unique[:at], test + unique[at : at + rest]
    needed = [passage for group in (*train, *test) for passage in group]
    taken = {passage.doc_id for passage in needed}
    others = [passage for group in groups for passage in group if passage.doc_id not in taken]
    fill = _by_hash(others, config.seed)[: max(config.passages - len(needed), 0)]
    return Selection(sorted([*needed, *fill], key=lambda passage: passage.doc_id), train, test)


def is_query(summary: str, config: HarvestConfig) -> bool:
    """Tell whether a summary line says enough about its object to be a query.

    >>> is_query("Get the first n rows.", HarvestConfig()), is_query("See numpy.abs for its use.", HarvestConfig())
    (True, False)
    """
    simple = words(summary)
    count = len(simple.split())
    formula = "\\" in summary or "{" in summary or "://" in summary
    return config.min_words <= count <= config.max_words and not formula and not simple.startswith(_EMPTY_SUMMARIES)


def _rank(key: str, seed: int) -> str:
    return hash_text(f"{seed}\x1f{key}")


def _by_hash(passages: Iterable[Passage], seed: int) -> list[Passage]:
    return sorted(passages, key=lambda passage: _rank(passage.doc_id, seed))


def _check_counts(counts: Mapping[str, int], config: HarvestConfig) -> None:
    least = min(config.passages, _LEAST_PASSAGES)
    if counts["passages"] < least:
        raise HarvestError(
            f"harvest: {counts['passages']} passages found, at least {least} needed; "
            "name more modules in `modules`, lower `min_chars` or ask for fewer `passages`"
        )
    queries = counts["train_queries"] + counts["test_queries"]
    least = min(config.train_queries + config.test_queries, _LEAST_QUERIES)
    if queries < least or not counts["train_queries"] or not counts["test_queries"]:
        raise HarvestError(
            f"harvest: {queries} queries found, at least {least} needed, in both splits; "
            "name more modules in `modules` or ask for fewer `train_queries` and `test_queries`"
        )


def _write(chosen: Selection, counts: Mapping[str, int], config: HarvestConfig, out: Path) -> None:
    """Write the BEIR folder. The id of a query is a hash of its summary line."""
    labelled = [(group, group[:1]) for group in chosen.train]
    known = [(group, group[1:]) for group in chosen.train]
    held_out = [(group, group) for group in chosen.test]
    queries = {_query_id(group): group[0].summary for group in (*chosen.train, *chosen.test)}
    (out / "qrels").mkdir(parents=True, exist_ok=True)
    _write_lines(out / "corpus.jsonl", [{"_id": it.doc_id, "title": "", "text": it.text} for it in chosen.passages])
    _write_lines(out / "queries.jsonl", [{"_id": key, "text": queries[key]} for key in sorted(queries)])
    for name, judged in {"train": labelled, "test": held_out, "known": known}.items():
        lines = sorted(f"{_query_id(group)}\t{it.doc_id}\t1" for group, passages in judged for it in passages)
        _write_text(out / "qrels" / f"{name}.tsv", "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    roots = sorted({name.partition(".")[0] for name in config.modules})
    facts = {"counts": dict(sorted(counts.items())), "versions": {root: _version(root) for root in roots}}
    _write_text(out / "harvest.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")


def _version(root: str) -> str:
    try:
        return metadata.version(root)
    except metadata.PackageNotFoundError:
        return "unknown"


def _query_id(group: list[Passage]) -> str:
    return "q-" + hash_text(words(group[0].summary))[:16]


def _write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    _write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
