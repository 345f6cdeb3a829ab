"""Where things are: read from the environment, with defaults below the working folder and the user's cache."""

import os
from pathlib import Path

import pytest

from infra.settings import (
    CODE_VARIABLE,
    QUIET,
    SettingsError,
    autoscales,
    bypass_proxies,
    expected_code,
    max_node_gpus,
    max_parts,
    read_settings,
    silence_telemetry,
    waiting_parts,
)
from tests.infra.frozen import can_be_changed

_VARIABLES = (
    "RENEG_HOME", "RENEG_STORE", "RENEG_CACHE", "XDG_CACHE_HOME", "PREFECT_API_URL", "RAY_ADDRESS", "RENEG_AUTOSCALE",
    CODE_VARIABLE, "RENEG_MAX_NODE_GPUS", "RENEG_WAITING_PARTS", "RENEG_MAX_PARTS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*_VARIABLES, *QUIET, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"):
        monkeypatch.setenv(name, "")  # what the test sets is undone as well
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_without_any_variable_all_lies_below_the_working_folder_and_the_users_cache(tmp_path: Path) -> None:
    settings = read_settings()
    assert settings.home == tmp_path / ".reneg"
    assert settings.store == str(tmp_path / ".reneg" / "store")
    assert settings.cache == tmp_path / ".cache" / "reneg"
    assert settings.scratch == tmp_path / ".cache" / "reneg" / "files"
    assert (settings.prefect_api_url, settings.ray_address) == (None, None)


def test_each_variable_sets_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RENEG_HOME", "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert (read_settings().home, read_settings().cache) == (tmp_path / "here", tmp_path / "xdg" / "reneg")
    assert read_settings().store == str(tmp_path / "here" / "store")
    monkeypatch.setenv("RENEG_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("RENEG_CACHE", "~/models")
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect/api")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    settings = read_settings()
    assert (settings.store, settings.cache) == ("s3://bucket/prefix", tmp_path / "models")
    assert (settings.prefect_api_url, settings.ray_address) == ("http://prefect/api", "auto")


def test_an_empty_address_means_an_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert (read_settings().prefect_api_url, read_settings().ray_address) == (None, None)


@pytest.mark.parametrize(("value", "grows"), [("", False), ("0", False), ("1", True), ("yes", True)])
def test_a_cluster_grows_only_where_that_is_said(monkeypatch: pytest.MonkeyPatch, value: str, grows: bool) -> None:
    assert autoscales() is False
    monkeypatch.setenv("RENEG_AUTOSCALE", value)
    assert autoscales() is grows


def test_a_worker_compares_its_code_only_where_the_driver_set_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert expected_code() is None
    monkeypatch.setenv(CODE_VARIABLE, "")
    assert expected_code() is None
    monkeypatch.setenv(CODE_VARIABLE, "abc")
    assert expected_code() == "abc"


def test_telemetry_is_off_whatever_was_set_and_heartbeats_are_on_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "45")
    silence_telemetry()
    assert {name: os.environ[name] for name in QUIET} == QUIET
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "45"
    monkeypatch.delenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY")
    silence_telemetry()
    assert os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_settings_cannot_be_changed() -> None:
    assert not can_be_changed(read_settings())


def test_a_slash_or_a_blank_at_the_end_of_an_address_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", " http://prefect:4200/api/ ")
    assert read_settings().prefect_api_url == "http://prefect:4200/api"
    monkeypatch.setenv("PREFECT_API_URL", "/")
    assert read_settings().prefect_api_url is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, ("127.0.0.1,localhost,::1", "127.0.0.1,localhost,::1")),
        ({"no_proxy": "a.example, localhost"}, ("a.example,localhost,127.0.0.1,::1",) * 2),
        ({"NO_PROXY": "b.example"}, ("b.example,127.0.0.1,localhost,::1",) * 2),
        ({"no_proxy": "a", "NO_PROXY": "b"}, ("a,127.0.0.1,localhost,::1", "b,127.0.0.1,localhost,::1")),
        ({"no_proxy": "*"}, ("*", "*")),
    ],
)
def test_connections_to_this_machine_bypass_the_proxy_and_what_the_user_set_stays(
    before: dict[str, str], after: tuple[str, str]
) -> None:
    variables = dict(before)
    bypass_proxies(variables)
    assert (variables["no_proxy"], variables["NO_PROXY"]) == after
    bypass_proxies(variables)
    assert (variables["no_proxy"], variables["NO_PROXY"]) == after


def test_limits_of_the_cluster_have_defaults_and_must_be_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (max_node_gpus(), waiting_parts(), max_parts()) == (None, 0, 512)
    monkeypatch.setenv("RENEG_AUTOSCALE", "1")
    assert waiting_parts() == 64
    for name, value in (("RENEG_MAX_NODE_GPUS", "0"), ("RENEG_WAITING_PARTS", "7"), ("RENEG_MAX_PARTS", "0")):
        monkeypatch.setenv(name, value)
    assert (max_node_gpus(), waiting_parts(), max_parts()) == (0.0, 7, 1)
    for value in ("many", "-1", "nan", "1e9"):
        monkeypatch.setenv("RENEG_MAX_PARTS", value)
        with pytest.raises(SettingsError, match=f"RENEG_MAX_PARTS: a number from 0 to 100000 expected, '{value}' came"):
            max_parts()
