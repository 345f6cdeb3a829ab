"""Sets of BEIR and tasks of mteb are known by name: address, revision, split, main measure, language."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.evaluation.named_sets import BEIR, GROUPS, TASKS, expand
from tasks.training.evaluate import EvaluateConfig

OUT_OF_DOMAIN = {"trec-covid", "nfcorpus", "webis-touche2020", "trec-news", "robust04", "signal1m", "bioasq"}


def collections(*items: Any) -> list[dict[str, Any]]:
    return [each.model_dump() for each in EvaluateConfig(collections=items).collections]


def test_every_task_names_a_data_set_at_a_revision() -> None:
    assert len(TASKS) == 52
    for task in TASKS.values():
        assert re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", task.source)
        assert re.fullmatch(r"[0-9a-f]{40}", task.revision)
        assert re.fullmatch(r"[a-z]{3}-[A-Z][a-z]{3}", task.language)
        assert task.split in ("test", "dev", "train", "validation")
        assert task.address == f"hf://{task.source}@{task.revision}"
    assert {task for task in BEIR.values() if task is not None} <= TASKS.keys()


def test_the_groups_are_those_of_the_paper() -> None:
    assert len(GROUPS["all"]) == 16
    assert set(GROUPS["out_of_domain"]) == OUT_OF_DOMAIN
    assert len(GROUPS["public"]) == 12
    assert set(GROUPS["all"]) - set(GROUPS["public"]) == {"trec-news", "robust04", "signal1m", "bioasq"}


def test_a_task_is_an_address_with_its_split_measure_and_language() -> None:
    (found,) = collections({"mteb": "GerDaLIRSmall"})
    assert found == {
        "path": f"hf://mteb/GerDaLIRSmall@{TASKS['GerDaLIRSmall'].revision}",
        "name": "GerDaLIRSmall",
        "split": "test",
        "languages": ("deu-Latn",),
        "main": "nDCG@10",
        "revision": TASKS["GerDaLIRSmall"].revision,
    }
    assert collections({"mteb": "duretrieval"})[0]["split"] == "dev"
    assert collections({"mteb": "SciFact", "split": "train", "name": "ours"})[0]["split"] == "train"
    # What was resolved is read again as it is, from the record of a curation.
    assert collections(found) == [found]


def test_a_set_of_beir_is_the_same_as_its_task() -> None:
    assert collections({"beir": "NFCorpus"}) == collections({"mteb": "NFCorpus"})
    assert [one["name"] for one in collections({"beir": ["fiqa", "msmarco"]})] == ["FiQA2018", "MSMARCO"]
    assert [one["name"] for one in collections({"beir": "public"})] == [BEIR[name] for name in GROUPS["public"]]


def test_a_folder_at_hand_takes_the_place_of_the_hub() -> None:
    (found,) = collections({"mteb": "SciFact", "path": "sets/scifact"})
    assert (found["path"], found["name"], found["revision"]) == ("sets/scifact", "SciFact", "")
    (licensed,) = collections({"beir": "robust04", "path": "s3://sets/robust"})
    assert (licensed["path"], licensed["name"], licensed["languages"]) == (
        "s3://sets/robust",
        "robust04",
        ("eng-Latn",),
    )
    several = collections({"beir": "out_of_domain", "path": "sets/"})
    assert {one["path"] for one in several} == {f"sets/{name}" for name in OUT_OF_DOMAIN}


def test_other_entries_stay_as_they_are() -> None:
    for item in ("s3://sets/nf", {"path": "a/b", "name": "c"}, 3):
        assert expand(item) == [item]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"mteb": "SciFacts"}, r"mteb: no set 'SciFacts' is known here; near it: SciFact,.* \{path: …\}"),
        ({"beir": "nfcorpsu"}, "near it: nfcorpus"),
        ({"beir": "out_of_domian"}, "near it: out_of_domain"),
        ({"beir": "zzz"}, "known: all, out_of_domain, public, trec-covid"),
        ({"beir": 3}, "no set '3'"),
        ({"beir": "all"}, "beir: trec-news, robust04, signal1m, bioasq: no hub .* `beir: public`"),
        ({"beir": "bioasq"}, "because of their licences"),
        ({"beir": "nq", "mteb": "NQ"}, "got both"),
        ({"beir": "public", "name": "mine"}, "remove `name`"),
    ],
)
def test_an_unknown_name_is_refused_with_the_near_ones(item: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EvaluateConfig(collections=(item,))


def test_what_is_no_list_and_one_set_twice_are_refused() -> None:
    with pytest.raises(ValidationError, match="valid tuple"):
        EvaluateConfig(collections="nfcorpus")
    with pytest.raises(ValidationError, match="several are"):
        collections({"beir": "nq"}, {"mteb": "NQ"})
