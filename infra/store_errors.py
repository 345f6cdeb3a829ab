"""What goes wrong with a store, told so that somebody can act: what was tried, what came, what to do."""

import contextlib
import errno
from collections.abc import Iterator, Mapping

from infra.retry import is_passing

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without hard links answer
_REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full; nothing half-written was kept. Free space, then run again",
    errno.EACCES: "permission denied; give a path this user may write",
    errno.EPERM: "permission denied; give a path this user may write",
    errno.EROFS: "the file system is read-only; give another path",
    errno.ENOTDIR: "a file stands where a folder is needed; give another path",
}
_CLIENTS = ("botocore", "aiobotocore", "aiohttp")


def is_of_storage(error: BaseException) -> bool:
    """Tell whether an error is storage's or its client's, and no defect of ours; S3 clients' are no `OSError`."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _CLIENTS


class StoreError(Exception):
    """The store cannot be used: what was tried, what came, what to do."""


@contextlib.contextmanager
def store_errors(url: str, verb: str, key: str, *, local: bool) -> Iterator[None]:
    """Raise every failure of one operation as a `StoreError` with its remedy; defects of ours stay what they are."""
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
    if is_passing(error):
        return f"{told}; tried for 10 s, nothing half-written was kept. See the server's log, {check}, then run again"
    return f"{told}; {check}"
