"""Judge the pairs of `benchmarks.planted`: similarity by MiniLM, and a 1.5B language model on a share of the pairs.

    python -m benchmarks.planted_judges --folder FOLDER --data FOLDER [--asked 300] [--deal 20]

No judge reads what was planted in the collection that it judges. The weights of similarity, and those by which both
tiers are added, were fitted on TREC DL 2019 (`benchmarks/results/judge.json`, "cascade"). The score from which a pair
is relevant is the one with the best F1 on what was planted in the other collection. A pair that the language model was
not asked about is decided by similarity; without --asked that is every pair. Answers are kept in a ledger in the
folder, and the decisions as a table for each collection.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.judge import ENCODER, MODEL, Costs, Engine, name_judge
from benchmarks.planted_data import COLLECTIONS, Collection, Planted
from benchmarks.planted_folds import SEED
from benchmarks.planted_setup import prepare
from infra.engines.kinds import environment
from infra.engines.specs import SentenceTransformersSpec, VLLMSpec
from infra.ledger.ledger import Ledger
from infra.models.resolve import resolve
from infra.settings import read_settings
from infra.storage.store import Store
from tasks.judging.config import JudgeConfig
from tasks.judging.judge import judge
from tasks.judging.similarity import SimilarityConfig, judge_similarity
from tasks.mining.encode import EncodeConfig, encode_passages, encode_queries
from tasks.schemas import VERDICTS
from tasks.verdicts.decide import DecideConfig, decide
from tasks.verdicts.escalate import EscalateConfig, escalate

FITTED = Path(__file__).parent / "results" / "judge.json"  # the weights of the tiers
UNSURE = 0.6  # a pair is unsure from this share of the score from which it is relevant (0.3 of 0.5)
ASKED_FROM, ASKED_TO = 0.3, 0.8  # similarity between which the language model is asked, the highest first
PASSAGE_CHARS = 1500  # of a window
TOKENS = 128  # of a passage that similarity reads
SIMILARITY, FEATURES = "similarity.parquet", "features.parquet"  # in the folder of a collection
_PAIR = ["dataset", "query_id", "doc_id"]


@dataclass(frozen=True)
class Judged:
    """What the judges say: `decisions`, and facts about them."""

    decisions: pl.DataFrame
    facts: dict[str, Any]


def path_of(folder: Path, name: str) -> Path:
    """Name the file with the decisions of a collection."""
    return folder / name / "decisions.parquet"


def other_of(name: str) -> str:
    """Return the collection whose labels may be read to judge this one."""
    return next(one for one in COLLECTIONS if one != name)


def weigh(relevant_from: float) -> DecideConfig:
    """Return how the tiers are added, by the weights that were fitted on TREC DL 2019."""
    fitted = json.loads(FITTED.read_text(encoding="utf-8"))["fitted"]["cascade"]
    return DecideConfig(
        weights={"similarity": fitted["weights"]["similarity"], "llm": fitted["weights"]["yes_no"]},
        bias=fitted["bias"],
        relevant_from=relevant_from,
        not_relevant_below=relevant_from * UNSURE,
        similarity_decides=True,
    )


def by_similarity(collection: Collection, planted: Planted, encoder: Any) -> dict[str, pl.DataFrame]:
    """Return the verdicts of similarity on all candidates, all unsure as no threshold is set, and its features."""
    return judge_similarity(
        SimilarityConfig(),
        candidates=planted.candidates,
        positives=planted.positives,
        query_embeddings=encode_queries(EncodeConfig(), queries=collection.queries, engine=encoder)["embeddings"],
        passage_embeddings=encode_passages(EncodeConfig(), passages=collection.passages, engine=encoder)["embeddings"],
    )


def choose_threshold(planted: Planted, verdicts: pl.DataFrame) -> float:
    """Return the score with the best F1 on the picked negatives, those that were planted being relevant."""
    picked = verdicts.join(planted.negatives, on=_PAIR, how="semi").join(
        planted.hidden.select("query_id", "doc_id", is_hidden=pl.lit(1)), on=["query_id", "doc_id"], how="left"
    )
    falling = picked.sort("score", descending=True)
    found = falling["is_hidden"].fill_null(0).cum_sum().to_numpy()
    f1 = 2 * found / (np.arange(1, len(found) + 1) + planted.hidden.height)
    return round(float(falling["score"][int(f1.argmax())]), 4)


def with_threshold(verdicts: pl.DataFrame, relevant_from: float) -> pl.DataFrame:
    """Return the verdicts with states by their scores."""
    state = (
        pl.when(pl.col("score") >= relevant_from)
        .then(pl.lit("relevant"))
        .when(pl.col("score") < relevant_from * UNSURE)
        .then(pl.lit("not_relevant"))
        .otherwise(pl.lit("unsure"))
    )
    return verdicts.with_columns(state=state)


def asked_of(planted: Planted, verdicts: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return the picked negatives that the language model is asked about."""
    picked = planted.candidates.join(planted.negatives, on=_PAIR, how="semi")
    config = EscalateConfig(states=(), lower=ASKED_FROM, upper=ASKED_TO, max_pairs=most)
    return escalate(config, candidates=picked, verdicts=verdicts.join(picked, on=_PAIR, how="semi"))["escalated"]


