"""What a configuration from the store may use of a worker, and that a file of the user's own is not bound."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.config.section import ConfigError
from flows.curation.prepare import prepare
from flows.curation.records import keep_config, load_curation, open_curation, read_config
from flows.curation.stored_config import key_rules, refuse_other_keys, refuse_other_places
from flows.runs.execute import execute
from infra.settings import Settings
from tests.flows.animals import tier
from tests.flows.nightly import Nights, sources
from tests.flows.settings import config

STOLEN = {"kind": "openai", "model": "m-2026", "base_url": "http://gpu.example/v1", "allow_plain_http": True}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RENEG_ALLOWED_KEYS", "RENEG_ALLOWED_SOURCES"):
        monkeypatch.delenv(name, raising=False)


def judged_by(**engine: Any) -> Any:
    return config(tiers=[{"name": "far", "engine": {"kind": "openai", "model": "m-2026", **engine}}])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", "s3://bucket/store", tmp_path / "cache", None, None)


# ---- keys ----


def test_a_configuration_from_the_store_may_send_openais_key_to_openai_and_no_other_anywhere() -> None:
    bound = key_rules(own_file=False)
    refuse_other_keys(judged_by(), bound)
    stolen = judged_by(**STOLEN, api_key_env="AWS_SECRET_ACCESS_KEY")
    message = (
        "mine: tier far: engine.api_key_env: a configuration from the store may not send AWS_SECRET_ACCESS_KEY to "
        "http://gpu.example; allowed here: OPENAI_API_KEY@api.openai.com. "
        "Add AWS_SECRET_ACCESS_KEY@http://gpu.example to RENEG_ALLOWED_KEYS"
    )
    with pytest.raises(ConfigError) as caught:
        refuse_other_keys(stolen, bound)
    assert str(caught.value).startswith(message)
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY to http://gpu\.example"):
        refuse_other_keys(judged_by(**STOLEN), bound)
    refuse_other_keys(stolen, key_rules(own_file=True))


@pytest.mark.parametrize("kind", ["openai", "openai_batch"])
def test_every_kind_of_endpoint_and_azure_are_bound_alike(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    azure = {"base_url": "https://ours.openai.azure.com", "api_version": "2024-10-21", "api_key_env": "AZURE_KEY"}
    wanted = judged_by(**{**azure, "kind": kind})
    with pytest.raises(ConfigError, match=r"may not send AZURE_KEY to ours\.openai"):
        refuse_other_keys(wanted, key_rules(own_file=False))
    monkeypatch.setenv("RENEG_ALLOWED_KEYS", "AZURE_KEY@*.openai.azure.com")
    refuse_other_keys(wanted, key_rules(own_file=False))


def test_every_tier_that_is_refused_has_its_line() -> None:
    two = [{"name": name, "engine": {**STOLEN, "model": name}} for name in ("one", "two")]
    with pytest.raises(ConfigError) as caught:
        refuse_other_keys(config(tiers=two), key_rules(own_file=False))
    assert [line.partition(": engine")[0] for line in str(caught.value).splitlines()] == [
        "mine: tier one", "mine: tier two"
    ]  # fmt: skip


def test_rules_of_another_form_are_told_as_a_setting_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENEG_ALLOWED_KEYS", "OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="RENEG_ALLOWED_KEYS: VARIABLE@HOST expected"):
        key_rules(own_file=False)


# ---- places ----


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        "/proc/self/environ",
        "~/.aws/credentials",
        "file:///etc/passwd",
        "local:///etc/passwd",
        "relative/rows.jsonl",
        "/data/../etc/passwd",
        "/database/rows.jsonl",
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "https://elsewhere.example/rows.jsonl",
        "zip://rows.jsonl::file:///data/a.zip",
        "simplecache::s3://corpora/rows.jsonl",
        "s3://corpora/../other/rows.jsonl",
    ],
)
def test_a_configuration_from_a_remote_store_reads_no_other_file_of_the_worker(place: str, settings: Settings) -> None:
    with pytest.raises(
        ConfigError, match=r"mine: source\.path: .* may not read .*Add its folder to RENEG_ALLOWED_SOURCES"
    ):
        refuse_other_places(config(source={"path": place}), settings)


@pytest.mark.parametrize(
    "place", ["s3://corpora/rows.jsonl", "gs://corpora/beir", "/data/rows.jsonl", "file:///data/x"]
)
def test_object_stores_and_the_mounted_folder_may_be_read(place: str, settings: Settings) -> None:
    refuse_other_places(config(source={"path": place}), settings)


def test_the_operator_says_which_places_may_be_read(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "out").symlink_to("/etc")
    monkeypatch.setenv("RENEG_ALLOWED_SOURCES", f"s3://corpora/public, {tmp_path}/corpora")
    for fine in ("s3://corpora/public/a.jsonl", "s3://corpora/public", f"{tmp_path}/corpora/a.jsonl"):
        refuse_other_places(config(source={"path": fine}), settings)
    for wrong in (
        "s3://corpora/private/a.jsonl",
        "s3://corpora/public2",
        "/data/a.jsonl",
        f"{tmp_path}/corpora/out/passwd",
    ):
        with pytest.raises(ConfigError, match="may not read"):
            refuse_other_places(config(source={"path": wrong}), settings)


@pytest.mark.parametrize(
    ("allowed", "place", "may"),
    [
        ("", "hf://owner/name", False),
        ("hf://owner", "hf://owner/name", True),
        ("hf://owner/name", "hf://datasets/owner/name@main/data", True),
        ("hf://datasets/owner/name", "hf://owner/name@abc", True),
        ("hf://owner/name", "hf://owner/name-2", False),
        ("hf://owner/name", "hf://models/owner/name", False),
        ("hf://owner/name@abc", "hf://owner/name@abc/data", True),
        ("hf://owner/name@abc", "hf://owner/name@def", False),
        ("hf://owner/name@abc", "hf://owner/name", False),
    ],
)
def test_a_hub_is_read_where_the_operator_names_it_and_a_name_holds_for_every_revision(
    allowed: str, place: str, may: bool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if allowed:
        monkeypatch.setenv("RENEG_ALLOWED_SOURCES", allowed)
    with nullcontext() if may else pytest.raises(ConfigError, match=r"may not read hf://"):
        refuse_other_places(config(source={"path": place}), settings)


def test_the_gold_set_and_the_price_file_are_places_too(settings: Settings) -> None:
    wanted = config(
        source={"path": "s3://a/b"}, gold={"path": "/etc/shadow"}, prices="/etc/passwd", imported={"path": "/etc/a.csv"}
    )
    with pytest.raises(ConfigError) as caught:
        refuse_other_places(wanted, settings)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "gold.path",
        "imported.path",
        "prices",
    ]


def test_a_store_on_this_disk_binds_no_place(settings: Settings, tmp_path: Path) -> None:
    refuse_other_places(config(source={"path": "/etc/passwd"}), replace(settings, store=str(tmp_path / "store")))


# ---- who is who ----


def test_a_file_of_ones_own_is_told_from_what_was_deployed_and_from_a_recorded_curation(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    workspace, mine = nights.workspace, nights.config(sources(tmp_path, 4)[0])
    keep_config(workspace.store, mine)
    own = open_curation(workspace, mine, own_file=True)
    deployed = open_curation(workspace, read_config(workspace.store, "animals"))
    recorded = load_curation(workspace.store, own.id)
    assert own.id == deployed.id
    assert [c.own_file for c in (own, deployed, recorded)] == [True, False, False]
    assert [prepare(workspace, c).own_file for c in (own, deployed, recorded)] == [True, False, False]


def test_a_deployed_configuration_is_refused_before_its_source_is_read(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    there = replace(nights.workspace, settings=replace(nights.settings, store="s3://bucket/store"))
    source = sources(tmp_path, 4)[0]
    with pytest.raises(ConfigError, match=r"source\.path: a configuration from the store may not read"):
        open_curation(there, nights.config(source))
    assert there.store.list("objects") == []
    own = open_curation(there, nights.config(source), own_file=True)
    with pytest.raises(ConfigError, match=r"source\.path: a configuration from the store may not read"):
        execute(there, load_curation(there.store, own.id), nights.compute)
    assert nights.executors == []


def test_answers_that_were_paid_for_are_recalled_whatever_is_allowed(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    source = sources(tmp_path, 4)[0]
    far = {**tier(), "engine": {**STOLEN, "model": "judge-2026-01-01"}}
    first = nights.curate(source, tiers=[far])
    again = execute(nights.workspace, load_curation(nights.workspace.store, first.curation), nights.compute)
    assert (again.computed, len(nights.executors)) == (0, 1)


def test_an_encoder_of_an_endpoint_is_bound_like_a_judge() -> None:
    far = {"kind": "openai_embeddings", "model": "m", "api_key_env": "AWS_SECRET_ACCESS_KEY"}
    own = config(encoder=far, encoders={"far": far}, mine={"retrievers": ["dense", "far"]}, tiers=[], train=None)
    with pytest.raises(ConfigError, match="may not send AWS_SECRET_ACCESS_KEY") as caught:
        refuse_other_keys(own, key_rules(own_file=False))
    told = [line.partition("_env")[0] for line in str(caught.value).splitlines()]
    assert told == ["mine: encoder.api_key", "mine: encoders.far.api_key"]
    refuse_other_keys(own, key_rules(own_file=True))
