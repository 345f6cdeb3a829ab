"""What answers at an address: a Prefect server, its pages, another web server, nobody, or one that refuses us."""

import pytest
from prefect.settings import temporary_settings

from infra.prefect_api.health import ServerError, check_named, is_healthy, trouble_with
from tests.conftest import free_port
from tests.infra.prefect_calls import PAGE, PREFECT, serving


def message(address: str) -> str:
    with pytest.raises(ServerError) as refused:
        check_named(address)
    return str(refused.value)


def test_a_server_is_healthy_only_if_it_says_true() -> None:
    with serving(PREFECT) as address:
        assert is_healthy(f"{address}/api")
        assert not is_healthy(address)  # its pages, with status 200
        assert not is_healthy(f"{address}/nowhere")
    assert not is_healthy(f"http://127.0.0.1:{free_port()}/api")
    assert not is_healthy("nonsense")


def test_a_server_of_this_machine_is_asked_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY")
    with serving(PREFECT) as address:
        assert is_healthy(f"{address}/api")
        assert is_healthy(f"{address}/api".replace("127.0.0.1", "localhost"))
        assert not is_healthy(f"{address}/api".replace("127.0.0.1", "127.0.0.2"))  # anything else goes through it


def test_a_server_that_can_be_used_has_no_trouble() -> None:
    with serving(PREFECT) as address:
        assert trouble_with(f"{address}/api") is None
        check_named(f"{address}/api")


def test_an_address_without_api_is_named_with_the_right_one() -> None:
    with serving(PREFECT) as address:
        assert message(address) == (
            f"PREFECT_API_URL: {address} is not the API of a Prefect server ({address}/health gave status 200 and "
            f"{PAGE!r}); its API is at {address}/api: set PREFECT_API_URL to that"
        )


def test_another_web_server_is_no_prefect_server() -> None:
    with serving({"/api/health": (200, '{"status": "ok"}')}) as address:
        assert message(f"{address}/api") == (
            f"PREFECT_API_URL: {address}/api is not the API of a Prefect server ({address}/api/health gave status 200 "
            """and '{"status": "ok"}'); set PREFECT_API_URL to http://HOST:4200/api of a Prefect server, or unset it"""
        )
        assert "gave status 404 and 'nothing here'" in message(address)


def test_a_password_that_is_missing_or_wrong_is_named_with_its_variable() -> None:
    told = "refuses this client (status 401): no or a wrong password; set PREFECT_API_AUTH_STRING to its user:password"
    with serving(PREFECT, password="Basic YWRtaW46cGFzcw==") as address:
        assert told in message(f"{address}/api")
        with temporary_settings({"api.auth_string": "admin:other"}):
            assert told in message(f"{address}/api")
        with temporary_settings({"api.auth_string": "admin:pass"}):
            check_named(f"{address}/api")


def test_a_server_that_does_not_answer_yet_may_pass() -> None:
    port = free_port()
    nobody = trouble_with(f"http://127.0.0.1:{port}/api")
    assert nobody is not None
    assert nobody.passes
    assert nobody.found.startswith(f"http://127.0.0.1:{port}/api does not answer (ConnectError: ")
    assert nobody.remedy == "start that server, or unset it to use an embedded one"
    with serving({"/api/health": (503, "starting")}) as address:
        starting = trouble_with(f"{address}/api")
        assert starting is not None
        assert (starting.found, starting.passes) == (f"{address}/api does not answer (status 503)", True)


@pytest.mark.parametrize("address", ["localhost:4200/api", "prefect/api", "http:///api", "ftp://prefect/api"])
def test_what_is_no_web_address_is_said_at_once(address: str) -> None:
    assert message(address) == f"PREFECT_API_URL: {address} is no web address; set it to http://HOST:4200/api"
