"""Finding what holds a text or was made from it, and removing just that."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest

from infra.names import digest_of
from infra.provenance import Origin
from infra.stages.origins import keep
from infra.storage.artifacts import Directory, Manifest, Piece, Table, commit
from infra.storage.purge import (
    Plan,
    Removal,
    carry_out,
    find_files,
    find_folders,
    forget_rows,
    make_plan,
    remove_paths,
)
from infra.storage.store import Store, StoreError
from infra.storage.tables import BundleWriter
from infra.text_search import Target
from tests.infra.frozen import can_be_changed

TEXT = 'The "red" fox <of> Málaga/Spain & co\nsleeps in a den.'
HASH = "0123456789abcdef0123456789abcdef"
TARGET = Target(frozenset({HASH}), frozenset({TEXT}))


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def part(
    store: Store,
    name: str,
    tables: Mapping[str, list[bytes]],
    inputs: tuple[Table | Directory, ...] = (),
    files: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write a finished part by hand, as a worker does."""
    written = {
        table: tuple(
            Piece(index, store.put_object(data, ".parquet"), pl.read_parquet(io.BytesIO(data)).height)
            for index, data in enumerate(pieces)
        )
        for table, pieces in tables.items()
    }
    folder = {path: store.put_object(data, "") for path, data in (files or {}).items()}
    ingredients = {"stage": name, "inputs": {artifact.name: artifact.content() for artifact in inputs}}
    return commit(store, Manifest(name, 1, 0, name, 0, ingredients, written, {"folder": folder}, {}))


def table(manifest: Manifest, name: str, index: int | None = None) -> Table:
    pieces = manifest.tables[name]
    return Table(name, pieces if index is None else (pieces[index],))


def stages(plan: Plan) -> list[str]:
    return [removal.stage for removal in plan.removals]


def make_chain(store: Store) -> dict[str, Manifest]:
    """A source, its passages in two pieces, vectors of each piece, hits of both, a model; and a stranger."""
    source = Directory("source", {"a.jsonl": store.put_object(json.dumps({"text": TEXT}).encode(), "")})
    store.create("curations/one/curation.json", json.dumps({"source": dict(source.files)}).encode())
    pieces = [parquet(hash=[HASH, "11"], text=[TEXT, "x"]), parquet(hash=["22"], text=["y"])]
    made = {"ingest": part(store, "ingest", {"passages": pieces, "known": [parquet(id=["d1"])]}, (source,))}
    for index in (0, 1):
        vectors = parquet(hash=[HASH, "11"] if index == 0 else ["22"], vector=[[1.0]] * (2 - index))
        passages = table(made["ingest"], "passages", index)
        made[f"encode{index}"] = part(store, f"encode{index}", {"vectors": [vectors]}, (passages,))
    pieces_of_both = (*made["encode0"].tables["vectors"], *made["encode1"].tables["vectors"])
    vectors_of_all = Table("vectors", pieces_of_both)
    made["search"] = part(store, "search", {"hits": [parquet(doc=["d1", "d3"])]}, (vectors_of_all,))
    model = {"model.safetensors": b"\0numbers made of hits"}
    made["train"] = part(store, "train", {}, (table(made["search"], "hits"),), model)
    made["stranger"] = part(store, "stranger", {"rows": [parquet(text=["mine"])]}, (), {"page.html": b"<p>"})
    return made


def test_what_holds_the_text_and_what_was_made_from_it_goes_and_nothing_else(store_url: str) -> None:
    store = Store.open(store_url)
    made = make_chain(store)
    before = set(store.list(""))
    plan = make_plan(store, TARGET)
    assert set(store.list("")) == before
    assert stages(plan) == ["train", "encode0", "ingest", "search"]  # the farthest first
    assert len(plan.holders) == 3  # the source, a piece of passages, its vectors
    assert list(plan.named.values()) == [("curations/one/curation.json",)]
    carry_out(store, plan)
    kept = set(store.list(""))
    clean = made["ingest"].tables["passages"][1].object
    assert clean in kept  # cut from the same table, holds other rows: what was made of it alone stays
    assert made["encode1"].path in kept
    assert made["encode1"].tables["vectors"][0].object in kept
    assert {key for key in kept if key.startswith("parts/stranger")} == {made["stranger"].path}
    assert not {key for key in kept if key.startswith(("parts/ingest", "parts/train", "parts/search"))}
    gone = before - kept
    assert made["train"].directories["folder"]["model.safetensors"] in gone
    assert made["ingest"].tables["known"][0].object in gone
    assert make_plan(store, TARGET) == Plan((), (), (), {})


