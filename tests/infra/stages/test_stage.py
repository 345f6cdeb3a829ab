"""A stage's declaration: its inputs in the order of the function's keywords, and what a part gets by default."""

from infra.stages.stage import Resources, Stage
from tests.infra.frozen import can_be_changed


def test_inputs_are_those_of_each_part_then_crossed_whole_and_late_ones() -> None:
    stage = Stage("s", "m:f", 1, "grid", each=("a", "b"), across=("c",), every=("d",), late=("e", "f"))
    assert stage.inputs == ("a", "b", "c", "d", "e", "f")
    assert Stage("s", "m:f", 1, "single").inputs == ()


def test_a_part_gets_one_cpu_no_gpu_one_hour_and_three_attempts_unless_its_stage_says_otherwise() -> None:
    stage = Stage("s", "m:f", 1, "map")
    assert stage.resources == Resources(num_cpus=1.0, num_gpus=0.0, memory=None, deadline=3600.0, engines=1)
    assert stage.retries == 2
    assert (stage.engine, stage.ledger, stage.outputs, stage.splits, stage.directories) == (None, False, {}, (), ())


def test_a_stage_cannot_be_changed_once_it_is_declared() -> None:
    assert not can_be_changed(Stage("s", "m:f", 1, "map"))
    assert not can_be_changed(Resources())
