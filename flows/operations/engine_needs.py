"""What the engines of a configuration need of a node: weights, memory, the key of an endpoint."""

import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from flows.config.curation import CurationConfig
from flows.config.engines import CrossEncoderConfig, EncoderConfig, VLLMConfig
from flows.curation.stored_config import key_rules
from flows.operations.doctor import Finding
from flows.stage_names import judge_stage
from flows.stages import ENCODE_PASSAGES, ENCODE_QUERIES, RERANK_HELD_OUT, RESCORE, TRAIN, TRAIN_RERANKER
from infra.cluster.nodes import Node, Probe
from infra.engines.kinds import build_engine, kind_of, on_gpu, refusal_of
from infra.engines.specs import EndpointSpec, OpenAIEmbeddingsSpec, ScoresSpec
from infra.key_rules import is_loopback, origin
from infra.machine import model_bytes
from infra.models.resolve import ModelError, digest_of, is_present, is_vectors, resolve, without_commit
from infra.settings import Settings
from infra.stages.stage import Resources

_GIB = 2**30
_PATIENCE = 30.0  # seconds for its answer
_WORD = "reneg"  # that an endpoint is asked to encode
_PROCESS = 2 * _GIB  # Python, torch, a batch's activations


@dataclass(frozen=True)
class Engine:
    """One engine of a configuration.

    stage: the stage whose resources it gets. path: its weights on this machine; empty if they are not here.
    size: bytes on the disk; memory: bytes once loaded, without the process; both 0 if not known.
    gpu_share: of each GPU that it may take; 0 on a CPU. gpus: how many share the weights.
    key_variable: the environment variable that an endpoint's key is read from.
    """

    reference: str
    stage: str
    path: str = ""
    digest: str = ""
    size: int = 0
    memory: int = 0
    gpu_share: float = 0.0
    gpus: int = 1
    key_variable: str = ""


def engines_of(config: CurationConfig, cache: Path) -> tuple[list[Engine], list[Finding]]:
    """Return the engines of a configuration, and their problems on this machine; nothing is fetched."""
    engines, problems = [], []
    for stage, wanted in [
        *((ENCODE_PASSAGES.name, encoder) for encoder in (config.encoder, *config.encoders.values())),
        *((judge_stage(t.name), t.engine) for t in config.tiers if not isinstance(t.engine, ScoresSpec)),
        *([] if config.rescore is None else [(RESCORE.name, config.rescore.engine)]),
    ]:
        if isinstance(wanted, EndpointSpec):
            engines.append(Engine(wanted.model, stage, key_variable=kind_of(wanted).key_variable(wanted)))
            continue
        if without_commit(wanted.model) is not None:
            engines.append(Engine(wanted.model, stage))
            remedy = "the first run asks the hub for its newest commit and records it; name one to choose it yourself"
            problems.append(Finding(f"model {wanted.model}", "note", "without a commit", remedy))
            continue
        try:
            engines.append(_local(wanted, stage, cache))
        except (ModelError, ValueError, struct.error) as error:  # not found; or its files are damaged
            problems.append(Finding(f"model {wanted.model}", "missing", "not usable", str(error)))
    return engines, [*problems, *_without_gpu(config)]


def look_at_keys(config: CurationConfig, settings: Settings) -> Iterator[Finding]:
    """Yield what is known here of the variables that a configuration names: set or not, and allowed once deployed."""
    rules = key_rules(own_file=False)
    asked: dict[str, BaseModel] = {f"tier {tier.name}": tier.engine for tier in config.tiers}
    for place, engine in (asked | config.all_encoders).items():
        variable = kind_of(engine).key_variable(engine)
        if not isinstance(engine, EndpointSpec) or not variable:
            continue
        if os.environ.get(variable):
            yield Finding(f"{variable} for {place}", "ok", "set here")
        elif is_loopback(engine.address):
            yield Finding(f"{variable} for {place}", "note", "not set here; an endpoint on loopback gets none")
        else:
            state = "missing" if settings.ray_address is None else "note"
            remedy = "set it where the engines work: here, or on the Ray nodes"
            yield Finding(f"{variable} for {place}", state, "not set here", remedy)
        refusal = refusal_of(engine, rules)
        allowed = "" if refusal else f"may be sent to {origin(engine.address)}"
        yield Finding(f"{variable} once deployed", "note" if refusal else "ok", allowed or "refused", refusal)
    if config.notify is not None and config.notify.webhook_env is not None:
        variable = config.notify.webhook_env
        found = "set here" if os.environ.get(variable) else "not set here; `reneg deploy` needs it"
        yield Finding(f"{variable} for notify", "ok" if os.environ.get(variable) else "note", found)


