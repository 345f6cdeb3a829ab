"""Prepare a collection of `benchmarks.planted` in a folder: the static model and what it mines, kept there."""

from pathlib import Path

import numpy as np

from benchmarks.planted_base import TOKENS, build_static_model, remembered_tokens
from benchmarks.planted_data import Collection, Planted, plant, read_collection
from benchmarks.planted_folds import SEED
from infra.models.resolve import resolve
from infra.settings import read_settings
from tasks.evaluation.encoding import load_model
from tasks.texts import show_passage

ENCODER = "package:minilm"
BASE = "static"  # the folder of the static model


def encoder_folder() -> Path:
    """Return the folder of MiniLM."""
    return resolve(ENCODER, read_settings().cache, print).path


def prepare(folder: Path, data: Path, name: str, seed: int = SEED) -> tuple[Collection, Planted, Path]:
    """Return the collection, its planted rows, and the folder of its static model. seed: of the deal."""
    collection = read_collection(data / name, seed)
    here = folder / name
    here.mkdir(parents=True, exist_ok=True)
    base, mined = here / BASE, here / "mined.npy"
    texts = [show_passage(title, text) for title, text in collection.passages["title", "text"].iter_rows()]
    if not base.exists():
        build_static_model(encoder_folder(), [*texts, *collection.queries["text"]], base)
    if not mined.exists():
        model = load_model(base, device="cpu", dtype="float32", max_seq_length=TOKENS, batch_size=64)
        with remembered_tokens({}):
            np.save(mined, model.encode(collection.queries["text"].to_list(), "") @ model.encode(texts, "").T)
    return collection, plant(collection, np.load(mined)), base
