"""Show that `reneg prune` names the one of four sources that is noise, over three seeds.

The four sources are the documentation of numpy, polars, torch and scipy as installed: a query is the summary line of an
object, its positive is the rest of the documentation. In one of them the positives are shuffled among its queries,
those of its development and test queries too. The sources are curated and pruned by the real command line, with real
Ray and Prefect and a store in a folder. Each source is the noise once; in a last repetition none is.

The model is a vector for each token: those that MiniLM reads, reduced to 64 dimensions. Frequent words get shorter
vectors, by their place in the vocabulary. It trains in seconds.

    python -m benchmarks.prune_noise

writes benchmarks/results/prune_noise.json, and ends with 1 if a noisy source was not named alone (as one that hurts or
teaches nothing), or if a source was named that is no noise. The stores are in a temporary folder and removed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.models.resolve import resolve
from infra.settings import read_settings
from tasks.data.demo_corpus import MODULES, HarvestConfig, group_passages, is_query
from tasks.data.installed_docs import find_documentation
from tasks.statistics import holm
from tasks.texts import hash_text
from tasks.training.evaluate import ALL_DATASETS
from tasks.training.prune import HURTS, TEACHES_NOTHING

RESULT = Path(__file__).parent / "results" / "prune_noise.json"
TEACHER = "package:minilm"
TOKENS = "embeddings.word_embeddings.weight"  # the vectors of its vocabulary
_SCIPY = ("cluster", "fft", "integrate", "interpolate", "linalg", "ndimage", "optimize", "signal", "sparse")
SOURCES = {
    **{name: tuple(m for m in MODULES if m.split(".")[0] == name) for name in ("numpy", "polars", "torch")},
    "scipy": tuple(f"scipy.{name}" for name in (*_SCIPY, "constants", "spatial", "special", "stats")),
}
SALT = "pruning"
PAIRS = 400  # of each source; the smallest has 539
SEEDS = 3
DIMENSIONS = 64
NONE = "none"  # the repetition without noise
MEASURE = "nDCG@10"
LEVEL = 0.05  # as `reneg prune` has it
NAMED = (HURTS, TEACHES_NOTHING)

Pairs = Sequence[tuple[str, str]]  # a query and its positive


def read_pairs(modules: tuple[str, ...], count: int) -> list[tuple[str, str]]:
    """Read so many summary lines of installed modules, each with the rest of its documentation, in an order by hash."""
    config = HarvestConfig(modules=modules)
    groups, _ = group_passages(find_documentation(modules), config)
    found = [(group[0].summary, group[0].text) for group in groups if is_query(group[0].summary, config)]
    # Not by the hash of the query alone, which also decides what is held out.
    return sorted(found, key=lambda pair: hash_text(f"{SALT} {pair[0]}"))[:count]


def shuffled(pairs: Pairs, seed: int = 0) -> list[tuple[str, str]]:
    """Give every query the positive of another one."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    after = {int(one): int(next_) for one, next_ in zip(order, np.roll(order, 1), strict=True)}
    return [(query, pairs[after[number]][1]) for number, (query, _) in enumerate(pairs)]


def write_rows(path: Path, sources: Mapping[str, Pairs], noise: str) -> None:
    """Write all sources to one file of rows; the positives of the source `noise` are shuffled."""
    with path.open("w", encoding="utf-8") as file:
        for name, clean in sources.items():
            for number, (query, text) in enumerate(shuffled(clean) if name == noise else clean):
                positive = {"docid": hash_text(text)[:16], "title": "", "text": text}
                row: dict[str, Any] = {"query_id": f"{name}-{number}", "query": query, "subset": name}
                row |= {"positive_passages": [positive], "negative_passages": []}
                file.write(json.dumps(row) + "\n")


def build_static_model(teacher: Path, folder: Path, dimensions: int = DIMENSIONS) -> Path:
    """Make a model of one vector for each token from a transformer's own token vectors; returns its folder."""
    from safetensors.numpy import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vectors = load_file(teacher / "model.safetensors")[TOKENS].astype(np.float64)
    vectors -= vectors.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov(vectors.T))
    kept = vectors @ axes[:, np.argsort(spread)[::-1][:dimensions]]
    kept /= np.linalg.norm(kept, axis=1).mean()
    chance = 1.0 / np.arange(1, len(kept) + 1)  # by Zipf's law: the vocabulary is in the order of frequency
    kept *= (1e-3 / (1e-3 + chance / chance.sum()))[:, None]
    static = StaticEmbedding(tokenizer, embedding_weights=kept.astype(np.float32))
    SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


