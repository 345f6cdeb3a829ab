"""Quantise a model to 8-bit weights and activations (W8A8), in a process of its own; run as a program by `resolve`.

Linear layers get int8 weights with one scale per output channel (symmetric, round to nearest); activations are
quantised per token when the model runs. Written in the compressed-tensors format that vLLM reads. The language head
and the embeddings stay as they are: the judge's log-probabilities come from there.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

# Part of a quantised model's digest: raise it when the recipe changes.
RECIPE = "w8a8-channel-token-1"
_LARGEST = 127
_SUFFIX = "_proj.weight"
_CONFIG: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}


def main(source: Path, target: Path) -> None:
    """Write the quantised copy of the safetensors model in `source` into `target`."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                tensors |= _quantise(name, opened.get_tensor(name))
    for file in source.iterdir():
        if file.suffix != ".safetensors" and not file.name.endswith((".index.json", "reneg-model.json")):
            shutil.copy(file, target)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"quantization_config": _CONFIG}, indent=1) + "\n")


def _quantise(name: str, tensor: Any) -> dict[str, Any]:  # noqa: ANN401 - a torch tensor
    import torch

    if not name.endswith(_SUFFIX):
        return {name: tensor.clone()}
    weights = tensor.float()
    scale = weights.abs().amax(1, keepdim=True).clamp(min=1e-8) / _LARGEST
    rounded = (weights / scale).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return {name: rounded, f"{name}_scale": scale}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
