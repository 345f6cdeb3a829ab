"""Conversion of GGUF to safetensors, in a process of its own so that its memory is freed; also run as that program."""

import os
import subprocess
import sys
from pathlib import Path

# Part of a converted model's digest: raise it when the conversion changes.
RECIPE = "gguf-to-bfloat16-1"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


def convert_gguf(gguf: Path, target: Path) -> None:
    """Write the model of a GGUF file into the directory `target` as bfloat16 safetensors with its tokenizer.

    Raises:
        RuntimeError: the conversion failed; with the last line it said.
    """
    run_offline(Path(__file__), str(gguf), str(target))


def run_offline(program: Path, *arguments: str) -> None:
    """Run one of this folder's programs in a process of its own, without network for the libraries it loads.

    Raises:
        RuntimeError: it failed; with the last line it said.
    """
    # -P keeps this folder off the import path, where its files would hide modules of the same name.
    command = [sys.executable, "-P", str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | _OFFLINE, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise RuntimeError(f"{program.stem} {' '.join(arguments)}: {reason}")


def main(gguf: Path, target: Path) -> None:
    """Load the quantised weights, unpack them to bfloat16, and save model and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # Without these two the saved model would claim to be quantised still.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
