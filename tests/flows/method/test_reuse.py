"""What is judged again and what is not: new queries, another prompt, equal texts elsewhere (with a fake judge)."""

import re
from pathlib import Path

from infra.storage.artifacts import read_table
from tests.flows.animals import run_method, tier, write_source


def queries_asked(contents: list[str]) -> set[str]:
    return {re.search(r"<query>\n(.*?)\n</query>", content).group(1) for content in contents}  # type: ignore[union-attr]


def test_a_night_with_one_more_query_asks_about_that_query_only(tmp_path: Path) -> None:
    first = run_method(tmp_path, write_source(tmp_path / "monday", queries=6))[2]
    second = run_method(tmp_path, write_source(tmp_path / "tuesday", queries=7))[2]
    assert len(queries_asked(first.llm.asked)) == 5  # every fourth is held out
    assert queries_asked(second.llm.asked) - queries_asked(first.llm.asked) == {"where does the viper live"}
    # The fake judge cannot be read for one prompt in sixteen: what was not read is asked again, nothing else is.
    again = [content for content in second.llm.asked if "viper" not in content]
    assert all(second.llm.answer_to(content).text == "Maybe" for content in again)


def test_another_prompt_asks_about_everything_again(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    first = run_method(tmp_path, source)[2]
    other = tier(judge={"definition": "A passage counts if it names a place."})
    second = run_method(tmp_path, source, tiers=[other])[2]
    assert len(second.llm.asked) == len(first.llm.asked)
    assert queries_asked(second.llm.asked) == queries_asked(first.llm.asked)


def test_the_same_texts_under_another_datasets_name_and_other_ids_cost_no_call(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    first = run_method(tmp_path, source)[2]
    renamed = write_source(tmp_path / "renamed")
    for path in renamed.rglob("*"):
        if path.is_file():
            jsonl = path.read_text().replace('"_id": "', '"_id": "x')
            path.write_text(re.sub(r"^(q\d+)\t(\S+)\t", r"x\1\tx\2\t", jsonl, flags=re.MULTILINE))
    outcome, run, second = run_method(tmp_path, renamed, name="elsewhere")
    judged = next(r for r in run.runs if r.name == "judge-llm").manifests
    assert sum(m.stats["facts"]["recalled"] for m in judged) > 0
    assert all(second.llm.answer_to(content).text == "Maybe" for content in second.llm.asked)
    assert first.llm.asked
    assert read_table(run.store, outcome.queries)["dataset"].unique().to_list() == ["elsewhere"]


def test_thresholds_move_without_a_call(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    run_method(tmp_path, source)
    moved = run_method(tmp_path, source, tiers=[tier(judge={"relevant_from": 0.9, "not_relevant_below": 0.2})])[2]
    assert any(name.startswith("judge-llm") for name in moved.computed)
    assert all(moved.llm.answer_to(content).text == "Maybe" for content in moved.llm.asked)


def test_a_skipped_dataset_is_neither_judged_nor_edited(tmp_path: Path) -> None:
    outcome, run, executor = run_method(
        tmp_path, write_source(tmp_path / "source"), policies={"animals": {"skip": True}}
    )
    assert executor.llm.asked == []
    relabel, default = (read_table(run.store, outcome.instances[t]) for t in ("relabel", "default"))
    assert relabel.drop("treatment").equals(default.drop("treatment"))


def test_facts_say_what_was_asked_remembered_and_not_read(tmp_path: Path) -> None:
    _, run, executor = run_method(tmp_path, write_source(tmp_path / "source"))
    facts = [m.stats["facts"] for r in run.runs if r.name == "judge-llm" for m in r.manifests]
    assert sum(f["calls"] for f in facts) == len(executor.llm.asked)
    unread = sum(executor.llm.answer_to(content).text == "Maybe" for content in executor.llm.asked)
    assert sum(f["failures"].get("neither", 0) for f in facts) == unread
    assert sum(f["prompt_tokens"] for f in facts) == 10 * len(executor.llm.asked)