def scattered(store: Store, name: str, inputs: tuple[Table, ...], **slices: bytes) -> Manifest:
    """Write a finished part whose table is a bundle of slices by name, each with the next index."""
    writer, made = BundleWriter(), []
    for data in slices.values():
        made.append((writer.add(data), pl.read_parquet(io.BytesIO(data)).height))
    key = writer.put(store)
    pieces = tuple(Piece(n, key, rows, at.start, at.length, at.digest) for n, (at, rows) in enumerate(made))
    ingredients = {"stage": name, "inputs": {artifact.name: artifact.content() for artifact in inputs}}
    return commit(store, Manifest(name, 1, 0, name, 0, ingredients, {"texts": pieces}, {}, {}))


def test_of_a_bundle_what_was_made_from_the_slice_that_holds_the_text_goes_and_the_rest_stays(store_url: str) -> None:
    """The bundle itself goes; its other slices are written again with the same bytes, and are asked for by these."""
    store = Store.open(store_url)
    ours, clean = parquet(hash=[HASH, "1"], text=[TEXT, "x"]), parquet(hash=["2"], text=["y"])
    fetched = scattered(store, "fetch", (), first=ours, second=clean)
    other = scattered(store, "other", (), first=parquet(hash=["3"], text=["z"]), second=clean)
    read = [part(store, f"judge{n}", {"calls": [parquet(n=[str(n)])]}, (table(fetched, "texts", n),)) for n in (0, 1)]
    plan = make_plan(store, TARGET)
    assert plan.holders == (fetched.tables["texts"][0].object,)
    assert stages(plan) == ["judge0", "fetch"]
    carry_out(store, plan)
    assert store.exists(read[1].path)
    assert store.exists(read[1].tables["calls"][0].object)
    assert not store.exists(read[0].path)
    assert store.exists(other.tables["texts"][0].object)
    assert make_plan(store, TARGET) == Plan((), (), (), {})


