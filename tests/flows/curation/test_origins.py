"""What computed a curation: counted by stage, from what the manifests and the ledger recorded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.curation.origins import changes, computed_by, lines_of, mixtures
from infra.provenance import UNRECORDED, Origin
from infra.stages.origins import keep
from infra.stages.runner import StageRun
from infra.storage.artifacts import Manifest
from infra.storage.store import Store

OLD = Origin({"vllm": "0.31.0"}, {"device": "cpu", "name": "AMD EPYC"})
NEW = Origin({"vllm": "0.32.0"}, {"device": "cpu", "name": "AMD EPYC"})


def part(number: int, **stats: Any) -> Manifest:
    return Manifest("judge", 1, number, f"key{number}", 0, {}, {}, {}, stats)


def stage(name: str, *manifests: Manifest) -> StageRun:
    return StageRun(name, len(manifests), 0, len(manifests), {}, 0, frozenset(), 0, 0.0, manifests)


def test_parts_are_counted_and_of_a_judge_its_answers(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    old, new = keep(store, OLD), keep(store, NEW)
    runs = [
        stage("ingest", part(0, origin=old)),
        stage("encode_passages", part(0, origin=old), part(1, origin=new), part(2, origin=new)),
        stage("judge-llm", part(0, origin=old, answers={old: 5}), part(1, origin=new, answers={old: 2, new: 3})),
        stage("judge-empty", part(0, origin=old, answers={})),
    ]
    assert computed_by(store, runs) == {
        "encode_passages": {"unit": "parts", "by": {OLD.line: 1, NEW.line: 2}},
        "judge-llm": {"unit": "answers", "by": {OLD.line: 7, NEW.line: 3}},
        "judge-empty": {"unit": "parts", "by": {OLD.line: 1}},
    }


def test_what_was_made_before_origins_were_recorded_or_whose_record_is_gone_is_said_to_be_unknown(
    tmp_path: Path,
) -> None:
    store = Store.open(str(tmp_path))
    new = keep(store, NEW)
    older = part(0, rows={"calls": 4, "verdicts": 9})
    runs = [stage("judge-llm", older, part(1, origin=new, answers={"": 1, "0" * 16: 1, new: 2}))]
    assert computed_by(store, runs)["judge-llm"]["by"] == {UNRECORDED: 6, NEW.line: 2}
    assert lines_of(store, older) == (f"computed by {UNRECORDED}", f"4 answers by {UNRECORDED}")


def test_of_an_encoder_its_vectors_are_counted_and_older_parts_have_their_own_origin(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    old, new = keep(store, OLD), keep(store, NEW)
    before, now = part(0, origin=old, rows_out=5), part(1, origin=new, rows_out=9, vectors={old: 6, new: 3})
    assert computed_by(store, [stage("encode_passages", before, now)])["encode_passages"] == {
        "unit": "vectors",
        "by": {OLD.line: 11, NEW.line: 3},
    }
    assert set(lines_of(store, now)[1:]) == {f"3 vectors by {NEW.line}", f"6 vectors by {OLD.line}"}
    empty = part(0, origin=new, rows_out=0, vectors={new: 0})
    assert computed_by(store, [stage("encode_queries", empty)])["encode_queries"]["unit"] == "parts"


def test_an_endpoints_answers_are_counted_by_what_it_called_itself(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    asked = Origin(endpoint="openai gpt-4o")
    origin = keep(store, asked)
    facts = {"fingerprints": {"gpt-4o-2024-11-20 fp_1": 3, "": 1}}
    made = part(0, origin=origin, answers={"": 2, origin: 2}, facts=facts)
    assert computed_by(store, [stage("judge-llm", made)])["judge-llm"] == {
        "unit": "answers",
        "by": {"an endpoint that called itself gpt-4o-2024-11-20 fp_1": 3, "an endpoint that gave no name": 1},
    }
    assert lines_of(store, made)[0] == "computed by endpoint openai gpt-4o"
    plain = replace(made, stats={**made.stats, "facts": {}})
    assert computed_by(store, [stage("judge-llm", plain)])["judge-llm"]["by"] == {UNRECORDED: 2, asked.line: 2}


def test_a_mixture_and_a_change_are_told_in_a_sentence_per_stage() -> None:
    before = {"judge-llm": {"unit": "answers", "by": {"A": 1200}}, "train": {"unit": "parts", "by": {"A": 1}}}
    now = {"judge-llm": {"unit": "answers", "by": {"A": 1200, "B": 7}}, "train": {"unit": "parts", "by": {"A": 2}}}
    assert mixtures(now) == ["judge-llm: 1,200 answers by A; 7 answers by B"]
    assert mixtures(before) == []
    assert changes(before, now) == {"judge-llm": "judge-llm was computed by [A]; now by [A] and [B]"}
    assert changes({}, now) == {}
