"""Train adapters (LoRA) of a model instead of its weights, and merge them into the weights at the end.

The merged model is a plain folder: what encodes, evaluates or serves it needs no peft. The adapter is kept beside it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import Tensor, nn

from tasks.training.loop.lora import LoraConfig

FOLDER = "adapter"  # below the model
_NAME = "default"  # what peft calls a single adapter
_BELOW = "base_model.model."  # where a model lies within peft's own, in the names of an adapter's file
_HEADS = ("score", "classifier")  # layers over a language model that give a pair its score: they are trained whole


def add_adapter(model: Any, lora: LoraConfig, seed: int) -> None:  # noqa: ANN401 - a model of sentence-transformers
    """Freeze the weights, and add an adapter to each of the layers that the settings name; the same seed, the same one.

    Raises:
        ValueError: the model has no layer of these names.
    """
    inner = model.transformers_model
    linear = {name.rsplit(".", 1)[-1] for name, module in inner.named_modules() if isinstance(module, nn.Linear)}
    missing = [name for name in lora.target_modules if name.rsplit(".", 1)[-1] not in linear]
    if missing:
        raise ValueError(
            f"lora.target_modules: names of linear layers of the model expected ({', '.join(sorted(linear))}), got "
            f"{', '.join(missing)}"
        )
    heads = [name for name, _ in inner.named_children() if name in _HEADS]
    torch.manual_seed(seed)
    model.add_adapter(
        PeftConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.target_modules),
            modules_to_save=heads or None,
        )
    )
    for parameter in inner.parameters():
        if parameter.requires_grad:  # steps are too small for the digits of bfloat16
            parameter.data = parameter.data.float()


def is_adapted(model: nn.Module) -> bool:
    """Tell whether a model has adapters."""
    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that a training can change: of a model with adapters those alone, else all of them."""
    if not is_adapted(model):
        return dict(model.state_dict())
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model weights that `weights_of` returned for one like it.

    Raises:
        ValueError: they are of a model with other layers.
    """
    if not is_adapted(model):
        model.load_state_dict(weights)
        return
    other = set(weights_of(model)) ^ set(weights)
    if other:
        raise ValueError(
            f"a checkpoint of the same adapters expected, {len(other)} weights differ ({min(other)} first); remove the "
            "checkpoint, or train with the settings that it was made with"
        )
    model.load_state_dict(weights, strict=False)


def keep_adapter(model: Any, folder: Path) -> None:  # noqa: ANN401 - a model of sentence-transformers
    """Write the adapter as peft reads it; nothing in its files names this machine."""
    inner = model.transformers_model
    folder.mkdir(parents=True)
    state = get_peft_model_state_dict(inner, adapter_name=_NAME)
    named = {f"{_BELOW}{name}": value.contiguous() for name, value in state.items()}
    save_file(named, folder / "adapter_model.safetensors")
    settings = inner.peft_config[_NAME].to_dict() | {"base_model_name_or_path": None, "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True, default=sorted) + "\n")


def merge(model: Any) -> None:  # noqa: ANN401 - a model of sentence-transformers
    """Add each adapter to the weights of its layer, and take peft's layers out of the model.

    Raises:
        ValueError: the trained adapters hold numbers that are none.
    """
    inner = model.transformers_model
    for name, module in list(inner.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            plain: nn.Module = module.modules_to_save[_NAME]
        elif isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            plain = module.get_base_layer()
        else:
            continue
        above, _, own = name.rpartition(".")
        setattr(inner.get_submodule(above) if above else inner, own, plain)
    del inner.peft_config
    inner._hf_peft_config_loaded = False  # else only an adapter would be saved
    for parameter in model.parameters():
        parameter.requires_grad = True
