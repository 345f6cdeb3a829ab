"""The stages of the guards fit their functions, and are in the stage table."""

import inspect

from flows import guard_stages
from flows.method_stage import MethodStage
from flows.stages import STAGES
from infra.stages.compute_part import load_function

GUARDS = [stage for stage in vars(guard_stages).values() if isinstance(stage, MethodStage)]


def test_each_is_in_the_stage_table_and_reads_what_its_function_takes() -> None:
    assert len(GUARDS) == 10
    for stage in GUARDS:
        assert stage in STAGES
        assert stage.settings == "guards"
        taken = set(inspect.signature(load_function(stage.function)).parameters) - {"config"}
        assert taken == set(stage.inputs), stage.name


def test_no_part_but_the_grouping_of_numbers_reads_a_whole_table_that_grows() -> None:
    whole = {stage.name: (*stage.every, *stage.late) for stage in GUARDS if stage.every or stage.late}
    assert whole == {
        "read_evaluation": ("source",),  # the evaluation sets
        "find_contamination": ("evaluation",),
        "group_duplicates": ("links",),  # 16 bytes for each pair of near duplicates
    }
