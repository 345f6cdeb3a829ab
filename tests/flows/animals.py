"""A small source about animals and places, its settings, and the method run on it with fake engines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.config.load import parse_config
from flows.method.curate import curate_method
from flows.method.setup import Outcome, Setup, Tier
from infra.engines.specs import CrossEncoderSpec, SentenceTransformersSpec, VLLMSpec
from infra.stages.runner import Runner
from infra.storage.artifacts import write_directory
from infra.storage.store import Store
from tests.flows.fakes import InProcess

ANIMALS = ("otter", "heron", "lynx", "marten", "beaver", "raven", "viper", "toad", "hare", "boar", "stork", "trout")


PLACES = ("river", "forest", "mountain", "meadow")


def write_source(folder: Path, queries: int = 12) -> Path:
    """A BEIR folder: each animal in each place, one labelled passage per query, one more that is known relevant."""
    (folder / "qrels").mkdir(parents=True)
    corpus, asked, train, known, test = [], [], [], [], []
    for i, animal in enumerate(ANIMALS):
        for j, place in enumerate(PLACES):
            text = f"The {animal} lives near the {place}, where the {animal} hunts and sleeps in spring number {i * j}."
            corpus.append({"_id": f"{animal}-{place}", "title": "", "text": text})
    for i, animal in enumerate(ANIMALS[:queries]):
        asked.append({"_id": f"q{i}", "text": f"where does the {animal} live"})
        rows = test if i % 4 == 3 else train
        rows.append(f"q{i}\t{animal}-river\t1")
        if i % 4 != 3:
            known.append(f"q{i}\t{animal}-forest\t1")
    for name, rows in (("corpus", corpus), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, lines in (("train", train), ("test", test), ("known", known)):
        table = ["query-id\tcorpus-id\tscore", *lines]
        (folder / "qrels" / f"{name}.tsv").write_text("".join(f"{line}\n" for line in table))
    return folder


def tier(name: str = "llm", judge: dict[str, Any] | None = None, **escalate: Any) -> dict[str, Any]:
    band = {"lower": 0.0, "upper": 1.0, **escalate}
    return {"name": name, "escalate": band, "judge": judge or {}}


def make_setup(store: Store, source: Path, **changes: Any) -> Setup:
    config = {
        "name": "animals",
        "source": {"path": str(source)},
        "ingest": {"query_parts": 2, "passage_parts": 2, "known_split": "known"},
        "mine": {"range_max": 6, "num_negatives": 3},
        "similarity": {"relevant_from": 0.8, "not_relevant_below": 0.15},  # it counts, as in settings that name these
        "tiers": [tier()],
        "complete": {"max_unparsed": 0.5},
        "train": None,
        **changes,
    }
    parsed = parse_config(config, "test")
    spec = VLLMSpec(model="", digest="overlap-llm")
    reranker = CrossEncoderSpec(model="reranker", digest="reranker")
    return Setup(
        config=parsed,
        source=write_directory(store, "source", source),
        base_model=None,
        encoder=SentenceTransformersSpec(model="", digest="hash-encoder"),
        tiers=tuple(Tier.of(tier, parsed, spec, "overlap") for tier in parsed.tiers),
        encoders={name: SentenceTransformersSpec(model="", digest=name) for name in parsed.encoders},
        rescorer=parsed.rescore and Tier.of(parsed.rescore.tier, parsed, reranker, "reranker"),
        encoder_key="hash-encoder",
        base_model_key="hash-encoder",
        base_model_path="",
        page={},
    )


def run_method(
    tmp_path: Path, source: Path, judges: Mapping[str, object] | None = None, **changes: Any
) -> tuple[Outcome, Runner, InProcess]:
    """Run the method. judges: engines by the model's name; the reranker's is `reranker`."""
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch", judges)
    run = Runner(store, executor)
    outcome = curate_method(run, make_setup(store, source, **changes))
    assert {r.name: r.failed for r in run.runs if r.failed} == {}
    return outcome, run, executor


DATASETS = ("data/MS MARCO", "data/ms-marco", "fever")


def write_rows(folder: Path, datasets: tuple[str, ...] = DATASETS) -> Path:
    """Rows with negatives of several datasets, two of whose names differ in characters only that no file name bears."""
    folder.mkdir(parents=True)
    rows = []
    for d, dataset in enumerate(datasets):
        for i, animal in enumerate(ANIMALS):
            known = {"docid": f"{d}-{i}", "title": "", "text": f"The {animal} lives near river {d}."}
            others = [
                {"docid": f"{d}-{i}-{n}", "title": "", "text": f"The {animal} eats fish {n} of {d}."} for n in range(3)
            ]
            rows.append(
                {
                    "query_id": f"q{i}",
                    "query": f"where does the {animal} live {d}",
                    "positive_passages": [known],
                    "negative_passages": others,
                    "subset": dataset,
                }
            )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
