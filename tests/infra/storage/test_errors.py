"""Failures of a store: which pass by themselves, how often they are tried again, and what people are told."""

import errno

import pytest

from infra.storage import errors
from infra.storage.errors import StoreError, is_of_storage, is_temporary, store_errors, with_retries


class ClientError(Exception):
    """As botocore raises: an answer with a code and an HTTP status."""

    def __init__(self, code: str = "", status: int = 400) -> None:
        super().__init__(code or str(status))
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def of_library(name: str, library: str) -> Exception:
    """An error of a class of this name in another library."""
    return type(name, (Exception,), {"__module__": f"{library}.exceptions"})("broken")  # type: ignore[no-any-return]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let waiting take no time; returns the pauses that were made."""
    pauses: list[float] = []
    monkeypatch.setattr(errors.time, "sleep", pauses.append)
    monkeypatch.setattr(errors.time, "monotonic", lambda: sum(pauses))
    monkeypatch.setattr(errors.random, "uniform", lambda low, high: high)
    return pauses


class Failing:
    """Fails with an error as often as told, then answers."""

    def __init__(self, times: int, error: Exception) -> None:
        self.calls, self._times, self._error = 0, times, error

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._times:
            raise self._error
        return "answer"


@pytest.mark.parametrize("times", [0, 1, 5])
def test_a_failure_that_passes_is_tried_again_with_growing_pauses(clock: list[float], times: int) -> None:
    call = Failing(times, ConnectionResetError())
    assert with_retries(call) == "answer"
    assert call.calls == times + 1
    assert clock == [0.1, 0.3, 1.0, 2.5, 5.0][:times]


def test_after_six_attempts_the_last_failure_is_raised(clock: list[float]) -> None:
    call = Failing(6, ConnectionResetError("the sixth"))
    with pytest.raises(ConnectionResetError, match="the sixth"):
        with_retries(call)
    assert call.calls == 6


def test_a_failure_that_stays_is_raised_at_once(clock: list[float]) -> None:
    call = Failing(1, PermissionError())
    with pytest.raises(PermissionError):
        with_retries(call)
    assert (call.calls, clock) == (1, [])


def test_nothing_is_tried_again_once_more_than_ten_seconds_have_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 10.0, 10.1])
    monkeypatch.setattr(errors.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(errors.time, "sleep", lambda seconds: None)
    call = Failing(3, TimeoutError())
    with pytest.raises(TimeoutError):
        with_retries(call)
    assert call.calls == 2


def test_pauses_are_shortened_by_chance_by_half_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(errors.time, "sleep", pauses.append)
    monkeypatch.setattr(errors.random, "uniform", lambda low, high: low)
    with_retries(Failing(2, TimeoutError()))
    assert pauses == [0.05, 0.15]


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (PermissionError(), False),
        (ValueError(), False),
        (ClientError("SlowDown", 200), True),
        (ClientError("InternalError", 200), True),
        (ClientError("NoSuchBucket", 404), False),
        (ClientError("AccessDenied", 403), False),
        (ClientError(status=408), True),
        (ClientError(status=409), True),
        (ClientError(status=429), True),
        (ClientError(status=499), False),
        (ClientError(status=500), True),
        (ClientError(status=503), True),
        (ClientError(status=501), False),
        (of_library("HTTPClientError", "botocore"), True),
        (of_library("IncompleteReadError", "aiobotocore"), True),
        (of_library("ClientError", "aiohttp"), True),
        (of_library("ClientError", "botocore"), False),
        (of_library("FSTimeoutError", "fsspec"), True),
        (of_library("HTTPClientError", "mylib"), False),
    ],
)
def test_broken_connections_and_overloaded_servers_pass_and_refusals_do_not(error: Exception, passes: bool) -> None:
    assert is_temporary(error) is passes


def test_a_failure_that_was_raised_from_a_passing_one_passes_too() -> None:
    outer, middle = OSError("wrapped"), OSError("in between")
    outer.__cause__, middle.__cause__ = middle, ClientError(status=503)
    assert is_temporary(outer)
    assert not is_temporary(OSError("wrapped"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left"), "the disk is full; nothing half-written was kept"),
        (PermissionError(errno.EACCES, "denied"), "permission denied; give a path this user may write"),
        (OSError(errno.EROFS, "read-only"), "the file system is read-only; give another path"),
        (NotADirectoryError(errno.ENOTDIR, "no folder"), "a file stands where a folder is needed"),
        (OSError("something else"), "OSError: something else"),
        (of_library("HTTPClientError", "botocore"), "HTTPClientError: broken"),
    ],
)
def test_a_directorys_failure_is_told_with_its_remedy(error: Exception, told: str) -> None:
    with pytest.raises(StoreError) as raised, store_errors("/store", "write", "a/b", local=True):
        raise error
    assert str(raised.value).startswith(f"store /store: cannot write a/b: {told}")
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError("Forbidden"), "PermissionError: Forbidden; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (FileNotFoundError("no bucket"), "FileNotFoundError: no bucket; create the bucket, or check its name"),
        (ConnectionResetError("reset"), "ConnectionResetError: reset; tried for 10 s"),
        (OSError("odd"), "OSError: odd; check the address, AWS_ENDPOINT_URL and the keys"),
    ],
)
def test_a_buckets_failure_is_told_with_its_remedy(error: Exception, told: str) -> None:
    with pytest.raises(StoreError) as raised, store_errors("s3://b", "read", "a/b", local=False):
        raise error
    assert str(raised.value).startswith(f"store s3://b: cannot read a/b: {told}")


def test_a_defect_of_ours_and_a_store_error_stay_what_they_are() -> None:
    for error in (ValueError("a defect"), StoreError("told already")):
        with pytest.raises(type(error)) as raised, store_errors("/store", "write", "a", local=True):
            raise error
        assert raised.value is error


def test_errors_of_files_and_of_s3_clients_are_storages() -> None:
    assert is_of_storage(OSError())
    assert is_of_storage(of_library("Anything", "botocore"))
    assert is_of_storage(of_library("Anything", "aiohttp"))
    assert is_of_storage(of_library("ConnectError", "httpx2"))  # the client of a hub
    assert not is_of_storage(ValueError())
