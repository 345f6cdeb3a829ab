"""A cross-encoder and a tiny language model become rerankers that the engine `cross_encoder` loads."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from infra.engines.rerankers.cross_encoder import CrossEncoderEngine
from infra.engines.specs import CrossEncoderSpec
from infra.stages.checkpoints import Checkpoints
from infra.storage.store import Store
from tasks.training.loop.adapters import FOLDER
from tasks.training.rerankers.fit import FitReranker, load_start
from tasks.training.rerankers.settings import RerankerTrainConfig
from tasks.training.rotation import Rotation
from tasks.training.together import Share, fit_together
from tasks.training.train_config import TrainConfig
from tasks.training.trainer import Curve
from tasks.training.training_rows import training_rows
from tests.tasks.training.loop.test_resuming import PART, Told, digests, train_until
from tests.tasks.training.rerankers.rows import build_tiny_cross_encoder, train_toy_reranker
from tests.tasks.training.tables import TOPICS, build_tiny_qwen, eight_instances, passages_table, queries_table
from tests.tasks.training.test_together import Processes

SETTINGS = {"steps": 8, "batch_size": 4, "num_negatives": 2, "learning_rate": 1e-3, "threads": 1, "max_seq_length": 64}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_cross_encoder(tmp_path_factory.mktemp("base"))


def config_of(base: str, **changes: object) -> TrainConfig:
    wanted = RerankerTrainConfig.model_validate({"model": base, **SETTINGS, "checkpoint_steps": 2, **changes})
    return wanted.loop


def fitted(base: str, out: Path, store: str = "") -> Curve:
    config = config_of(base)
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    checkpoints = Checkpoints(store, PART) if store else None
    return FitReranker("softmax")(config, rows, Told(rows.rows, config), out, checkpoints)


def ranks_positives_first(folder: Path, passage_prompt: str = "") -> int:
    """Count the queries whose positive has a higher score than its negative, by the engine that judges."""
    spec = CrossEncoderSpec(model=str(folder), digest="d", max_seq_length=64, passage_prompt=passage_prompt)
    engine = CrossEncoderEngine(spec)
    pairs = [(f"what about {t}", text) for t in TOPICS for text in (f"{t} are nice", f"not {t}")]
    scores = engine.score(pairs)
    assert all(0 <= score <= 1 for score in scores)
    return sum(positive > negative for positive, negative in zip(scores[::2], scores[1::2], strict=True))


@pytest.mark.parametrize("objective", ["softmax", "pairs"])
def test_a_cross_encoder_learns_to_rank_and_its_engine_loads_it(base: Path, tmp_path: Path, objective: str) -> None:
    summary = train_toy_reranker(base, tmp_path / "out", objective=objective, steps=30)
    assert sum(summary["loss"][-5:]) < 0.7 * sum(summary["loss"][:5])
    assert ranks_positives_first(tmp_path / "out") == len(TOPICS)
    assert (summary["steps"], summary["objective"], summary["rows"]) == (30, objective, 8)


def test_a_language_model_gets_a_head_and_adapters_and_is_saved_without_them(tmp_path: Path) -> None:
    qwen = build_tiny_qwen(tmp_path / "qwen")
    lora = {"rank": 4, "alpha": 16, "dropout": 0.0}
    settings = {"lora": lora, "passage_prompt": "\nabout ", "gradient_checkpointing": True, "learning_rate": 1e-2}
    summary = train_toy_reranker(qwen, tmp_path / "out", steps=30, **settings)
    assert sum(summary["loss"][-5:]) < 0.8 * sum(summary["loss"][:5])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [
        "Qwen2ForSequenceClassification"
    ]
    assert "score.weight" in load_file(tmp_path / "out" / "model.safetensors")
    assert any("score" in name for name in load_file(tmp_path / "out" / FOLDER / "adapter_model.safetensors"))
    assert ranks_positives_first(tmp_path / "out", "\nabout ") >= len(TOPICS) - 1


def test_the_same_seed_gives_the_same_head_and_an_own_head_is_kept(base: Path, tmp_path: Path) -> None:
    qwen = str(build_tiny_qwen(tmp_path / "qwen"))
    heads = [load_start(config_of(qwen, seed=seed))[0].model.score.weight for seed in (1, 1, 2)]
    assert heads[0].equal(heads[1])
    assert not heads[0].equal(heads[2])
    own = load_start(config_of(str(base)))[0].model.classifier.weight
    assert own.equal(load_file(base / "model.safetensors")["classifier.weight"])


def test_a_model_that_cannot_be_a_reranker_is_refused_with_what_is_expected(base: Path, tmp_path: Path) -> None:
    several = shutil.copytree(base, tmp_path / "several")
    settings = json.loads((several / "config.json").read_text()) | {"id2label": {"0": "a", "1": "b", "2": "c"}}
    (several / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"train_reranker.model: a model with one score .* gives 3"):
        load_start(config_of(str(several)))
    with pytest.raises(ValueError, match=r"max_seq_length: at most 64 expected, which the model reads, got 100"):
        train_toy_reranker(base, tmp_path / "out", max_seq_length=100)


@pytest.mark.slow
def test_a_training_that_was_killed_twice_has_the_files_of_an_undisturbed_one(base: Path, tmp_path: Path) -> None:
    store_url = str(tmp_path / "store")  # a bucket is tried in loop/test_resuming.py
    Store.open(store_url)
    fitted(str(base), tmp_path / "undisturbed")
    first = train_until(3, base, tmp_path / "first", store_url, __name__)
    second = train_until(5, base, tmp_path / "second", store_url, __name__)
    last = train_until(None, base, tmp_path / "last", store_url, __name__)
    assert (first[0], second[0], last[0]) == (0, 2, 4)
    assert digests(tmp_path / "last") == digests(tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_workers_have_the_losses_of_one(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    still = shutil.copytree(base, tmp_path / "still")
    settings = json.loads((still / "config.json").read_text())
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(settings | no_dropout))
    store, how = Store.open(str(tmp_path / "store")), FitReranker("pairs")
    config = config_of(str(still), batch_size=8, workers=2, steps=4)
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    share = Share(config, rows, Checkpoints(store.url, PART), None, how)
    curve = fit_together(share, Processes(tmp_path), tmp_path / "out")
    alone = config.model_copy(update={"workers": 1})
    assert curve.losses == pytest.approx(how(alone, rows, Rotation(rows.rows, alone), tmp_path / "p").losses, abs=1e-4)


if __name__ == "__main__":
    fitted(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
