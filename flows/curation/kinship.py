"""Tells which judges are of one family with the miner: they share its errors, and agree with it where it is wrong."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.config.curation import CurationConfig
from infra.models.families import model_families
from infra.models.resolve import ModelError, parse


def related_judges(config: CurationConfig, *, files: bool = True) -> Iterator[str]:
    """Yield a warning for each tier whose model and the encoder that mines are of one family.

    files: whether the files of a model in a folder are asked too; without them every machine says the same.
    """
    encoders = (config.encoder, *config.encoders.values())
    miner = frozenset[str]().union(*(_families(encoder.model, files) for encoder in encoders))
    for tier in config.tiers:
        shared = sorted(miner & _families(str(getattr(tier.engine, "model", "")), files))
        if shared:
            yield (
                f"tier {tier.name}: its judge and the encoder that mines are of one family ({', '.join(shared)}). They "
                "may be wrong about the same pairs; let people label a sample, or take a judge of another family"
            )


def _families(reference: str, files: bool) -> frozenset[str]:
    return model_families(reference, _config_of(reference) if files else {})


def _config_of(reference: str) -> Mapping[str, Any]:
    """Read what a folder of the user's own says of its model; nothing where there is none."""
    try:
        scheme, rest = parse(reference)
        found = json.loads((Path(rest).expanduser() / "config.json").read_bytes()) if scheme == "path" else {}
    except (ModelError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
