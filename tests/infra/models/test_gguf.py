"""A GGUF file becomes safetensors with the same weights and the same tokenizer."""

import json
from pathlib import Path

import numpy as np
import pytest

from infra.models.gguf import convert_gguf, run_offline
from infra.models.random_models import build_tiny_llm
from infra.models.resolve import ModelError, resolve

TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _write_gguf(model: Path, path: Path) -> None:
    """The tiny model as quantised tools publish one: matrices in Q8_0, vectors in float32, the tokenizer inside."""
    import gguf
    from transformers import AutoModelForCausalLM

    writer = gguf.GGUFWriter(path, "qwen2")
    config = json.loads((model / "config.json").read_text())
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    words = json.loads((model / "tokenizer.json").read_text())
    added = {token["content"] for token in words["added_tokens"]}
    tokens = sorted(words["model"]["vocab"], key=words["model"]["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in added else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in words["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_chat_template((model / "chat_template.jinja").read_text())
    for name, tensor in AutoModelForCausalLM.from_pretrained(model).state_dict().items():
        for theirs, ours in TENSORS.items():
            name = name.replace(theirs, ours)  # noqa: PLW2901
        values = tensor.float().numpy()
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, *((values,) if values.ndim == 1 else (gguf.quantize(values, kind), None, kind)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.slow
def test_a_gguf_file_is_converted_once_to_unquantised_safetensors(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    build_tiny_llm(tmp_path / "model")
    gguf_file = tmp_path / "mine.gguf"
    _write_gguf(tmp_path / "model", gguf_file)
    said: list[str] = []
    found = resolve(f"path:{gguf_file}", tmp_path / "cache", said.append)
    assert resolve(f"path:{gguf_file}", tmp_path / "cache", said.append) == found
    assert said == ["mine: converting to safetensors (once; one to two minutes)"]
    assert "quantization_config" not in json.loads((found.path / "config.json").read_text())
    one = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    two = AutoModelForCausalLM.from_pretrained(found.path).state_dict()
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        np.testing.assert_allclose(
            two[name].float().numpy(), tensor.float().numpy(), rtol=1e-2, atol=1e-2, err_msg=name
        )
    text = "<|im_start|>user\nYes or No?<|im_end|>\n"
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (tmp_path / "model", found.path)]
    assert tokenizers[0](text).input_ids == tokenizers[1](text).input_ids


@pytest.mark.slow
def test_a_broken_gguf_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(ModelError, match=r"broken\.gguf.*is the file whole"):
        resolve(str(tmp_path / "broken.gguf"), tmp_path / "cache")
    assert list((tmp_path / "cache/models").iterdir()) == []


def program(tmp_path: Path, code: str) -> Path:
    (tmp_path / "prog").mkdir()
    (tmp_path / "prog" / "program.py").write_text(code)
    return tmp_path / "prog" / "program.py"


def test_a_program_runs_apart_with_its_arguments_and_without_network(tmp_path: Path) -> None:
    (tmp_path / "prog").mkdir()
    (tmp_path / "prog" / "torch.py").write_text("raise AssertionError('a file of the folder hid a library')")
    path = tmp_path / "prog" / "program.py"
    path.write_text(
        "import json, os, sys\n"
        "names = ('HF_HUB_OFFLINE', 'HF_HUB_DISABLE_TELEMETRY', 'TOKENIZERS_PARALLELISM', 'HOME')\n"
        "told = {name: os.environ.get(name) for name in names}\n"
        "json.dump([told, sys.argv[2:], sys.path], open(sys.argv[1], 'w'))\n"
    )
    run_offline(path, str(tmp_path / "told"), "a b", "c")
    told, arguments, search_path = json.loads((tmp_path / "told").read_text())
    assert arguments == ["a b", "c"]
    assert told.pop("HOME")
    assert told == {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    assert str(tmp_path / "prog") not in search_path


def test_a_program_that_fails_tells_its_last_line_or_else_its_exit_status(tmp_path: Path) -> None:
    path = program(tmp_path, "import sys\nprint('first\\nlast', file=sys.stderr)\nsys.exit(3)")
    with pytest.raises(RuntimeError, match=r"^program x: last$"):
        run_offline(path, "x")
    path.write_text("import sys; sys.exit(3)")
    with pytest.raises(RuntimeError, match=r"^program x y: exit status 3$"):
        run_offline(path, "x", "y")


def test_a_gguf_file_is_converted_by_this_modules_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.models import gguf as module

    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(module, "run_offline", lambda *arguments: asked.append(arguments))
    convert_gguf(tmp_path / "a.gguf", tmp_path / "out")
    assert asked == [(Path(module.__file__), str(tmp_path / "a.gguf"), str(tmp_path / "out"))]
