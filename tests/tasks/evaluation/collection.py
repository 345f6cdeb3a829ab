"""A small BEIR folder with all that makes evaluations differ, and a model of word vectors for it.

Queries and passages share ids. Labels have grades, and some name passages that the corpus does not hold. One query has
no relevant passage. Run with a folder, `python -m tests.tasks.evaluation.collection FOLDER` writes both there.
"""

import json
import sys
from pathlib import Path
from typing import Literal

import numpy as np

WORDS = [f"word{number}" for number in range(60)]


def write_collection(folder: Path) -> Path:
    """Write 300 passages and 40 queries, whose ids are those of passages with another text."""
    rng = np.random.default_rng(7)
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": f"a{n}", "title": "" if n % 3 else WORDS[n % 60], "text": " ".join(rng.choice(WORDS, 12))}
        for n in range(300)
    ]
    queries = [{"_id": f"a{n * 7}", "text": " ".join(rng.choice(corpus[n * 7]["text"].split(), 6))} for n in range(40)]
    labels = ["query-id\tcorpus-id\tscore"]
    for number, query in enumerate(queries):
        asked = set(str(query["text"]).split())
        shared = {one["_id"]: len(asked & set(one["text"].split())) for one in corpus}
        near = sorted(shared, key=lambda id_: (-shared[id_], id_))[:12]
        for place, doc_id in enumerate(rng.permutation(near)[:5].tolist()):
            grade = 0 if number == 3 else int(place % 3)
            labels.append(f"{query['_id']}\t{doc_id}\t{grade}")
        if number % 4 == 0:
            labels.append(f"{query['_id']}\tgone{number}\t2")
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    return folder


def write_model(folder: Path, similarity: Literal["cosine", "dot", "euclidean"] = "cosine") -> Path:
    """Write a model whose vector of a text is the mean of random vectors of its words, of different lengths."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    rng = np.random.default_rng(3)
    weights = rng.normal(size=(61, 64)) * rng.uniform(0.6, 1.6, (61, 1))
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate((*WORDS, "?"))}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    module = StaticEmbedding(tokenizer, embedding_weights=torch.tensor(weights, dtype=torch.float32).numpy())
    model = SentenceTransformer(modules=[module], device="cpu", similarity_fn_name=similarity)
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_collection(target / "collection")
    for name in ("cosine", "dot"):
        write_model(target / name, name)  # type: ignore[arg-type]
