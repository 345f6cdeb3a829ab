"""Make the static-embedding model that is trained: a vector for each token of a collection, distilled from MiniLM.

As Model2Vec does: each token is encoded alone by MiniLM, the vectors are reduced by a principal component analysis, and
each is scaled by a / (a + share of the token in the corpus) (smooth inverse frequency). No label is read. The
vocabulary is that of the collection's own texts, so that a step of the optimiser is cheap. `remembered_tokens` cuts
each text into tokens once, as that would take most of the time of a training.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION = 128
TOKENS = 128  # of a text that are read
_SMOOTHING = 1e-3  # a of the smooth inverse frequency
_ALWAYS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_static_model(encoder: Path, texts: Sequence[str], folder: Path, dimension: int = DIMENSION) -> None:
    """Write a model of sentence-transformers with a vector for each token of the texts.

    encoder: folder of the encoder it is distilled from. texts: passages and queries, without their labels.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    whole = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    whole.no_truncation()
    whole.no_padding()
    counts = Counter(token for one in whole.encode_batch(list(texts), add_special_tokens=False) for token in one.tokens)
    own = json.loads(whole.to_str())
    tokens = [*_ALWAYS, *sorted(set(counts) - set(_ALWAYS))]
    own["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    own["post_processor"], own["padding"], own["truncation"] = None, None, None
    own["added_tokens"] = [{**one, "id": tokens.index(one["content"])} for one in own["added_tokens"]]
    teacher = SentenceTransformer(str(encoder), device="cpu", local_files_only=True)
    shown = [token.removeprefix("##") for token in tokens]
    vectors = teacher.encode(shown, batch_size=256, convert_to_numpy=True, show_progress_bar=False)
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    reduced = centred @ axes[:dimension].T
    share = np.array([counts[token] for token in tokens]) / max(sum(counts.values()), 1)
    weights = (reduced * (_SMOOTHING / (_SMOOTHING + share))[:, None]).astype(np.float32)
    weights[tokens.index("[PAD]")] = 0.0
    module = StaticEmbedding(Tokenizer.from_str(json.dumps(own)), embedding_weights=weights)
    with tempfile.TemporaryDirectory(dir=folder.parent) as part:
        SentenceTransformer(modules=[module], device="cpu").save_pretrained(
            part, create_model_card=False, safe_serialization=True
        )
        Path(part).rename(folder)
        Path(part).mkdir()  # the context removes it


@contextmanager
def remembered_tokens(known: dict[str, Any]) -> Iterator[None]:
    """Let models of static vectors look the first `TOKENS` tokens of a text up in `known`, and add what is missing.

    known: token numbers by text, of one vocabulary.
    """
    import torch
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    before = StaticEmbedding.preprocess

    def preprocess(self: Any, inputs: list[str], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        if prompt:
            raise ValueError(f"no prompt expected, got {prompt!r}: tokens are remembered by the text alone")
        new = [text for text in dict.fromkeys(inputs) if text not in known]
        for text, found in zip(new, self.tokenizer.encode_batch(new, add_special_tokens=False), strict=True):
            known[text] = torch.tensor(found.ids[:TOKENS], dtype=torch.long)
        rows = [known[text] for text in inputs]
        offsets = torch.tensor([0, *(len(row) for row in rows[:-1])]).cumsum(0)
        return {"input_ids": torch.cat(rows), "offsets": offsets}

    StaticEmbedding.preprocess = preprocess
    try:
        yield
    finally:
        StaticEmbedding.preprocess = before