def ask_encoders(config: CurationConfig) -> Iterator[Finding]:
    """Ask each endpoint that encodes for the vector of one word, and yield what came; nothing is kept."""
    for place, encoder in config.all_encoders.items():
        if not isinstance(encoder, OpenAIEmbeddingsSpec):
            continue
        what = f"{place}, {encoder.model}"
        started = time.monotonic()
        try:
            once = {"max_retries": 0, "timeout": min(encoder.timeout, _PATIENCE)}
            engine = build_engine(encoder.model_copy(update=once))
            try:
                came = engine.embed([_WORD], "query")
            finally:
                engine.close()
        except ValueError as error:
            yield Finding(what, "missing", "cannot be asked", str(error))
            continue
        told = came.error or came.refused.get(0)
        if told:
            yield Finding(what, "missing", "gave no vector", str(told))
        else:
            seconds = time.monotonic() - started
            named = f" as {came.model}" if came.model and came.model != encoder.model else ""
            size, tokens = came.vectors.dtype.size, came.prompt_tokens
            yield Finding(what, "ok", f"answers{named}: {size} numbers, {tokens} tokens, {seconds:.1f} s")


def _without_gpu(config: CurationConfig) -> Iterator[Finding]:
    """Yield stages that are set to work on a GPU but ask for none: Ray hides every GPU from them."""
    device = "cuda" if any(map(on_gpu, config.all_encoders.values())) else "cpu"
    devices = {ENCODE_PASSAGES.name: device, ENCODE_QUERIES.name: device}
    if config.train is not None:
        devices[TRAIN.name] = config.train.device
    if config.train_reranker is not None:
        devices |= {TRAIN_RERANKER.name: config.train_reranker.device, RERANK_HELD_OUT.name: config.evaluate.device}
    for stage, device in devices.items():
        wanted = config.resources.get(stage)
        if device == "cuda" and not (wanted and wanted.num_gpus):
            remedy = f"set `resources: {{{stage}: {{num_gpus: 1}}}}`"
            yield Finding(f"resources of {stage}", "missing", "device cuda, and no GPU asked for", remedy)


def _local(wanted: EncoderConfig | VLLMConfig | CrossEncoderConfig, stage: str, cache: Path) -> Engine:
    digest = digest_of(wanted.model, cache)
    path, size, memory = "", 0, 0
    if is_present(wanted.model, cache):
        folder = resolve(wanted.model, cache, on_message=lambda _: None).path
        path = str(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        memory = 0 if is_vectors(wanted.model) else model_bytes(folder, wanted.dtype)
    share, gpus = 0.0, 1
    if on_gpu(wanted):
        share, gpus = getattr(wanted, "gpu_memory_utilization", 0.9), getattr(wanted, "tensor_parallel_size", 1)
    elif memory and not isinstance(wanted, EncoderConfig):
        memory += kind_of(wanted).extra_bytes(wanted)
    return Engine(wanted.model, stage, path, digest, size, memory, share, gpus)


def too_large(engine: Engine, resources: Resources, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Compare an engine's memory with that of the nodes on which Ray may start it."""
    if not engine.memory:
        return
    able = [node for node in nodes if node.resources.get("GPU", 0.0) >= resources.num_gpus and _probe_of(node)]
    small = [node for node in able if not _has_room(engine, node)]
    kind = "GPU memory" if engine.gpu_share else "memory"
    needed = f"{(engine.memory + _PROCESS) / _GIB:.1f} GiB of {kind}"
    if able and len(small) == len(able):
        remedy = "take a smaller model or dtype, or larger nodes"
        yield Finding(f"memory for {engine.reference}", "missing", f"{needed} needed, no node has it", remedy)
    elif small:
        names = ", ".join(node.name for node in small)
        remedy = f"give {engine.stage} `memory` under `resources`, so that Ray passes these nodes by"
        yield Finding(f"memory for {engine.reference}", "note", f"{needed} needed; too small: {names}", remedy)
    elif able:
        yield Finding(f"memory for {engine.reference}", "ok", f"{needed} needed")


def _has_room(engine: Engine, node: Node) -> bool:
    found = _probe_of(node)
    if found is None:
        return False
    if engine.gpu_share:
        smallest = min(found.gpu_memory, default=0)
        return smallest * engine.gpu_share * engine.gpus >= engine.memory + _PROCESS
    return found.memory >= engine.memory + _PROCESS


def _probe_of(node: Node) -> Probe | None:
    return node.found if isinstance(node.found, Probe) else None
