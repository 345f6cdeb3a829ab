"""Engines in actors of this process: shared by parts, built again when one dies; in Ray, in test_flow_runs.py."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from pydantic import BaseModel
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from infra.engines.answers import EndpointError
from infra.engines.specs import OpenAIBatchSpec, OpenAISpec, SentenceTransformersSpec
from infra.execution import engine_pool, ray_tasks
from infra.execution.engine_pool import EnginePool, Place
from infra.execution.part_logs import SILENT
from infra.execution.ray_tasks import PartError, begin_anew
from infra.execution.sent_parts import SentPart
from infra.execution.usage_meter import Budget, Meter
from infra.key_rules import KeyRules
from infra.stages.runner import PartSpec
from infra.stages.stage import Resources
from tests.infra.ray_in_process import RayInProcess, node
from tests.infra.toy import WITH_ENGINE


class Engine:
    """What an engine's actor does; `fates` are raised by the parts in turn."""

    def __init__(self, spec: BaseModel, place: Place, sender: object = None) -> None:
        self.spec = spec

    def ready(self) -> str:
        return "node-1"

    def compute(self, store_url: str, sent: SentPart, cache: Path, meter: object, sender: object = None) -> str:
        return f"{sent.part.name} by {getattr(self.spec, 'batch_size', None)}"

    def flush(self) -> int:
        return 0


ENCODER = SentenceTransformersSpec(model="/models/encoder", digest="e1", batch_size=32)


@pytest.fixture
def ray_here(monkeypatch: pytest.MonkeyPatch) -> RayInProcess:
    monkeypatch.delenv("RENEG_AUTOSCALE", raising=False)
    monkeypatch.setattr(ray_tasks, "_POLL_SECONDS", 0.01)
    ours = RayInProcess([node("node-1", CPU=4.0)]).install(monkeypatch)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(engine_pool, "EngineActor", ours.remote(Engine))
    monkeypatch.setattr(engine_pool, "is_going", lambda node: node == "a node that goes")
    begin_anew()
    return ours


def pool_of(spec: BaseModel = ENCODER, **resources: Any) -> EnginePool:
    return EnginePool(spec, Resources(**{"num_cpus": 1.0, "deadline": 60.0, **resources}), Meter(Budget(), {}))


def part(number: int = 0) -> PartSpec:
    return PartSpec(WITH_ENGINE, f"with_engine-{number:05d}", number, number, f"key-{number}", 0, {}, {}, {})


def compute(pool: EnginePool, number: int = 0) -> Any:
    return pool.compute(part(number), "store", Path("/cache"))


def test_no_actor_is_started_before_a_part_needs_one_and_parts_share_it(ray_here: RayInProcess) -> None:
    pool = pool_of(num_cpus=8.0)
    assert ray_here.actors == []
    assert [compute(pool, number) for number in range(3)] == [f"with_engine-0000{n} by 32" for n in range(3)]
    assert len(ray_here.actors) == 1
    (options,) = ray_here.options
    assert (options["num_cpus"], options["num_gpus"], options["memory"]) == (4.0, 0.0, None)
    assert options["max_concurrency"] == 3  # two parts, and the call that flushes
    assert options["runtime_env"]["env_vars"]["HF_HUB_OFFLINE"] == "1"
    pool.close()
    assert ray_here.killed == ray_here.actors
    assert ray_here.actors[0].calls[-1] == "flush"
    with pytest.raises(PartError, match="stopped: the engines were released") as refused:
        compute(pool)
    assert not refused.value.retry


@pytest.mark.parametrize(("engines", "fitting", "hosts"), [(1, 4.0, 1), (3, 4.0, 3), (9, 4.0, 4)])
def test_no_more_engines_stand_side_by_side_than_fit(
    ray_here: RayInProcess, engines: int, fitting: float, hosts: int
) -> None:
    assert len(pool_of(engines=engines)._hosts) == hosts


