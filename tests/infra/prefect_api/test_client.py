"""Where Prefect's client points, and that nothing of another server comes along."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings, temporary_settings

from infra.prefect_api.client import Api, client_environment, connected

OF_ANOTHER = {
    "api.key": "pnu_of_another",
    "api.auth_string": "admin:pass",
    "client.custom_headers": {"X-Proxy-Token": "of another"},
    "client.csrf_support_enabled": False,
    "api.tls_insecure_skip_verify": True,
    "cloud.api_url": "http://127.0.0.1",
    "ui_url": "https://elsewhere.example",
}


def test_with_an_embedded_server_the_client_takes_its_password_and_nothing_of_another_server() -> None:
    with temporary_settings(OF_ANOTHER):  # type: ignore[arg-type]
        with connected(Api("http://127.0.0.1:4200/api", "reneg:secret")), get_client(sync_client=True) as client:
            assert client._client.headers["Authorization"] == "Basic cmVuZWc6c2VjcmV0"
            settings = get_current_settings()
            assert (str(settings.api.url), settings.api.key, settings.ui_url) == (
                "http://127.0.0.1:4200/api", None, "http://127.0.0.1:4200"
            )  # fmt: skip
            assert client._client.enable_csrf_support
            assert not settings.api.tls_insecure_skip_verify
        assert get_current_settings().api.url is None or "4200" not in str(get_current_settings().api.url)


def test_with_a_server_of_the_users_what_prefect_was_told_stays() -> None:
    with temporary_settings(OF_ANOTHER):  # type: ignore[arg-type]
        with connected(Api("https://prefect.example/api")), get_client(sync_client=True) as client:
            assert client._client.headers["Authorization"] == "Basic YWRtaW46cGFzcw=="
            assert client._client.headers["X-Proxy-Token"] == "of another"
            assert str(client.api_url) == "https://prefect.example/api/"


def test_a_process_gets_the_password_in_its_environment_and_it_is_in_no_text() -> None:
    embedded = Api("http://127.0.0.1:4200/api", "reneg:secret")
    assert client_environment(embedded) == {
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "PREFECT_API_AUTH_STRING": "reneg:secret",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
    }
    assert client_environment(Api("https://p.example/api")) == {"PREFECT_API_URL": "https://p.example/api"}
    assert "secret" not in repr(embedded)


def test_files_of_the_current_folder_point_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect.toml").write_text('[api]\nkey = "pnu_of_another"\ntls_insecure_skip_verify = true\n')
    (tmp_path / ".env").write_text("PREFECT_API_AUTH_STRING=admin:pass\n")
    monkeypatch.chdir(tmp_path)
    with connected(Api("http://127.0.0.1:4200/api", "reneg:secret")), get_client(sync_client=True) as client:
        assert client._client.headers["Authorization"] == "Basic cmVuZWc6c2VjcmV0"
        settings = get_current_settings()
        assert (settings.api.key, settings.api.tls_insecure_skip_verify) == (None, False)
