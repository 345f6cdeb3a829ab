import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from tasks import schemas
from tasks.texts import combine_hashes, hash_passage, hash_text
from tasks.training.train import train
from tasks.training.training_rows import TrainConfig, training_rows

TOPICS = ("cats", "dogs", "boats", "trees", "stars", "wines", "roads", "bells")
WORDS = ("what", "about", "are", "nice", "and", "old", "not", *TOPICS)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("base"))


def build_tiny_model(folder: Path) -> Path:
    """A random two-layer BERT that knows a few words, as a sentence-transformers model."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    bert = BertModel(BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=64, **shape))
    bert.save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=64)
    model = SentenceTransformer(modules=[transformer, Pooling(32, "mean")], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def queries_table(split: str = "train") -> pl.DataFrame:
    rows = [("toy", f"q{i}", f"what about {t}", hash_text(f"what about {t}"), split) for i, t in enumerate(TOPICS)]
    return pl.DataFrame(rows, schema=schemas.QUERIES.columns, orient="row")


def passages_table() -> pl.DataFrame:
    texts = [(f"p{i}", "", f"{t} are nice") for i, t in enumerate(TOPICS)]
    texts += [(f"s{i}", "old", f"{t} and {t}") for i, t in enumerate(TOPICS)]
    texts += [(f"n{i}", "", f"not {t}") for i, t in enumerate(TOPICS)]
    rows = [("toy", doc_id, title, text, hash_passage(title, text)) for doc_id, title, text in texts]
    return pl.DataFrame(rows, schema=schemas.PASSAGES.columns, orient="row")


def instances_table(rows: list[tuple[str, list[str], list[str]]]) -> pl.DataFrame:
    """Instances by query id, with the hash that `treat` would give them."""
    hashes = dict(passages_table().select("doc_id", "text_hash").iter_rows())
    of_query = dict(queries_table().select("query_id", "text_hash").iter_rows())
    made = [
        ("toy", q, p, n, "relabel", combine_hashes([of_query[q], *(hashes[d] for d in (*p, *n))])) for q, p, n in rows
    ]
    return pl.DataFrame(made, schema=schemas.INSTANCES.columns, orient="row")


def eight_instances() -> pl.DataFrame:
    return instances_table([(f"q{i}", [f"p{i}", f"s{i}"], [f"n{i}", f"n{(i + 1) % 8}"]) for i in range(8)])


def rows_of(instances: pl.DataFrame, **settings: Any) -> Any:
    config = TrainConfig(model="unused", **settings)
    return training_rows(config, instances=instances, queries=queries_table(), passages=passages_table())


def test_each_positive_makes_a_row_of_its_own() -> None:
    rows = rows_of(instances_table([("q0", ["p0", "s0"], ["n0", "n1"])]), num_negatives=2)
    assert rows.columns == {
        "anchor": ["what about cats", "what about cats"],
        "positive": ["cats are nice", "old cats and cats"],
        "negative_1": ["not cats", "not cats"],
        "negative_2": ["not dogs", "not dogs"],
    }
    assert (rows.padded, rows.skipped) == (0, 0)


def test_only_the_first_positive_is_used_when_asked() -> None:
    rows = rows_of(instances_table([("q0", ["p0", "s0"], ["n0"])]), num_negatives=1, positives="first")
    assert rows.columns["positive"] == ["cats are nice"]


def test_too_few_negatives_are_repeated_in_turn_and_counted() -> None:
    rows = rows_of(instances_table([("q0", ["p0"], ["n0", "n1"]), ("q1", ["p1"], ["n1", "n2", "n3"])]), num_negatives=3)
    assert [rows.columns[f"negative_{i}"][0] for i in (1, 2, 3)] == ["not cats", "not dogs", "not cats"]
    assert (len(rows), rows.padded) == (2, 1)


def test_an_instance_without_negatives_is_skipped_and_counted() -> None:
    rows = rows_of(instances_table([("q0", ["p0"], []), ("q1", ["p1"], ["n1"])]), num_negatives=1)
    assert rows.columns["anchor"] == ["what about dogs"]
    assert rows.skipped == 1


def test_without_hard_negatives_no_instance_is_skipped() -> None:
    rows = rows_of(instances_table([("q0", ["p0"], [])]), num_negatives=0)
    assert rows.columns == {"anchor": ["what about cats"], "positive": ["cats are nice"]}


def test_a_changed_text_is_refused() -> None:
    stale = eight_instances().with_columns(texts_hash=pl.lit("0" * 32))
    with pytest.raises(ValueError, match="toy/q0 are not those its instance was made with"):
        rows_of(stale)


def test_a_missing_passage_is_named() -> None:
    config = TrainConfig(model="unused")
    passages = passages_table().filter(pl.col("doc_id") != "n1")
    with pytest.raises(ValueError, match="no text for toy/n1 of toy/q0"):
        training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages)


def test_a_held_out_query_is_refused() -> None:
    config = TrainConfig(model="unused")
    with pytest.raises(ValueError, match="toy/q0 is held out"):
        training_rows(config, instances=eight_instances(), queries=queries_table("test"), passages=passages_table())


def test_no_instances_at_all_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    config = TrainConfig(model=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="at least one instance with a negative expected, 0 instances came"):
        train(
            config,
            instances=schemas.INSTANCES.empty(),
            queries=queries_table(),
            passages=passages_table(),
            out=tmp_path,
        )


@pytest.mark.parametrize("field", [{"steps": 0}, {"temperature": 0}, {"warmup_ratio": 1.0}, {"epochs": 3}])
def test_settings_out_of_range_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(model="unused", **field)


def run(base: Path, out: Path, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    wanted: dict[str, Any] = {
        "steps": 30,
        "batch_size": 4,
        "num_negatives": 2,
        "learning_rate": 3e-3,
        "threads": 1,
        **settings,
    }
    config = TrainConfig(model=str(base), **wanted)
    made = train(config, instances=eight_instances(), queries=queries_table(), passages=passages_table(), out=out)
    assert made == {}
    summary: dict[str, Any] = json.loads((out / "training.json").read_text())
    return summary


def test_training_lowers_the_loss_and_leaves_a_loadable_model(base_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    summary = run(base_model, tmp_path / "out")
    losses = summary["loss"]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert (summary["steps"], summary["rows"], summary["instances"], len(losses)) == (30, 16, 8, 30)
    trained = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    query, passages = (
        trained.encode(["what about cats"]),
        trained.encode(["cats are nice", "not cats", "dogs are nice"]),
    )
    assert int(trained.similarity(query, passages).argmax()) == 0
    assert trained.max_seq_length == 64


def test_the_same_seed_gives_the_same_files_and_another_seed_other_weights(base_model: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        run(base_model, tmp_path / name, seed=seed, steps=3)
    files = {
        name: {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("one", "again", "two")
    }
    assert files["one"] == files["again"]
    assert files["one"]["model.safetensors"] != files["two"]["model.safetensors"]


def test_no_file_holds_a_path_or_a_checkpoint(base_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(base_model, out, steps=2)
    for file in (p for p in out.rglob("*.json")):
        assert str(tmp_path) not in file.read_text()
        assert str(base_model) not in file.read_text()
    assert not [p.name for p in out.iterdir() if p.name.startswith("checkpoint")]


def test_frozen_layers_and_embeddings_keep_their_weights(base_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    run(base_model, tmp_path / "out", steps=2, frozen_layers=1)
    before, after = (load_file(folder / "model.safetensors") for folder in (base_model, tmp_path / "out"))
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed
    assert all("layer.1." in name for name in changed)


def test_more_frozen_layers_than_there_are_are_refused(base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen_layers=3 expects a model of more layers"):
        run(base_model, tmp_path / "out", frozen_layers=3)


def test_prompts_are_kept_with_the_model(base_model: Path, tmp_path: Path) -> None:
    run(base_model, tmp_path / "out", steps=1, query_prompt="what ", passage_prompt="about ")
    kept = json.loads((tmp_path / "out" / "config_sentence_transformers.json").read_text())
    assert kept["prompts"] == {"query": "what ", "document": "about "}