def test_where_the_cluster_grows_as_many_engines_stand_as_are_configured(
    ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENEG_AUTOSCALE", "1")
    assert len(pool_of(engines=9)._hosts) == 9


def test_a_node_that_joins_while_parts_wait_is_given_an_engine(
    ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_pool, "_LOOK_SECONDS", 0.02)
    ray_here.nodes = [node("node-1", CPU=4.0, GPU=1.0)]
    pool = pool_of(engines=3, num_gpus=1.0)
    assert (len(pool._hosts), pool.lanes) == (1, 2)
    for _ in range(2):
        pool._enter(alone=False)
    entered = threading.Event()
    threading.Thread(target=lambda: (pool._enter(alone=False), entered.set()), daemon=True).start()
    assert not entered.wait(0.1)
    ray_here.nodes = [*ray_here.nodes, *(node(f"node-{n}", CPU=4.0, GPU=1.0) for n in range(2, 6))]
    assert entered.wait(60)
    assert (len(pool._hosts), pool.lanes) == (3, 6)  # no more than are configured


def test_a_third_part_goes_to_another_engine_and_a_fifth_waits_for_a_lane(ray_here: RayInProcess) -> None:
    pool = pool_of(engines=2)
    hosts = [pool._enter(alone=False) for _ in range(4)]
    assert [pool._hosts.index(host) for host in hosts] == [0, 1, 0, 1]
    entered = threading.Event()
    waiting = threading.Thread(target=lambda: (pool._enter(alone=False), entered.set()), daemon=True)
    waiting.start()
    assert not entered.wait(0.05)
    with pool._free:
        hosts[0].busy -= 1
        pool._free.notify_all()
    assert entered.wait(60)


def test_a_part_under_suspicion_waits_for_an_idle_engine_and_goes_before_the_others(ray_here: RayInProcess) -> None:
    pool = pool_of()
    order: list[str] = []
    first = pool._enter(alone=False)

    def enter(name: str, *, alone: bool) -> threading.Thread:
        def work() -> None:
            with pool._lane(alone=alone) as host:
                order.append(f"{name} {host.busy}")

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    suspect = enter("suspect", alone=True)
    while not pool._suspects:
        time.sleep(0.001)
    other = enter("other", alone=False)
    suspect.join(0.05)
    assert order == []  # one lane is free, but the suspect wants both and comes first
    with pool._free:
        first.busy -= 1
        pool._free.notify_all()
    for thread in (suspect, other):
        thread.join(60)
    assert order == ["suspect 2", "other 1"]
    assert (pool._hosts[0].busy, pool._suspects) == (0, 0)


def test_a_part_that_was_in_an_engine_twice_when_it_died_is_set_aside(ray_here: RayInProcess) -> None:
    pool = pool_of()
    for _ in range(2):
        compute(pool, 1)
        ray_here.actors[-1].troubles = [RayActorError(error_msg="it fell over")]
        with pytest.raises(PartError, match="engine died: it fell over") as died:
            compute(pool, 0)
        assert died.value.retry
    assert (len(ray_here.actors), len(ray_here.killed)) == (2, 2)  # each was given up, and the second one built anew
    with pytest.raises(PartError, match="set aside: the engine died 2 times while it computed this part") as refused:
        compute(pool, 0)
    assert not refused.value.retry
    assert compute(pool, 1) == "with_engine-00001 by 32"


def test_an_engine_lost_with_its_node_does_not_count_against_its_part(
    ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "ready", lambda self: "a node that goes")
    pool = pool_of()
    for _ in range(3):
        pool._actor(pool._hosts[0], Place("store", Path("/cache")), SILENT)
        ray_here.actors[-1].troubles = [RayActorError(error_msg="its node went")]
        with pytest.raises(PartError, match="its node went"):
            compute(pool)
    assert pool._kills == {}
    assert compute(pool) == "with_engine-00000 by 32"


def test_an_error_of_the_part_itself_costs_no_engine(ray_here: RayInProcess) -> None:
    pool = pool_of()
    compute(pool)
    ray_here.actors[0].troubles = [RayTaskError("compute", "Traceback", KeyError("a"))]
    with pytest.raises(PartError, match="KeyError"):
        compute(pool)
    assert (ray_here.killed, pool._kills) == ([], {})


def test_after_memory_ran_out_the_engine_is_built_with_half_the_batch(ray_here: RayInProcess) -> None:
    pool = pool_of()
    compute(pool)
    ray_here.actors[0].troubles = [OutOfMemoryError("killed")]
    with pytest.raises(PartError, match="out of memory"):
        compute(pool, 1)
    assert compute(pool, 2) == "with_engine-00002 by 16"


@pytest.mark.parametrize(("size", "smaller"), [(3, 1), (2, 1), (1, 1)])
def test_a_batch_is_halved_down_to_one(size: int, smaller: int) -> None:
    spec = ENCODER.model_copy(update={"batch_size": size})
    assert engine_pool._smaller_batches(spec).batch_size == smaller  # type: ignore[attr-defined]


def test_settings_without_a_batch_size_stay_as_they_are() -> None:
    spec = OpenAISpec(model="m")
    assert engine_pool._smaller_batches(spec) is spec


def test_all_lanes_work_may_lie_within_one_parts_time(ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(engine_pool, "await_ray", lambda reference, seconds, log: waits.append(seconds) or "node-1")
    compute(pool_of(OpenAIBatchSpec(model="m", parallel=5)))
    compute(pool_of())
    assert waits == [900.0, 300.0, 900.0, 120.0]
    waits.clear()
    monkeypatch.setenv("RENEG_AUTOSCALE", "1")
    compute(pool_of())
    assert waits == [2700.0, 120.0]  # a node may have to come first


def test_an_engine_that_refuses_its_settings_is_built_once_for_all_parts(
    ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Engine) -> str:
        raise RayTaskError("ready", "Traceback", ValueError("no such folder"))

    monkeypatch.setattr(Engine, "ready", refuse)
    pool = pool_of()
    for _ in range(2):
        with pytest.raises(PartError, match="the engine could not be built: ValueError: no such folder") as refused:
            compute(pool)
        assert not refused.value.retry
    assert (len(ray_here.actors), len(ray_here.killed)) == (1, 1)


def test_after_a_refusal_of_every_request_no_further_part_is_begun(
    ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def refuse(self: Engine, store_url: str, sent: SentPart, *_: object) -> str:
        begun.append(sent.part.name)
        raise RayTaskError("compute", "Traceback", EndpointError("m-1 refuses every request: set `seed: null`"))

    monkeypatch.setattr(Engine, "compute", refuse)
    pool = pool_of()
    for number in range(3):
        with pytest.raises(PartError, match="EndpointError: m-1 refuses every request: set `seed: null`") as refused:
            compute(pool, number)
        assert not refused.value.retry
    assert begun == ["with_engine-00000"]


def test_an_engine_whose_building_may_succeed_later_is_built_again(
    ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles: list[Exception] = [RayTaskError("ready", "Traceback", OSError("the store is away"))]

    def ready(self: Engine) -> str:
        if troubles:
            raise troubles.pop()
        return "node-1"

    monkeypatch.setattr(Engine, "ready", ready)
    pool = pool_of()
    with pytest.raises(PartError, match="could not be built: OSError: the store is away") as failed:
        compute(pool)
    assert failed.value.retry
    assert compute(pool) == "with_engine-00000 by 32"
    assert len(ray_here.actors) == 2


def test_an_actor_that_another_part_replaced_already_is_not_killed_again(ray_here: RayInProcess) -> None:
    pool = pool_of()
    compute(pool)
    host, first = pool._hosts[0], ray_here.actors[0]
    pool._discard(host, first)
    compute(pool)
    pool._discard(host, first)
    assert (ray_here.killed, host.actor) == ([first], ray_here.actors[1])


@pytest.mark.parametrize(
    ("available", "free"),
    [
        ({"CPU": 2.0, "GPU": 1.0}, True),
        ({"CPU": 1.9, "GPU": 1.0}, False),
        ({"CPU": 2.0, "GPU": 0.5}, False),
        ({}, False),
    ],
)
def test_resources_are_back_once_ray_has_as_many(
    ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch, available: dict[str, float], free: bool
) -> None:
    monkeypatch.setattr(ray, "available_resources", lambda: available)
    assert engine_pool._is_free(Resources(num_cpus=2.0, num_gpus=1.0)) is free


def test_closing_waits_until_the_resources_are_back(ray_here: RayInProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [{"CPU": 0.0}, {"CPU": 0.0}, {"CPU": 1.0}]
    monkeypatch.setattr(ray, "available_resources", lambda: answers.pop(0))
    pool = pool_of()
    pool.close()
    assert len(answers) == 3  # nothing was started
    pool = pool_of()
    compute(pool)
    pool.close()
    assert answers == []


def test_an_endpoint_that_may_not_get_its_key_is_refused_before_any_actor_starts(ray_here: RayInProcess) -> None:
    far = OpenAISpec(model="m", base_url="https://gpu.example/v1", api_key_env="AWS_SECRET_ACCESS_KEY")
    rules = KeyRules.parse("OPENAI_API_KEY@api.openai.com")
    for spec, told in (
        (far, "may not send AWS_SECRET_ACCESS_KEY to gpu.example"),
        (far.model_copy(update={"base_url": "http://gpu.example/v1"}), "would get the key and the texts unencrypted"),
        (far.model_copy(update={"extra_body": {"api_key": "x"}}), "extra_body: no credential expected"),
    ):
        bound = EnginePool(spec, Resources(num_cpus=1.0), Meter(Budget(), {}), rules)
        with pytest.raises(PartError, match=told) as caught:
            compute(bound)
        assert not caught.value.retry
    assert ray_here.actors == []
    assert compute(pool_of(far)) == "with_engine-00000 by None"  # a file of the user's own
    fine = EnginePool(OpenAISpec(model="m"), Resources(num_cpus=1.0), Meter(Budget(), {}), rules)
    assert compute(fine) == "with_engine-00000 by None"
