"""`reneg ledger forget`: a night of garbage is forgotten, and only what rests on it is asked and computed again."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.config.section import ConfigError
from flows.curation.lookup import look_at
from flows.curation.records import load_curation
from flows.maintenance import gc
from flows.maintenance.forget import Wanted, forget, undo
from infra.ledger.forgetting import forgotten_at
from infra.ledger.ledger import Ledger
from tests.flows.animals import write_source
from tests.flows.fakes import FakeAnswer, OverlapLLM
from tests.flows.nightly import FIRST, Contrary, Nights


class Marked(Contrary):
    """The garbage comes with the fingerprint of another model."""

    def answer_to(self, content: str) -> FakeAnswer:
        usual = super().answer_to(content)
        return FakeAnswer(usual.text, usual.logprobs, fingerprint="fp_bad")


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """Two nights: in the first the judge is sound, in the second, with more queries, it answers garbage."""
    nights = Nights(tmp_path)
    original: Any = Ledger.__init__

    def clock() -> float:
        return (FIRST + timedelta(days=nights.night)).timestamp()

    monkeypatch.setattr(
        Ledger,
        "__init__",
        lambda self, store, origin="", since=0, _=None, **more: original(self, store, origin, since, clock, **more),
    )
    nights.curate(write_source(tmp_path / "source-0", 6))
    nights.sleep()
    nights.judge = Marked()
    nights.curate(write_source(tmp_path / "source-1", 12))
    nights.judge = OverlapLLM()
    nights.sleep()
    return nights


def judge_of(nights: Nights) -> str:
    _, runs = look_at(nights.workspace, load_curation(nights.workspace.store, "animals-000001"))
    (judged,) = [run for run in runs if run.name == "judge-llm"]
    return str(judged.manifests[0].ingredients["config"]["judge"])


def test_only_the_garbage_is_forgotten_and_only_what_rests_on_it_is_computed_again(nights: Nights) -> None:
    judge, since = judge_of(nights), FIRST + timedelta(days=1)
    before = Ledger(nights.workspace.store).stats()
    dry = forget(nights.settings, Wanted(judge, since), yes=False)
    assert Ledger(nights.workspace.store).stats() == before
    assert (dry["removed"], dry["undated"], dry["curations"]) == (False, 0, ["animals-000002"])
    assert dry["fingerprints"] == {"fp_bad": dry["rows"]}
    assert (dry["first"], dry["last"]) == (int(since.timestamp()),) * 2
    by_print = forget(nights.settings, Wanted(judge, fingerprint="fp_bad"), yes=False)
    assert (by_print["rows"], by_print["parts"]) == (dry["rows"], dry["parts"])
    done = forget(nights.settings, Wanted(judge, since), yes=True)
    assert (done["rows"], done["number"]) == (dry["rows"], "000001")
    result = nights.curate(nights.folder / "source-1")
    assert result.curation == "animals-000002"
    assert "judge-llm" in nights.computed
    (judged,) = [run for run in result.runs if run.name == "judge-llm"]
    facts = [manifest.stats["facts"] for manifest in judged.manifests]
    assert 0 < len(nights.judge.asked) < sum(fact["calls"] for fact in facts)  # the sound parts were not asked again
    assert not any("fp_bad" in fact.get("fingerprints", {}) for fact in facts)
    assert nights.curate(nights.folder / "source-0").computed == 0


def test_a_forgetting_is_undone_within_the_grace_and_gc_ends_it(nights: Nights) -> None:
    judge = judge_of(nights)
    before = Ledger(nights.workspace.store).stats()
    forget(nights.settings, Wanted(judge), yes=True)
    folder = next(iter(before))
    assert Ledger(nights.workspace.store).stats() == {}
    assert forgotten_at(nights.workspace.store, folder) > 0
    with pytest.raises(ConfigError, match=r"--undo 2: never forgotten; these can be undone: 000001"):
        undo(nights.settings, 2, yes=True)
    assert undo(nights.settings, 1, yes=False)["undone"] is False
    gc.collect(nights.settings, gc.Wanted(grace=24), yes=True)
    assert undo(nights.settings, 1, yes=True)["parts_back"] > 0
    assert Ledger(nights.workspace.store).stats() == before
    assert nights.curate(nights.folder / "source-1").computed == 0
    forget(nights.settings, Wanted(judge), yes=True)
    assert gc.collect(nights.settings, gc.Wanted(grace=0), yes=True)["forgotten"] > 0
    with pytest.raises(ConfigError, match="deleted by `reneg gc`, or undone already"):
        undo(nights.settings, 2, yes=True)
    assert nights.curate(nights.folder / "source-1").computed > 0


def test_a_judge_is_found_by_any_of_its_names_and_an_unknown_one_is_refused_with_those_there_are(
    nights: Nights,
) -> None:
    judge = judge_of(nights)
    asked = judge.rpartition("/")[0]
    (folder,) = Ledger(nights.workspace.store).judges()
    found = [
        forget(nights.settings, Wanted(name), yes=False) for name in (judge, asked, folder, asked.rpartition(":")[0])
    ]
    assert {tuple(one["folders"].items()) for one in found} == {((folder, asked),)}
    with pytest.raises(ConfigError, match="has no answers of it; known: "):
        forget(nights.settings, Wanted("gpt-4o"), yes=False)
