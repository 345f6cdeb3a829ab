"""The stages from ingest to treatments over small data, each given the tables that it asks for by name."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tasks import schemas
from tasks.data.ingest import IngestConfig, ingest
from tasks.data.treatments import TreatConfig, treat
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.mining.dense.search import search
from tasks.mining.hashing import HashConfig, hash_corpus
from tasks.mining.mine import MineConfig, mine
from tasks.mining.search import SearchConfig
from tasks.verdicts.decide import DecideConfig, decide

Tables = dict[str, pl.DataFrame]
_DIMENSION = 8
_PAIR = ["dataset", "query_id", "doc_id"]


def call(function: Callable[..., Mapping[str, Any]], config: object, tables: Mapping[str, Any]) -> Tables:
    """Call a stage with its tables, and put the parts of each output together."""
    wanted = {name: one for name, one in inspect.signature(function).parameters.items() if name != "config"}
    asked = {name: tables[name] for name, one in wanted.items() if name in tables or one.default is one.empty}
    made = function(config, **asked)
    tables = {name: found for name, found in made.items() if not isinstance(found, dict)}  # without a stage's facts
    return {name: found if isinstance(found, pl.DataFrame) else _join(found) for name, found in tables.items()}


def _join(parts: Iterable[pl.DataFrame | tuple[int, pl.DataFrame]]) -> pl.DataFrame:
    """Put frames together, or frames that come with the number of a part."""
    return pl.concat(part if isinstance(part, pl.DataFrame) else part[1] for part in parts)


def take_in(folder: Path, **config: object) -> Tables:
    """Ingest a folder."""
    return call(ingest, IngestConfig.model_validate({"dataset": "d"} | config), {"source": folder})


def find_candidates(data: Tables) -> Tables:
    """Adopt the given negatives and mine for the other queries; the tables of both are together."""
    texts = {"query_embeddings": _embed(data["queries"]), "passage_embeddings": _embed(data["passages"])}
    hashes = call(hash_corpus, HashConfig(), data)
    hits = call(search, SearchConfig(), {**data, **texts, **hashes})
    adopted = call(adopt, AdoptConfig(), data)
    mined = call(mine, MineConfig(num_negatives=3, range_max=6), {**data, **texts, **hits})
    return {name: pl.concat([made[name] for made in (adopted, mined) if name in made]) for name in {**adopted, **mined}}


def treated(data: Tables, found: Tables, states: Mapping[int, str], **config: object) -> Tables:
    """Let a judge of all candidates say the states in turn, decide, and treat."""
    pairs = found["candidates"]
    said = [states[n % len(states)] for n in range(pairs.height)]
    judged = {
        "candidates": pairs,
        "verdicts": _verdicts(pairs, "similarity", ["not_relevant"] * pairs.height),
        "llm_verdicts": _verdicts(pairs, "llm", said),
    }
    decided = call(decide, DecideConfig(mode="last"), judged)
    return call(treat, TreatConfig.model_validate(config), {**data, **found, **decided})


def _verdicts(pairs: pl.DataFrame, tier: str, states: Sequence[str]) -> pl.DataFrame:
    state = pl.Series("state", states, dtype=pl.String)
    empty = {name: pl.lit(None, dtype=schemas.VERDICTS.columns[name]) for name in ("grade", "preference", "call_id")}
    return pairs.select(
        *_PAIR,
        state,
        tier=pl.lit(tier),
        judge=pl.lit(tier),
        score=state.replace_strict({"relevant": 0.9, "unsure": 0.5, "not_relevant": 0.1, "unparsed": None}),
        attempt=pl.lit(1, dtype=pl.Int32),
        **empty,
    ).select(*schemas.VERDICTS.columns)


def _embed(texts: pl.DataFrame) -> pl.DataFrame:
    """Give each text a unit vector that depends on its hash alone."""
    hashes = texts["text_hash"].unique().sort()
    digests = [hashlib.sha256(text_hash.encode()).digest()[:_DIMENSION] for text_hash in hashes]
    vectors = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, _DIMENSION).astype(np.float32) - 127.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pl.DataFrame({"text_hash": hashes, "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, _DIMENSION))})