def settings(rows: Path, model: Path, name: str) -> dict[str, Any]:
    """Give the settings of the curation: nothing is judged, half of the queries are trained on."""
    return {
        "name": name,
        "source": {"path": str(rows)},
        "ingest": {"holdout": 0.25, "dev": 0.25, "query_parts": 1, "passage_parts": 1},
        "encoder": {"model": f"path:{model}"},
        "mine": {"range_max": 20, "num_negatives": 4},
        "tiers": [],
        "treatments": ["default"],
        "train_on": ["default"],
        "train": {"steps": 60, "batch_size": 64, "learning_rate": 0.01, "num_negatives": 3},
    }


def reneg(home: Path, *arguments: str) -> dict[str, Any]:
    """Run a command of the command line; returns the record that it prints last."""
    command = [sys.executable, "-m", "flows.cli", *arguments, "--json"]
    environment = {**os.environ, "RENEG_HOME": str(home), "RENEG_STORE": str(home / "store")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"reneg {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def repeat(sources: Mapping[str, Pairs], model: Path, folder: Path, noise: str, seeds: int) -> dict[str, Any]:
    """Curate the sources with one as the noise, and prune; returns the figures, and which sources were named."""
    folder.mkdir(parents=True)
    write_rows(folder / "rows.jsonl", sources, noise)
    config = folder / "config.json"
    config.write_text(json.dumps(settings(folder / "rows.jsonl", model, f"noise-{noise}")))
    started = time.monotonic()
    curation = reneg(folder / "home", "curate", str(config))["curation"]
    curated = time.monotonic()
    pruned = reneg(folder / "home", "prune", curation, "--treatment", "default", "--seeds", str(seeds), "--idle")
    summary = json.loads((Path(pruned["pages"]) / "pruning.json").read_text(encoding="utf-8"))
    return {
        "noise": noise,
        **named(summary, noise),
        "verdicts": summary["verdicts"][MEASURE],
        "by_all_queries": by_all_queries(summary),
        "seconds": {"curate": round(curated - started), "prune": round(time.monotonic() - curated)},
        "chosen_by": summary["chosen_by"],
        "left_out": {name: figures(rows) for name, rows in summary["comparisons"].items()},
        "on_test": {name: figures(rows) for name, rows in summary["test"].items()},
        "pruned_mix_on_test": figures(summary["pruned_mix"]["comparisons"]),
    }


def named(summary: Mapping[str, Any], noise: str) -> dict[str, Any]:
    """Tell which sources are said to hurt or to teach nothing, and whether these are the noise and nothing else."""
    said = {name: verdict for name, verdict in summary["verdicts"][MEASURE].items() if verdict in NAMED}
    return {"named": said, "found": list(said) == ([] if noise == NONE else [noise])}


def by_all_queries(summary: Mapping[str, Any]) -> list[str]:
    """Name the sources that all queries together say to hurt, those of the source itself too."""
    rows = {
        name: row
        for name, of in summary["comparisons"].items()
        for row in of
        if (row["dataset"], row["measure"]) == (ALL_DATASETS, MEASURE) and row["p_value"] is not None
    }
    corrected = dict(zip(rows, holm([row["p_value"] for row in rows.values()]), strict=True))
    return sorted(name for name, row in rows.items() if corrected[name] < LEVEL and row["difference"] > 0)


def figures(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Take the figures of the main measure by the held-out queries they are of, rounded."""
    wanted = ("queries", "baseline", "treatment", "difference", "low", "high", "p_value")
    return {
        row["dataset"]: {key: _rounded(row[key]) for key in wanted} for row in comparisons if row["measure"] == MEASURE
    }


def _rounded(value: float | None) -> float | None:
    return value if value is None else float(f"{value:.4g}")


def main() -> int:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description="One of four sources is noise")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of each source")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--noise", choices=(*SOURCES, NONE), action="append", help="default: each in turn, and none")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    sources = {name: read_pairs(modules, asked.pairs) for name, modules in SOURCES.items()}
    with tempfile.TemporaryDirectory() as place:
        model = build_static_model(resolve(TEACHER, read_settings().cache).path, Path(place) / "model")
        repetitions = []
        for noise in asked.noise or (*SOURCES, NONE):
            repetitions.append(repeat(sources, model, Path(place) / noise, noise, asked.seeds))
            print(json.dumps({key: repetitions[-1][key] for key in ("noise", "named", "found", "seconds")}))
    result = {
        "command": f"python -m benchmarks.prune_noise --pairs {asked.pairs} --seeds {asked.seeds}",
        "measure": MEASURE,
        "pairs": {name: len(pairs) for name, pairs in sources.items()},
        "found": sum(one["found"] for one in repetitions),
        "of": len(repetitions),
        "repetitions": repetitions,
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    missed = [one["noise"] for one in repetitions if not one["found"]]
    print("each was found" if not missed else f"NOT FOUND, or another was blamed, where the noise was {missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
