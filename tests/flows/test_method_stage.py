"""An entry of the stage table: the section of the settings that configures it."""

from flows.method_stage import MethodStage


def test_a_stage_is_configured_by_the_section_of_its_name_unless_it_says_otherwise() -> None:
    assert MethodStage("mine", "tasks.mining.mine:mine", 1, "map").settings == "mine"
    assert MethodStage("harvest", "tasks.data.demo_corpus:harvest", 1, "single", section="source").settings == "source"