def test_a_bundle_that_is_damaged_or_that_nobody_names_is_searched_too(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    clean = parquet(hash=["2"], text=["y"])
    fetched = scattered(store, "fetch", (), first=clean, second=parquet(hash=["3"], text=["z"]))
    reader = part(store, "judge", {"calls": [parquet(n=["1"])]}, (table(fetched, "texts", 0),))
    orphan = scattered(store, "orphan", (), first=clean, second=parquet(hash=[HASH], text=["q"]))
    store.delete(orphan.path)
    key = fetched.tables["texts"][0].object
    assert set(make_plan(store, TARGET).holders) == {orphan.tables["texts"][0].object}
    store.repair(key, store.get_object(key)[:-30])
    plan = make_plan(store, TARGET)
    assert set(plan.holders) == {key, orphan.tables["texts"][0].object}
    assert stages(plan) == ["judge", "fetch"]
    carry_out(store, plan)
    assert not store.exists(reader.path)


@pytest.mark.parametrize("deletions", range(0, 12, 2))
def test_a_purge_that_was_killed_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    undisturbed = Store.open(str(tmp_path / "undisturbed"))
    make_chain(undisturbed)
    carry_out(undisturbed, make_plan(undisturbed, TARGET))
    store = Store.open(str(tmp_path / "killed"))
    make_chain(store)
    left = iter(range(deletions))
    delete = Store.delete

    def fail_later(self: Store, key: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        delete(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", fail_later)
        try:
            carry_out(store, make_plan(store, TARGET))
        except KeyboardInterrupt:
            assert deletions < 9
    carry_out(store, make_plan(store, TARGET))
    assert store.list("") == undisturbed.list("")


def test_an_object_that_a_remaining_part_wrote_too_is_kept_with_what_follows_from_it(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    tainted = part(store, "tainted", {"texts": [parquet(text=[TEXT])]})
    counts = parquet(count=["3"])
    made = part(store, "made", {"counts": [counts]}, (table(tainted, "texts"),))
    independent = part(store, "independent", {"counts": [counts]})
    follower = part(store, "follower", {"more": [parquet(more=["4"])]}, (table(made, "counts"),))
    plan = make_plan(store, TARGET)
    assert stages(plan) == ["made", "tainted"]
    carry_out(store, plan)
    assert store.exists(independent.tables["counts"][0].object)
    assert store.exists(follower.path)


def test_an_empty_table_says_nothing_and_drags_nobody_along(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    empty = parquet(text=pl.Series([], dtype=pl.String))
    tainted = part(store, "tainted", {"texts": [parquet(text=[TEXT])], "rejects": [empty]})
    made = part(store, "made", {"rejects": [empty]}, (table(tainted, "texts"),))
    other = part(store, "other", {"rows": [parquet(n=["1"])]}, (table(made, "rejects"),))
    assert stages(make_plan(store, TARGET)) == ["made", "tainted"]
    carry_out(store, make_plan(store, TARGET))
    assert store.exists(other.path)


def test_what_a_crash_left_unnamed_goes_even_if_it_holds_the_beginning_only(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    long = "A long story about the red fox. " * 20
    target = Target(frozenset({HASH}), frozenset({long}))
    cut = f"<p>{long[:300]} […]</p>".encode()
    orphan = store.put_object(cut + b"orphan", "")
    page = part(store, "page", {}, (), {"page.html": cut}).directories["folder"]["page.html"]
    assert make_plan(store, target).holders == (orphan,)
    store.delete("parts/page/page-000.json")
    assert set(make_plan(store, target).holders) == {orphan, page}


def test_notes_that_quote_the_text_go_and_damaged_objects_too_but_weights_are_not_read(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.create("curations/one/failures/a.json", json.dumps({"reason": f"cannot read {TEXT}"}).encode())
    store.create("curations/one/failures/b.json", b'{"reason": "the disk hiccuped"}')
    damaged = part(store, "damaged", {"rows": [parquet(n=["1"])]}).tables["rows"][0].object
    weights = part(store, "model", {}, (), {"model.safetensors": TEXT.encode()}).directories["folder"]
    store.repair(damaged, b"PAR1 half a tab")
    plan = make_plan(store, TARGET)
    assert plan.records == ("curations/one/failures/a.json",)
    assert plan.holders == (damaged,)
    carry_out(store, plan)
    assert store.list("curations") == ["curations/one/failures/b.json"]
    assert store.exists(weights["model.safetensors"])


def test_laid_out_files_go_if_they_hold_the_text_or_are_copies_of_what_went(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    derived = store.put_object(b"scores without any text", "")
    home = tmp_path / "home"
    (home / "run" / "sample").mkdir(parents=True)
    (home / "run" / "report.html").write_bytes(b"scores without any text")
    (home / "run" / "model.safetensors").write_bytes(b"other weights")
    (home / "run" / "sample" / "sheet.csv").write_text('id,passage\n1,"' + TEXT.replace('"', '""') + '"\n')
    (home / "run" / "other.txt").write_text("mine")
    digests = frozenset({derived.rsplit("/", 1)[-1]})
    found = find_files(home, TARGET, digests)
    assert [path.name for path in found] == ["report.html", "sheet.csv"]
    assert find_folders(home, TARGET, digests) == [home / "run"]
    assert find_files(tmp_path / "nowhere", TARGET, digests) == []
    remove_paths(found)
    assert sorted(p.name for p in home.rglob("*") if p.is_file()) == ["model.safetensors", "other.txt"]
    remove_paths([home / "run"])
    assert not (home / "run").exists()


def test_half_written_files_of_killed_writers_are_swept_away(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    left = tmp_path / "objects" / "ab" / ".abc.parquet.123.tmp"
    left.parent.mkdir(parents=True)
    left.write_text(TEXT)
    assert store.sweep() == 0  # somebody may be writing it
    assert store.sweep(older=-1) == 1
    assert not left.exists()


OTHER = "cd" * 16


def write_labels(store: Store, name: str, *rows: tuple[str, str]) -> None:
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema=["text_hash", "comment"], orient="row").write_parquet(buffer)
    store.create(f"labels/{name}.parquet", buffer.getvalue())


def labels_in(store: Store) -> list[tuple[str, str]]:
    return sorted(row for key in store.list("labels") for row in pl.read_parquet(store.read(key) or b"").rows())


def test_rows_that_name_or_hold_the_text_go_and_the_others_stay(tmp_path: Path, store_url: str) -> None:
    store = Store.open(store_url)
    write_labels(store, "a", (HASH, ""), (OTHER, ""), (OTHER, f"see: {TEXT}"))
    write_labels(store, "b", (HASH, ""))
    write_labels(store, "c", (OTHER, "kept"))
    target = Target(frozenset({HASH}), frozenset({TEXT}))
    before = labels_in(store)
    assert (forget_rows(store, target, dry_run=True), labels_in(store)) == (3, before)
    assert forget_rows(store, target) == 3
    assert labels_in(store) == [(OTHER, ""), (OTHER, "kept")]
    assert forget_rows(store, target) == 0


def test_a_damaged_table_goes_for_nobody_can_say_what_it_holds(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.create("labels/damaged.parquet", b"PAR1 cut short")
    assert forget_rows(store, Target(frozenset({HASH}), frozenset())) == 1
    assert store.list("labels") == []


def test_what_stays_is_written_before_the_old_table_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path / "store"))
    write_labels(store, "a", (HASH, ""), (OTHER, ""))
    target = Target(frozenset({HASH}), frozenset())

    def die(self: Store, key: str) -> None:
        raise StoreError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", die)
        with pytest.raises(StoreError, match="killed here"):
            forget_rows(store, target)
    assert (OTHER, "") in labels_in(store)
    assert forget_rows(store, target) == 1
    assert set(labels_in(store)) == {(OTHER, "")}


def test_labels_ledger_releases_and_what_is_published_are_left_to_others(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    holding = json.dumps({"text": TEXT}).encode()
    for folder in ("labels", "ledger/judge", "releases/nq", "published/nq", "trash/curations"):
        store.create(f"{folder}/a.json", holding)
    store.create("curations/nq-000001/note.json", holding)
    assert make_plan(store, TARGET) == Plan((), ("curations/nq-000001/note.json",), (), {})


def test_a_part_whose_manifest_quotes_the_text_goes_with_what_it_wrote(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    key = store.put_object(parquet(n=["1"]), ".parquet")
    ingredients = {"stage": "told", "note": TEXT}
    commit(store, Manifest("told", 1, 0, "told", 0, ingredients, {"rows": (Piece(0, key, 1),)}, {}, {}))
    told = Table("rows", (Piece(0, key, 1),))
    after = part(store, "after", {"rows": [parquet(n=["2"])]}, (told,))
    plan = make_plan(store, TARGET)
    assert [(removal.stage, removal.objects) for removal in plan.removals] == [
        ("after", tuple(piece.object for piece in after.tables["rows"])), ("told", (key,)),
    ]  # fmt: skip
    assert plan.digests == {digest_of(key), digest_of(after.tables["rows"][0].object)}
    carry_out(store, plan)
    assert store.list("parts") == store.list("objects") == []


def test_of_parts_at_several_distances_the_farthest_goes_first(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    made = part(store, "m0", {"rows": [parquet(text=[TEXT])]})
    for number, name in enumerate(("z1", "a2", "k3")):
        made = part(store, name, {"rows": [parquet(n=[str(number)])]}, (table(made, "rows"),))
    assert stages(make_plan(store, TARGET)) == ["k3", "a2", "z1", "m0"]


def test_an_object_that_a_record_names_stays_though_its_part_goes(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    tainted = part(store, "tainted", {"texts": [parquet(text=[TEXT])]})
    made = part(store, "made", {"rows": [parquet(n=["1"])], "more": [parquet(n=["2"])]}, (table(tainted, "texts"),))
    named, unnamed = made.tables["rows"][0].object, made.tables["more"][0].object
    store.create("releases-of-old/a.json", json.dumps({"exports": {"a": named}}).encode())
    plan = make_plan(store, TARGET)
    assert stages(plan) == ["made", "tainted"]
    assert plan.removals[0].objects == (unnamed,)
    assert plan.named == {}


def test_links_and_weights_below_a_folder_are_not_searched_but_weights_that_are_copies_are_found(
    tmp_path: Path,
) -> None:
    (tmp_path / "other.txt").write_text(TEXT)
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.txt").symlink_to(tmp_path / "other.txt")
    (home / "a.safetensors").write_bytes(TEXT.encode())
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    assert find_files(home, TARGET, frozenset()) == []
    assert find_files(home, TARGET, frozenset({digest})) == [home / "a.safetensors"]
    (home / "cut.txt").write_text(f"before {TEXT[:200]}")
    assert find_files(home, TARGET, frozenset()) == [home / "cut.txt"]


def test_what_was_removed_already_is_no_error(tmp_path: Path) -> None:
    remove_paths([tmp_path / "none"])
    store = Store.open(str(tmp_path / "store"))
    carry_out(store, Plan((), ("curations/a.json",), (), {}))


def test_labels_of_which_none_names_the_text_are_left_as_they_are(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    write_labels(store, "a", (OTHER, "x"))
    store.create("labels/notes.txt", TEXT.encode())
    before = store.entries("labels")
    assert forget_rows(store, Target(frozenset({HASH}), frozenset({TEXT}))) == 0
    assert store.entries("labels") == before


def test_a_dry_run_counts_a_damaged_table_and_leaves_it(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.create("labels/damaged.parquet", b"PAR1 cut short")
    assert forget_rows(store, Target(frozenset({HASH}), frozenset()), dry_run=True) == 1
    assert store.list("labels") == ["labels/damaged.parquet"]


def test_a_plan_and_its_target_cannot_be_changed() -> None:
    values = [TARGET, Removal("parts/a/a-000.json", ()), Plan((), (), (), {})]
    assert [value for value in values if can_be_changed(value)] == []


def test_origins_hold_no_text_and_are_not_searched(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    keep(store, Origin({"vllm": "0.31.0"}, {"name": "AMD EPYC"}))
    part(store, "ingest", {"passages": [parquet(text=["AMD EPYC"])]})
    plan = make_plan(store, Target(frozenset(), frozenset({"AMD EPYC"})))
    carry_out(store, plan)
    assert (store.list("objects"), store.list("parts"), len(store.list("origins"))) == ([], [], 1)
