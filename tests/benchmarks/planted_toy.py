"""A toy collection in the BEIR layout, and an untrained static model of its words."""

import json
from pathlib import Path

import numpy as np

from benchmarks.planted_data import Collection, Planted, plant, read_collection

TOPICS = ("cats", "dogs", "boats", "trees", "stars", "wines", "roads", "bells", "lamps", "coats")
WORDS = ("what", "about", "are", "nice", "old", "new", "red", "blue", "not")
RELEVANT = ("are nice", "are old", "are new", "are red")


def write_toy(folder: Path) -> Path:
    """Write ten queries with four relevant passages each but the last, which has one, and thirty others for each."""
    (folder / "qrels").mkdir(parents=True)
    passages, labels = [], []
    for place, topic in enumerate(TOPICS):
        for number, end in enumerate(RELEVANT):
            passages.append({"_id": f"p{place}-{number}", "title": "", "text": f"{topic} {end}"})
            if number == 0 or place < len(TOPICS) - 1:
                labels.append(f"q{place}\tp{place}-{number}\t{2 if number < 2 else 1}")
        passages.append({"_id": f"n{place}", "title": "", "text": f"not {topic} blue"})
        passages += [{"_id": f"m{place}-{n}", "title": "", "text": f"not {topic} {n}"} for n in range(29)]
    passages.append({"_id": "empty", "title": "", "text": " "})
    queries = [{"_id": f"q{place}", "text": f"what about {topic}"} for place, topic in enumerate(TOPICS)]
    for name, rows in (("corpus", passages), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(head + "\n".join(labels) + "\n")
    (folder / "qrels" / "minus1.tsv").write_text(f"{head}q0\tn0\t-1\n")
    return folder


def toy(folder: Path) -> tuple[Collection, Planted]:
    """Read the toy collection and plant in it, by scores that prefer passages of the query's topic."""
    collection = read_collection(write_toy(folder / "toy"))
    rng = np.random.default_rng(0)
    scores = rng.random((collection.queries.height, collection.passages.height)).astype(np.float32) / 2
    for row, query in enumerate(collection.queries["text"]):
        topic = query.rsplit(" ", 1)[-1]
        scores[row] += np.array([topic in text for text in collection.passages["text"]])
    return collection, plant(collection, scores)


def build_static(folder: Path) -> Path:
    """Build a static model of the toy's words."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    torch.manual_seed(0)
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(("[UNK]", *WORDS, *TOPICS))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu").save_pretrained(
        str(folder), create_model_card=False
    )
    return folder
