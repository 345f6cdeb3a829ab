"""Runs the processes of one training with Ray Train: several workers that torch.distributed connects.

The part's own task only waits, so it holds no CPU; each worker has the resources that one part of the stage would have.
Ray Train's controller needs none. It dies with the part's task, and the workers with it. A worker that is lost ends all
of them: the part is tried again, and goes on from its checkpoints. Ray keeps the places of workers whose controller
died until the driver ends, so their id is noted in the cluster, and the next attempt gives them back.

Ray Train itself would listen on every address of the machine, where the workers meet. Here the first worker listens on
the address of its Ray node alone, which is 127.0.0.1 for a local Ray.
"""

import os
import socket
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ray import PlacementGroupID
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from ray.util import get_node_ip_address, remove_placement_group
from ray.util.placement_group import PlacementGroup, get_current_placement_group

from infra.cluster.nodes import refuse_other_code
from infra.cluster.ray_cluster import granted
from infra.execution.part_logs import Batch, Sender, relayed
from infra.stages.part_spec import PartSpec
from infra.storage.artifacts import Directory, materialise
from infra.storage.store import Store

_GPU_BACKENDS = "cpu:gloo,cuda:nccl"  # tensors of either kind can be exchanged
_NOTES = b"reneg train"  # the namespace of our notes in the cluster
_STARTS = 10  # further attempts, of a minute each, to get the places of all workers at once
_QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a part may be relative
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
_listening: list[socket.socket] = []  # of the first worker, until its store takes it over


class WorkerLostError(OSError):
    """A process of a training died or did not start; another attempt may succeed."""


class TrainWorkers:
    """The workers of one part."""

    def __init__(self, store_url: str, spec: PartSpec, cache: Path, sender: Sender | None) -> None:
        """Prepare; nothing is started. The arguments are those of the part."""
        self._store_url, self._spec, self._cache, self._sender = store_url, spec, cache, sender

    def run(self, work: Callable[[], None], count: int) -> None:
        """Run `work` in `count` processes at once, each with the resources of one part of the stage.

        Raises:
            WorkerLostError: a process died.
            Exception: what `work` raised in one of them.
        """
        os.environ.update(_QUIET)
        own = granted(self._spec.stage.resources)
        wanted = {"CPU": own.num_cpus, "GPU": own.num_gpus, "memory": own.memory or 0}
        share = _Share(work, self._store_url, self._spec, self._cache, self._sender)
        places = _Places(f"{self._store_url} {self._spec.key}")
        places.give_back()
        with tempfile.TemporaryDirectory(prefix="reneg-train-") as folder:
            trainer = TorchTrainer(
                share,
                scaling_config=ScalingConfig(
                    num_workers=count,
                    use_gpu=own.num_gpus > 0,
                    resources_per_worker={name: value for name, value in wanted.items() if value},
                ),
                torch_config=_Config(places=places),
                run_config=RunConfig(
                    name=f"{self._spec.name}-{uuid.uuid4().hex[:8]}",
                    storage_path=folder,  # nothing is reported to Ray Train, so other nodes need not see it
                    failure_config=FailureConfig(max_failures=0, controller_failure_limit=_STARTS),
                ),
            )
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise _cause(error) from None
            finally:
                places.give_back()


@dataclass(frozen=True)
class _Places:
    """The placement group of the workers of one part, as noted in the cluster."""

    part: str

    def note(self, group: bytes) -> None:
        """Note the id of the group."""
        _internal_kv_put(self.part, group, overwrite=True, namespace=_NOTES)

    def give_back(self) -> None:
        """Remove the group that was noted last, if any is; its processes end."""
        found = _internal_kv_get(self.part, namespace=_NOTES)
        if found:
            remove_placement_group(PlacementGroup(PlacementGroupID(found)))
            _internal_kv_del(self.part, namespace=_NOTES)


