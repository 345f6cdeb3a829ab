"""Purges a text from the store, the ledger, labels and files, with everything that was made from it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from flows.config.section import ConfigError
from flows.inputs.addresses import fixed_part, has_wildcard
from flows.inputs.partition import forget as forget_places
from infra.ledger.forgetting import drop_old
from infra.ledger.ledger import Forgotten, Ledger
from infra.ledger.vectors import forget_vectors
from infra.names import CHECKPOINTS
from infra.settings import Settings
from infra.storage.artifacts import Manifest
from infra.storage.gc import empty_back
from infra.storage.purge import Plan, carry_out, find_files, find_folders, forget_rows, make_plan, remove_paths
from infra.storage.release_pointers import holding, withdraw
from infra.storage.store import Store
from infra.text_search import Target
from tasks.texts import clean, combine_hashes, hash_passage, hash_text

_HASH = re.compile(r"[0-9a-f]{32}")
_TABLES = {"query": "queries", "doc": "passages"}


@dataclass(frozen=True)
class Wanted:
    """The text to purge, named by exactly one of: a file with the text, its hash, the id of a passage or a query."""

    text_file: Path | None = None
    hash: str | None = None
    doc: str | None = None
    query: str | None = None


@dataclass(frozen=True)
class Found:
    """Everything that a purge removes: from the ledger, from the store, and files laid out from the store."""

    target: Target
    rows: Forgotten
    plan: Plan
    sources: tuple[dict[str, str], ...]  # curation, file in its source, path to clean
    files: tuple[Path, ...]
    published: tuple[str, ...] = ()  # folders of releases with a copy of what is removed
    vectors: int = 0  # embeddings of the text that are remembered
    labels: int = 0  # labels of people about the text, or with it in a comment
    places: int = 0  # rows that say in which parts the text was, for later ingests

    @property
    def nothing(self) -> bool:
        """Whether nothing holds the text."""
        in_store = self.plan.removals or self.plan.records or self.plan.holders
        return not (self.rows.rows or self.vectors or self.labels or self.places or in_store or self.files)

    def as_json(self, removed: bool) -> dict[str, Any]:
        """Return what was or would be removed, as JSON."""
        return {
            "removed": removed,
            "hashes": sorted(self.target.hashes),
            "text_known": bool(self.target.texts),
            "ledger_rows": self.rows.rows,
            "damaged_segments": self.rows.damaged,
            "vectors": self.vectors,
            "labels": self.labels,
            "places": self.places,
            "objects": len(self.plan.holders),
            "parts": dict(sorted(Counter(removal.stage for removal in self.plan.removals).items())),
            "derived_objects": len({key for removal in self.plan.removals for key in removal.objects}),
            "records": list(self.plan.records),
            "sources": list(self.sources),
            "files": [str(path) for path in self.files],
            "published": list(self.published),
        }


def purge(settings: Settings, wanted: Wanted, *, yes: bool) -> Found:
    """Find a text and everything said about it or made from it; with `yes`, remove it.

    Raises:
        ConfigError: not exactly one of the four ways to name a text, or nobody knows that id.
    """
    store = Store.open(settings.store, write=yes)
    if yes:
        empty_back(store)  # what the garbage collector took away may hold it too
        drop_old(store, 0.0)  # and so may forgotten answers
    target = resolve(store, wanted)
    found = _find(settings, store, target)
    if yes:
        Ledger(store).forget(target.hashes)
        forget_vectors(store, target.hashes)
        forget_rows(store, target)
        forget_places(store, target.hashes)
        remove_paths(found.files)
        withdraw(store, found.published)
        store.delete_folder(CHECKPOINTS.rstrip("/"))  # weights of unfinished trainings, perhaps on the text
        carry_out(store, found.plan)
    return found


def resolve(store: Store, wanted: Wanted) -> Target:
    """Find the wanted texts, and the hashes of every query and passage with such a text, whatever its title.

    A text from a file is searched as it is, without the line end that editors add, and as ingest cleans it.
    """
    given = [name for name, value in wanted.__dict__.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"purge: one of --text-file, --hash, --doc, --query expected, {' and '.join(given) or 'none'} came"
        )
    texts, hashes = set[str](), set[str]()
    if wanted.text_file is not None:
        text = _read_text(wanted.text_file)
        texts = {text, text.removesuffix("\n").removesuffix("\r"), clean(text)}
    elif wanted.hash is not None:
        hashes = {_check_hash(wanted.hash)}
        texts = set(_rows(store, pl.col("text_hash") == wanted.hash.lower())["shown"])
    else:
        texts = _texts_of_id(store, given[0], str(wanted.doc or wanted.query))
    hashes |= {hashed for text in texts for hashed in (hash_text(text), hash_passage("", text))}
    hashes |= set(_rows(store, pl.col("shown").is_in(sorted(texts)))["text_hash"])
    return Target(frozenset(hashes | _judged_against(store, hashes)), frozenset(texts))


def _judged_against(store: Store, hashes: set[str]) -> set[str]:
    """Return the combined hash of the positives of every query with such a positive: pairs hold only that hash."""
    found = set[str]()
    for part in _ingested(store):
        pieces = [store.read(piece.object) for piece in part.tables.get("positives", ())]
        frames = [pl.read_parquet(piece) for piece in pieces if piece is not None]
        if not frames:
            continue
        labelled = pl.concat(frames).sort("dataset", "query_id", "text_hash")
        of_query = labelled.group_by("dataset", "query_id", maintain_order=True).agg("text_hash")["text_hash"].to_list()
        found |= {combine_hashes(positives) for positives in of_query if hashes & set(positives)}
    return found


def _ingested(store: Store) -> list[Manifest]:
    manifests = (store.read(key) for stage in ("ingest", "read_gold") for key in store.list(f"parts/{stage}"))
    return [Manifest.from_json(data) for data in manifests if data is not None]


def _read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--text-file {path}: cannot be read as UTF-8 text ({error})") from error
    if not text.strip():
        raise ConfigError(f"--text-file {path}: a text expected, the file is empty")
    return text


def _check_hash(value: str) -> str:
    if not _HASH.fullmatch(value.lower()):
        raise ConfigError(f"--hash {value!r}: 32 hexadecimal digits expected, as in the column text_hash")
    return value.lower()


def _texts_of_id(store: Store, kind: str, value: str) -> set[str]:
    name = _TABLES[kind]
    rows = _rows(store, pl.concat_str("dataset", pl.lit("/"), "id") == value, (name,))
    if rows.is_empty():
        raise ConfigError(
            f"--{kind} {value!r}: DATASET/ID expected, and no table of {name} in {store.url} holds it; "
            "if a purge of it was interrupted, give --hash or --text-file"
        )
    return set(rows["shown"])


def _rows(store: Store, wanted: pl.Expr, tables: tuple[str, ...] = ("queries", "passages")) -> pl.DataFrame:
    """Find rows of the stored queries and passages: dataset, id, text_hash, and the text shown (else the title)."""
    schema = dict.fromkeys(("dataset", "id", "text_hash", "shown"), pl.String)
    return pl.concat([pl.DataFrame(schema=schema), *(f.filter(wanted) for f in _tables(store, tables))]).unique()


def _tables(store: Store, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    objects = {(n, piece.object) for part in _ingested(store) for n in names for piece in part.tables.get(n, ())}
    for name, key in sorted(objects):
        data = store.read(key)
        if data is None:
            continue  # removed by an earlier purge that was killed
        frame = pl.read_parquet(data)
        text = pl.col("text")
        if name == "passages":
            frame = frame.rename({"doc_id": "id"})
            text = pl.when(text == "").then("title").otherwise(text)
        else:
            frame = frame.rename({"query_id": "id"})
        yield frame.select("dataset", "id", "text_hash", shown=text)


def _find(settings: Settings, store: Store, target: Target) -> Found:
    plan = make_plan(store, target)
    laid_out = settings.home / "curations"
    return Found(
        target=target,
        rows=Ledger(store).forget(target.hashes, dry_run=True),
        plan=plan,
        sources=tuple(_sources(store, plan)),
        files=(
            *find_files(laid_out, target, plan.digests),
            *find_folders(settings.scratch, target, plan.digests),
        ),
        published=tuple(holding(store, plan.digests)),
        vectors=forget_vectors(store, target.hashes, dry_run=True).rows,
        labels=forget_rows(store, target, dry_run=True),
        places=forget_places(store, target.hashes, dry_run=True),
    )


def _sources(store: Store, plan: Plan) -> Iterator[dict[str, str]]:
    """Yield the source and gold files of curations that hold the text, with the path of the user's own copy."""
    told = set[tuple[str, str]]()
    for record in sorted({record for records in plan.named.values() for record in records}):
        content = store.read_json(record)
        if not isinstance(content, dict):
            continue
        files = content.get("source") or {}
        read = {str(content["config"]["source"]["path"]): files} if files else {}
        if "/intake-" in record:
            sets = {"gold.path": "gold", "guards.evaluation": "evaluation", "evaluate.collections": "collections"}
            read = {setting: content.get(name) or {} for setting, name in sets.items()}
        for path, name, key in ((Path(at), *file) for at, files in read.items() for file in sorted(files.items())):
            curation = record.split("/")[1]
            if key in plan.named and (curation, name) not in told:
                told.add((curation, name))
                above = Path(fixed_part(str(path))) if has_wildcard(str(path)) else path
                place = path if path.name == name else above / name
                yield {"curation": curation, "file": name, "path": str(place)}
