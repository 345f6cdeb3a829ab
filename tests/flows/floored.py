"""A small real encoder whose cosines of unrelated texts lie at a chosen floor, and rows of unrelated texts."""

import json
import random
from pathlib import Path

from infra.engines.encoder import EncoderEngine
from infra.engines.specs import SentenceTransformersSpec

WORDS = tuple(f"w{number}" for number in range(300))


def build_encoder(folder: Path, bias: float) -> EncoderEngine:
    """A random one-layer BERT whose last layer adds a constant to every vector: the larger, the nearer all texts are.

    With a bias of 0 unrelated texts have a cosine of 0.82 on average, with 2 of 0.98.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=64, initializer_range=1.0, **shape)
    bert = BertModel(config)
    with torch.no_grad():
        bert.encoder.layer[-1].output.LayerNorm.bias.fill_(bias)
    bert.save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=64)
    model = SentenceTransformer(modules=[transformer, Pooling(32, "mean")], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    spec = SentenceTransformersSpec(model=str(folder / "model"), digest="", max_seq_length=64, batch_size=64)
    return EncoderEngine(spec)


def write_unrelated(folder: Path, queries: int = 50, negatives: int = 10) -> Path:
    """Rows whose queries, positives and negatives are random words: no pair is related."""
    draw, rows = random.Random(0), []
    text = lambda length: " ".join(draw.choices(WORDS, k=length))  # noqa: E731
    for query in range(queries):
        passages = [{"docid": f"{query}-{n}", "title": "", "text": text(20)} for n in range(negatives + 1)]
        rows.append(
            {
                "query_id": f"q{query}",
                "query": text(8),
                "positive_passages": passages[:1],
                "negative_passages": passages[1:],
            }
        )
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