@dataclass(frozen=True)
class _Share:
    """What a worker does: have the part's folders on its own machine, then work, with its lines in the part's log."""

    work: Callable[[], None]
    store_url: str
    spec: PartSpec
    cache: Path
    sender: Sender | None

    def __call__(self) -> None:
        sender = None if self.sender is None else _Unended(self.sender.holder, self.sender.box)
        rank = os.environ.get("RANK", "?")
        with relayed(sender, f"{self.spec.name}, worker {rank} of {os.environ.get('WORLD_SIZE', '?')}"):
            refuse_other_code()
            for artifact in self.spec.inputs.values():
                if isinstance(artifact, Directory):
                    materialise(Store(self.store_url), artifact, self.cache)
            self.work()


class _Unended(Sender):
    """The end of a worker's lines is not the end of the part's."""

    def send(self, batch: Batch) -> None:
        """Hand lines over."""
        super().send(batch._replace(ended=False))


@dataclass
class _Config(TorchConfig):  # type: ignore[misc]  # Ray's classes are untyped
    """As Ray Train's own, but for where the workers meet; `places` is where their placement group is noted."""

    places: _Places | None = None

    @property
    def backend_cls(self) -> type["_Backend"]:
        """What connects the workers."""
        return _Backend


class _Backend(_TorchBackend):  # type: ignore[misc]
    """Connects the workers by a store that listens on the address of the first worker's node alone."""

    def on_start(self, worker_group: Any, backend_config: _Config) -> None:  # noqa: ANN401 - Ray's own
        """Let the first worker listen and all of them join."""
        import ray

        address, port, group = worker_group.execute_single(0, _listen)
        if backend_config.places is not None and group is not None:
            backend_config.places.note(group)
        worker_group.execute(_set_torch_distributed_env_vars)
        count = len(worker_group)
        backend = _GPU_BACKENDS if worker_group.get_resources_per_worker().get("GPU") else "gloo"
        how = (backend, timedelta(seconds=backend_config.timeout_s))
        joined = [
            worker_group.execute_single_async(rank, _join, address=address, port=port, own=rank, count=count, how=how)
            for rank in range(count)
        ]
        ray.get(joined)


def _listen() -> tuple[str, int, bytes | None]:
    """Open a port on the address of this Ray node; the third is the id of the placement group of this process."""
    address = get_node_ip_address()
    listening = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    _listening.append(listening)
    group = get_current_placement_group()
    return address, int(listening.getsockname()[1]), None if group is None else group.id.binary()


def _join(address: str, port: int, own: int, count: int, how: tuple[str, timedelta]) -> None:
    """Join the process group of the workers. own: the number of this one. how: backend, and how long one waits."""
    import torch.distributed as dist
    from torch._C._distributed_c10d import TCPStore

    if address.startswith("127."):
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    backend, timeout = how
    listening = _listening.pop().detach() if own == 0 else None
    store = TCPStore(address, port, count, own == 0, timeout, wait_for_workers=False, master_listen_fd=listening)
    dist.init_process_group(backend, store=store, rank=own, world_size=count, timeout=timeout)


def _cause(error: TrainingFailedError) -> Exception:
    """Return what a worker's own code raised, or that a worker was lost.

    Where one worker fails, the others fail as they wait for it; what is no error of a connection tells more.
    """
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failure, "_base_exc", failure) for _, failure in sorted(failures.items())]
    own = [cause for cause in causes if type(cause).__module__.split(".")[0] not in ("ray", "torch")]
    told = [cause for cause in own if not (isinstance(cause, RuntimeError) and _is_of_connection(str(cause)))]
    if told and isinstance(told[0], Exception):
        return told[0]
    lines = [line.strip() for line in str(causes[0] if causes else error).splitlines() if line.strip()]
    return WorkerLostError(f"a worker of the training was lost: {lines[-1][:300] if lines else 'no reason was given'}")


def _is_of_connection(text: str) -> bool:
    return any(word in text.lower() for word in ("connection", "gloo", "nccl", "broken pipe", "timed out"))
