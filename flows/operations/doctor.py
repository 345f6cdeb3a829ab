"""Checks what is installed, reachable and missing on this machine; each finding has its remedy."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from infra.cluster.ray_cluster import listens
from infra.models.resolve import ModelError, digest_of, is_present
from infra.prefect_api.health import ServerError, trouble_with
from infra.prefect_api.server import PrefectServer
from infra.settings import Settings
from infra.storage.store import Store, StoreError

_GIB = 2**30
_NEEDED_DISK_GIB = 13
_NEEDED_MEMORY_GIB = 8
_PACKAGES = ("polars", "ray", "prefect", "faiss", "sentence_transformers", "vllm", "torch", "s3fs", "ir_measures")


@dataclass(frozen=True)
class Finding:
    """The result of one check. state: `ok`, `note` (it works, with a limit) or `missing`."""

    what: str
    state: str
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Check everything that a curation needs."""
    checks: tuple[Callable[[Settings], list[Finding]], ...] = (
        _python,
        _packages,
        _machine,
        _store,
        _servers,
        _models,
    )
    return [finding for check in checks for finding in check(settings)]


def _python(_settings: Settings) -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 13)
    platform = f"{version} on {sys.platform}"
    return [Finding("python", "ok" if fits else "missing", platform, "" if fits else "install Python 3.11 or 3.12")]


def _packages(_settings: Settings) -> list[Finding]:
    findings = []
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            findings.append(Finding(name, "missing", "not installed", "run `make install` (or `make install-gpu`)"))
        else:
            findings.append(Finding(name, "ok", _version(name)))
    return findings


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _version(module: str) -> str:
    for distribution in _distributions().get(module, []):
        return f"{distribution} {metadata.version(distribution)}"
    return "present"


def _machine(settings: Settings) -> list[Finding]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    memory = pages * size / _GIB
    home = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    disk = shutil.disk_usage(home).free / _GIB
    return [
        Finding("cores", "ok", str(os.cpu_count())),
        _enough(
            "memory", memory, _NEEDED_MEMORY_GIB, "the 1.5B judge on the CPU takes about 7 GiB; use a smaller model"
        ),
        _enough(
            "free disk",
            disk,
            _NEEDED_DISK_GIB,
            "the demo takes 6 GiB of models and 7 of packages; or set RENEG_CACHE",
        ),
    ]


def _enough(what: str, found: float, needed: float, remedy: str) -> Finding:
    return Finding(what, "ok" if found >= needed else "note", f"{found:.0f} GiB", "" if found >= needed else remedy)


def _store(settings: Settings) -> list[Finding]:
    try:
        Store.open(settings.store)
    except StoreError as error:
        return [Finding("store", "missing", settings.store, str(error))]
    return [Finding("store", "ok", f"{settings.store} (writable, honours create-if-absent)")]


def _servers(settings: Settings) -> list[Finding]:
    findings = [_prefect(settings)]
    if settings.ray_address is None:
        findings.append(Finding("Ray", "ok", "embedded, loopback only, started by a run"))
    else:
        findings.append(_ray(settings.ray_address))
    return findings


def _prefect(settings: Settings) -> Finding:
    if settings.prefect_api_url is not None:
        trouble = trouble_with(settings.prefect_api_url)
        if trouble is not None:
            return Finding("Prefect", "missing", trouble.found, trouble.remedy)
        return Finding("Prefect", "ok", settings.prefect_api_url)
    server = PrefectServer(settings.home)
    running = server.running()
    try:
        if server.auth_file.exists():
            server.auth_string()
        asks = running is not None and server.asks_for_password()
    except ServerError as error:
        return Finding("Prefect", "missing", "the password of the embedded server", str(error))
    if running is None:
        return Finding("Prefect", "ok", "embedded, started by a run")
    if asks:
        return Finding("Prefect", "ok", f"embedded, up at {running}")
    remedy = "end what uses it (`reneg serve`); the next command that needs a server replaces it"
    return Finding("Prefect", "note", f"embedded, up at {running}, without a password: of an older version", remedy)


def _ray(address: str) -> Finding:
    import ray

    if not listens(address):
        return Finding("Ray", "missing", f"{address} does not listen", "start that cluster, or unset RAY_ADDRESS")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises a dozen kinds for an address that does not answer
        remedy = "start that cluster, or unset RAY_ADDRESS to use a local one"
        return Finding("Ray", "missing", f"{address}: {error}"[:200], remedy)
    try:
        return Finding("Ray", "ok", f"{address}: {ray.cluster_resources().get('CPU', 0):.0f} CPUs")
    finally:
        ray.shutdown()


def _models(settings: Settings) -> list[Finding]:
    findings = []
    for reference in ("package:minilm", "package:qwen2.5-coder-1.5b-instruct"):
        try:
            digest = digest_of(reference, settings.cache)
        except ModelError as error:
            findings.append(Finding(reference, "missing", "not usable", str(error)))
            continue
        present = is_present(reference, settings.cache)
        found = f"{'in' if present else 'not yet in'} {settings.cache}, pinned {digest[:12]}"
        findings.append(
            Finding(reference, "ok" if present else "note", found, "" if present else "fetched at first use")
        )
    return findings
