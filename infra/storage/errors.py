"""Errors of the store: what was tried, what came and what to do; and which failures are tried again."""

import contextlib
import errno
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without hard links answer
_REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full; nothing half-written was kept. Free space, then run again",
    errno.EACCES: "permission denied; give a path this user may write",
    errno.EPERM: "permission denied; give a path this user may write",
    errno.EROFS: "the file system is read-only; give another path",
    errno.ENOTDIR: "a file stands where a folder is needed; give another path",
}
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "httpx", "httpx2")


def is_of_storage(error: BaseException) -> bool:
    """Tell whether an error comes from files or from a client of S3 or a hub, and not from a defect of our code."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _CLIENTS


class StoreError(Exception):
    """The store cannot be used: what was tried, what came, what to do."""


@contextlib.contextmanager
def store_errors(url: str, verb: str, key: str, *, local: bool) -> Iterator[None]:
    """Raise failures of one storage operation as a `StoreError` that says what to do; let other errors pass."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if not is_of_storage(error):
            raise
        reason = _reason(error) if local else _reason_of_bucket(error)
        raise StoreError(f"store {url}: cannot {verb} {key}: {reason}") from error


def _reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return _REMEDIES.get(number or 0, f"{type(error).__name__}: {error}")


def _reason_of_bucket(error: Exception) -> str:
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, PermissionError):
        return f"{told}; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in this bucket"
    if isinstance(error, FileNotFoundError):
        return f"{told}; create the bucket, or check its name"
    check = "check the address, AWS_ENDPOINT_URL and the keys"
    if is_temporary(error):
        return f"{told}; tried for 10 s, nothing half-written was kept. See the server's log, {check}, then run again"
    return f"{told}; {check}"


_T = TypeVar("_T")

_PAUSES = (0.1, 0.3, 1.0, 2.5, 5.0)  # seconds before each further attempt, shortened at random by up to half
_PATIENCE = 10.0  # seconds after which no further attempt is made
_REQUEST_TIMEOUT, _CONFLICT, _TOO_MANY, _SERVER_ERROR, _NOT_IMPLEMENTED = 408, 409, 429, 500, 501
_TEMPORARY_CODES = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "IncompleteBody"})
# The classes of broken connections of botocore and aiohttp, by name: a store in a directory imports no S3 client.
_TEMPORARY_CLASSES = frozenset(
    {
        "HTTPClientError",
        "IncompleteReadError",
        "ResponseStreamingError",
        "ResponseParserError",
        "ChecksumError",
        "FlexibleChecksumError",
        "ClientError aiohttp",
        "FSTimeoutError",
    }
)

_log = logging.getLogger(__name__)


def with_retries(call: Callable[[], _T]) -> _T:
    """Return what a call returns; repeat it on temporary failures, with growing pauses, for about ten seconds.

    Only for calls that may safely be made twice. The last failure is raised.
    """
    started = time.monotonic()
    for pause in _PAUSES:
        try:
            return call()
        except Exception as error:
            if time.monotonic() - started > _PATIENCE or not is_temporary(error):
                raise
            _log.info("the store did not answer properly and is asked again: %s", error)
            time.sleep(pause * random.uniform(0.5, 1.0))
    return call()


def is_temporary(error: BaseException) -> bool:
    """Tell whether a failure is temporary: a broken or slow connection, or an overloaded or restarting server."""
    return any(_is_temporary(cause) for cause in _causes(error))


def _is_temporary(error: BaseException) -> bool:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        if response.get("Error", {}).get("Code") in _TEMPORARY_CODES:
            return True
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in (_REQUEST_TIMEOUT, _CONFLICT, _TOO_MANY) or (
            status >= _SERVER_ERROR and status != _NOT_IMPLEMENTED
        )
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    for kind in type(error).__mro__:
        library = kind.__module__.split(".")[0]
        name = f"{kind.__name__} aiohttp" if library == "aiohttp" else kind.__name__
        if library in ("botocore", "aiobotocore", "aiohttp", "fsspec") and name in _TEMPORARY_CLASSES:
            return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes; s3fs wraps the errors of botocore."""
    while error is not None:
        yield error
        error = error.__cause__
