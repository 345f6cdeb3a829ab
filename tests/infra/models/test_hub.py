"""A hub is asked for the newest commit of a model; where it cannot be asked, the form with a commit is named."""

import pytest

from infra.models.hub import check, newest_commit, without_commit
from infra.models.wheels import ModelError
from tests.flows.curation.hub import ask_hub, serving


def test_the_newest_commit_is_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as hub:
        ask_hub(monkeypatch, hub.address)
        assert newest_commit("owner/model") == "c" * 40
        assert hub.asked == ["/api/models/owner/model"]
        with pytest.raises(ModelError, match=r"hub:owner/none names no commit.*write hub:owner/none@<commit>"):
            newest_commit("owner/none")
        hub.model_commit = "main"
        with pytest.raises(ModelError, match=r"the hub names no commit \('main'\)"):
            newest_commit("owner/model")


def test_offline_the_form_with_a_commit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_hub(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = r"hub:owner/model names no commit, and the hub could not be asked for it .* 40 digits; it stands on"
    with pytest.raises(ModelError, match=told):
        newest_commit("owner/model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match=told):
        newest_commit("owner/model")


def test_a_reference_is_taken_apart() -> None:
    assert check("owner/name@" + "0" * 40) == ("owner/name", "0" * 40)
    assert [without_commit(rest) for rest in ("owner/name", "owner/name@main", "owner")] == ["owner/name", None, None]
    with pytest.raises(ModelError, match="a branch or tag may move"):
        check("owner/name@main")