def combine(planted: Planted, verdicts: pl.DataFrame, answers: pl.DataFrame, relevant_from: float) -> Judged:
    """Add the tiers up, and measure the decisions on the picked negatives against what was planted."""
    asked = answers.select(_PAIR)
    both = decide(weigh(relevant_from), candidates=planted.candidates, verdicts=verdicts, llm_verdicts=answers)[
        "decisions"
    ]
    rest = verdicts.join(asked, on=_PAIR, how="anti").with_columns(tier=pl.lit("cascade")).select(both.columns)
    decisions = pl.concat([both.join(asked, on=_PAIR, how="semi"), rest]).sort(VERDICTS.key)
    return Judged(decisions, {"asked": asked.height, **measure(planted, decisions)})


def measure(planted: Planted, decisions: pl.DataFrame) -> dict[str, Any]:
    """Count the decisions on the picked negatives: recall and precision on what was planted."""
    picked = decisions.join(planted.negatives, on=_PAIR, how="semi").join(
        planted.hidden.select("query_id", "doc_id", hidden=pl.lit(True)), on=["query_id", "doc_id"], how="left"
    )
    called = picked.filter(pl.col("state") == "relevant")
    found = int(called["hidden"].sum() or 0)
    return {
        "called_relevant": called.height,
        "unsure": picked.filter(pl.col("state") == "unsure").height,
        "recall_of_planted": round(found / max(planted.hidden.height, 1), 4),
        "precision_on_planted": round(found / max(called.height, 1), 4),
    }


def main() -> int:
    """Judge the collections whose decisions are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the collections")
    parser.add_argument("--asked", type=int, default=0, help="pairs per collection that the language model gets")
    parser.add_argument("--deal", type=int, default=SEED, help="seed of the folds and of what is planted")
    arguments = parser.parse_args()
    cache = read_settings().cache
    model = resolve(MODEL, cache, print) if arguments.asked else None
    engine = None
    if model is not None:
        spec = VLLMSpec(model=str(model.path), digest=model.digest, threads=2, max_model_len=4096, cpu_kvcache_gib=2.0)
        variables = environment(spec)
        if any(os.environ.get(name) != value for name, value in variables.items()):
            again = [sys.executable, "-m", "benchmarks.planted_judges", *sys.argv[1:]]
            os.execve(sys.executable, again, os.environ | variables)  # they are read when libraries are imported
        engine = Engine(spec, Costs.read(arguments.folder / "costs.json"))
    for name in COLLECTIONS:
        if not (arguments.folder / name / SIMILARITY).exists():
            _compare_collection(arguments, name)
    for name in COLLECTIONS:
        if not path_of(arguments.folder, name).exists():
            _judge_collection(arguments, name, engine, "" if model is None else model.name)
    return 0


def _compare_collection(arguments: argparse.Namespace, name: str) -> None:
    from infra.engines.encoder import EncoderEngine

    collection, planted, _ = prepare(arguments.folder, arguments.data, name, arguments.deal)
    minilm = resolve(ENCODER, read_settings().cache, print)
    spec = SentenceTransformersSpec(model=str(minilm.path), digest=minilm.digest, device="cpu", max_seq_length=TOKENS)
    encoder = EncoderEngine(spec)
    found = by_similarity(collection, planted, encoder)
    encoder.close()
    found["features"].write_parquet(arguments.folder / name / FEATURES)
    found["verdicts"].write_parquet(arguments.folder / name / SIMILARITY)


def _judge_collection(arguments: argparse.Namespace, name: str, engine: Engine | None, model: str) -> None:
    collection, planted, _ = prepare(arguments.folder, arguments.data, name, arguments.deal)
    _, elsewhere, _ = prepare(arguments.folder, arguments.data, other_of(name), arguments.deal)
    fitted = choose_threshold(elsewhere, pl.read_parquet(arguments.folder / other_of(name) / SIMILARITY))
    verdicts = with_threshold(pl.read_parquet(arguments.folder / name / SIMILARITY), fitted)
    answers = VERDICTS.empty()
    cost: Mapping[str, float] = {}
    if engine is not None:
        asked = asked_of(planted, verdicts, arguments.asked)
        config = name_judge(JudgeConfig(protocol="yes_no", passage_chars=PASSAGE_CHARS), model, engine.spec)
        texts = {"queries": collection.queries, "passages": collection.passages, "positives": planted.positives}
        with Ledger(Store.open(str(arguments.folder / "ledger"))) as ledger:
            found = judge(config, escalated=asked, **texts, engine=engine, ledger=ledger)
        answers, cost = found["verdicts"], engine.costs.total(found["calls"]["call_id"].to_list())
    made = combine(planted, verdicts, answers, fitted)
    facts = {
        "relevant_from": fitted,
        **made.facts,
        "similarity_alone": measure(planted, verdicts),
        "language_model": model or None,
        **cost,
    }
    (arguments.folder / name / "judges.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    made.decisions.write_parquet(path_of(arguments.folder, name))
    print(name, facts, flush=True)


if __name__ == "__main__":
    sys.exit(main())
