"""How a configuration file is read, and what the message says when it cannot be."""

from pathlib import Path

import pytest
import yaml

from flows.config.load import load_config, parse_config
from flows.config.section import ConfigError
from infra import redact
from tests.flows.settings import MINIMAL, refuse


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    assert refuse({"mime": {}}) == "my.yaml: unknown key 'mime'; did you mean 'mine'?"
    assert refuse({"mine": {"relative_marign": 0.05}}) == (
        "my.yaml: unknown key 'mine.relative_marign'; did you mean 'relative_margin'?"
    )


def test_an_unknown_key_without_a_near_one_lists_what_is_known() -> None:
    assert "known here: harvest, max_bytes, path" in refuse({"source": {"path": "a", "zzzzzz": 1}})


def test_every_problem_is_on_its_own_line() -> None:
    lines = refuse({"name": "Not A Name", "mine": {"range_max": -1}, "encoder": {"dtype": "int8"}}).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("my.yaml: ") for line in lines)


def test_a_relative_source_is_taken_from_the_files_folder(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert load_config(path).source.path == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "a mapping of settings expected, list came"),
        (b"a: [unclosed", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
    ],
    ids=["list", "broken", "binary"],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml")


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return path


def judge(**engine: object) -> list[object]:
    return [{"engine": {"kind": "openai", "model": "m-2026", **engine}}]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"source": {"path": "https://me:hunter2@host/rows.jsonl"}}, "source.path"),
        ({"source": {"path": "https://bucket.s3.example/rows.jsonl?X-Amz-Signature=hunter2"}}, "source.path"),
        ({"gold": {"path": "https://hunter2@host/gold.jsonl"}}, "gold.path"),
        ({"evaluate": {"collections": ["https://h/x/nf.zip?X-Amz-Signature=hunter2"]}}, "evaluate.collections.0.path"),
        ({"evaluate": {"collections": ["https://user:hunter2@host"]}}, "evaluate.collections.0.path"),
        ({"notify": {"block": "webhook/a", "ui_url": "http://me:hunter2@host"}}, "notify.ui_url"),
        ({"tiers": judge(extra_body={"user": "sk-proj-hunter2hunter2hunter2"})}, "tiers.0.engine.extra_body.user"),
        ({"tiers": judge(base_url="https://host/" + "ghp_" + "hunter2" * 3 + "/v1")}, "tiers.0.engine.base_url"),
    ],
)
def test_a_file_that_holds_a_secret_is_refused_and_a_store_that_holds_it_is_still_read(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, **changes))
    assert f"my.yaml: {field}: this looks like a secret" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    parse_config({**MINIMAL, **changes}, "the store")


@pytest.mark.parametrize("evaluate", [{"measures": ["R@1000"]}, {"depth": 50}])
def test_a_file_that_measures_deeper_than_it_ranks_is_refused_and_a_store_that_holds_it_is_still_read(
    tmp_path: Path, evaluate: dict[str, object]
) -> None:
    """Before, nothing of an old curation with such measures could be exported, promoted or removed any more."""
    with pytest.raises(ConfigError, match=r"my\.yaml: evaluate\.measures: R@\d+ looks at \d+ passages of a ranking"):
        load_config(written(tmp_path, evaluate=evaluate))
    parse_config({**MINIMAL, "evaluate": evaluate}, "the store")


@pytest.mark.parametrize("name", ["api_key", "Authorization", "x-api-key", "token"])
def test_a_credential_among_the_fields_of_a_request_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"tiers\.0\.engine\.extra_body: no credential .* headers\.{name} looks like one"
    ):
        load_config(written(tmp_path, tiers=judge(extra_body={"headers": {name: "abc"}})))


def test_a_key_goes_unencrypted_to_another_machine_only_where_the_file_says_so(tmp_path: Path) -> None:
    url = "http://gpu.example:8000/v1"
    with pytest.raises(
        ConfigError, match=r"tiers\.0\.engine\.base_url: http://gpu\.example:8000 .*allow_plain_http: true"
    ):
        load_config(written(tmp_path, tiers=judge(base_url=url)))
    load_config(written(tmp_path, tiers=judge(base_url=url, allow_plain_http=True)))
    load_config(written(tmp_path, tiers=judge(base_url="http://127.0.0.1:8000/v1")))
    parse_config({**MINIMAL, "tiers": judge(base_url=url)}, "the store")


def test_the_variables_that_a_configuration_names_are_hidden_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_VENDOR", "opaque-x7Kq2mZ9")
    monkeypatch.setenv("OUR_CHAT", "https://chat.example/hooks/x7Kq2mZ8")
    monkeypatch.setattr(redact, "_variables", set())
    text = "opaque-x7Kq2mZ9, https://chat.example/hooks/x7Kq2mZ8"
    assert redact.redact(text) == text
    parse_config(
        {**MINIMAL, "tiers": judge(api_key_env="OUR_VENDOR"), "notify": {"webhook_env": "OUR_CHAT"}}, "my.yaml"
    )
    assert redact.redact(text) == "***, ***"
