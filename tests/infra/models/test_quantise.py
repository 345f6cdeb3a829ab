"""Quantising to 8 bits: which weights become integers, how near they stay, and what the settings say."""

import json
from pathlib import Path

import pytest

from infra.models.quantise import main
from infra.models.resolve import digest_of, resolve


@pytest.mark.slow
def test_a_model_is_quantised_once_and_keeps_its_name_its_licence_and_its_unquantised_original(tmp_path: Path) -> None:
    from safetensors import safe_open

    cache = tmp_path / "cache"
    made = resolve("w8a8:tiny:llm", cache)
    assert (made.name, made.digest) == ("tiny-llm-w8a8", digest_of("w8a8:tiny:llm", cache))
    with safe_open(made.path / "model.safetensors", "pt") as file:
        types = {name: str(file.get_slice(name).get_dtype()) for name in file.keys()}
    assert types["model.layers.0.mlp.down_proj.weight"] == "I8"
    assert types["model.layers.0.mlp.down_proj.weight_scale"] == "F32"
    assert types["model.embed_tokens.weight"] == "BF16"
    assert (cache / "models" / "tiny-llm" / "model.safetensors").exists()
    assert digest_of("w8a8:tiny:llm", cache) != digest_of("tiny:llm", cache)
    stamp = (made.path / "model.safetensors").stat().st_mtime_ns
    assert resolve("w8a8:tiny:llm", cache) == made
    assert (made.path / "model.safetensors").stat().st_mtime_ns == stamp


def write_model(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    tensors = {
        "layers.0.q_proj.weight": torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.bfloat16),
        "layers.0.q_proj.bias": torch.tensor([1.0, 2.0]),
    }
    save_file(tensors, folder / "model-1.safetensors")
    save_file({"lm_head.weight": torch.tensor([[3.0]])}, folder / "model-2.safetensors")
    (folder / "config.json").write_text('{"hidden_size": 3}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "reneg-model.json").write_text("{}")


def test_only_projections_become_integers_each_row_with_a_scale_of_its_own(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_model(tmp_path / "model")
    (tmp_path / "out").mkdir()
    main(tmp_path / "model", tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert sorted(made) == [
        "layers.0.q_proj.bias", "layers.0.q_proj.weight", "layers.0.q_proj.weight_scale", "lm_head.weight",
    ]  # fmt: skip
    assert made["layers.0.q_proj.weight"].tolist() == [[64, -127, 32], [0, 0, 0]]  # 63.5 and 31.75, rounded
    assert made["layers.0.q_proj.weight_scale"].flatten().tolist() == pytest.approx([2 / 127, 1e-8 / 127])
    assert made["lm_head.weight"].tolist() == [[3.0]]
    assert made["layers.0.q_proj.bias"].tolist() == [1.0, 2.0]


def test_the_quantised_copy_has_the_models_other_files_and_says_how_it_was_quantised(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "out").mkdir()
    main(tmp_path / "model", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["hidden_size"] == 3
    method = config["quantization_config"]
    assert (method["quant_method"], method["format"], method["ignore"]) == (
        "compressed-tensors", "int-quantized", ["lm_head"],
    )  # fmt: skip
    group = method["config_groups"]["group_0"]
    assert group["weights"] == {
        "num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False,
    }  # fmt: skip
    assert group["input_activations"] == {
        "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True,
    }  # fmt: skip
