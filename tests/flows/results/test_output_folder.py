"""What a curation leaves on disk for people, and what it never takes away from them."""

from dataclasses import replace
from pathlib import Path

from flows.curation.workspace import Hooks, Workspace
from flows.method.setup import Outcome
from flows.results.output_folder import lay_out
from infra.settings import Settings
from infra.storage.artifacts import Directory, Table, write_directory
from infra.storage.store import Store

ID = "mine-000001"


def make(tmp_path: Path) -> tuple[Workspace, list[str]]:
    said: list[str] = []
    store = str(tmp_path / "store")
    settings = Settings(tmp_path / "home", store, tmp_path / "cache", prefect_api_url=None, ray_address=None)
    workspace = Workspace(settings, Store.open(store), Hooks(on_message=said.append))
    return workspace, said


def folder_of(tmp_path: Path, store: Store, name: str, text: str) -> Directory:
    folder = tmp_path / text
    folder.mkdir()
    (folder / name).write_text(text)
    return write_directory(store, "folder", folder)


def outcome(page: Directory, sheet: Directory) -> Outcome:
    nothing = Table("nothing")
    return Outcome(page, sheet, {}, {}, nothing, nothing)


def test_a_sheet_with_labels_survives_any_number_of_runs_and_the_new_sheet_stands_beside_it(tmp_path: Path) -> None:
    workspace, said = make(tmp_path)
    page = folder_of(tmp_path, workspace.store, "report.html", "page")
    first = folder_of(tmp_path, workspace.store, "sheet.csv", "first")
    sample = lay_out(workspace, ID, outcome(page, first)) / "sample"
    (sample / "sheet.csv").write_text("first, labelled by people")
    lay_out(workspace, ID, outcome(page, first))
    second = folder_of(tmp_path, workspace.store, "sheet.csv", "second")
    lay_out(workspace, ID, outcome(page, second))
    (beside,) = [p for p in sample.iterdir() if p.read_text() == "second"]
    beside.write_text("second, labelled by people")
    lay_out(workspace, ID, outcome(page, second))
    kept = sorted(path.read_text() for path in sample.iterdir())
    assert kept == ["first", "first, labelled by people", "second, labelled by people"]
    assert all("is kept" in line for line in said)


def test_a_report_is_replaced_by_the_newer_one(tmp_path: Path) -> None:
    workspace, _ = make(tmp_path)
    sheet = folder_of(tmp_path, workspace.store, "sheet.csv", "sheet")
    for text in ("older", "newer"):
        page = folder_of(tmp_path, workspace.store, "report.html", text)
        folder = lay_out(workspace, ID, outcome(page, sheet))
    assert (folder / "report.html").read_text() == "newer"


def test_exports_are_copied_once_and_again_where_people_changed_them(tmp_path: Path) -> None:
    workspace, _ = make(tmp_path)
    made = {name: folder_of(tmp_path, workspace.store, f"{name}.txt", name) for name in ("page", "sheet", "relabel")}
    whole = replace(outcome(made["page"], made["sheet"]), exports={"relabel": made["relabel"]})
    file = lay_out(workspace, ID, whole) / "export" / "relabel" / "relabel.txt"
    written = file.stat().st_ino
    lay_out(workspace, ID, whole)
    assert file.stat().st_ino == written
    file.write_text("changed")
    lay_out(workspace, ID, whole)
    assert file.read_text() == "relabel"
    assert not list((tmp_path / "cache").rglob("relabel.txt"))  # no copy of the texts is left there


def test_trained_rerankers_are_laid_out_so_that_engines_can_load_them(tmp_path: Path) -> None:
    workspace, _ = make(tmp_path)
    page, sheet = (folder_of(tmp_path, workspace.store, f"{name}.html", name) for name in ("report", "sheet"))
    model = folder_of(tmp_path, workspace.store, "config.json", "{}")
    folder = lay_out(workspace, ID, replace(outcome(page, sheet), rerankers={"relabel": model}))
    assert (folder / "rerankers" / "relabel" / "config.json").read_text() == "{}"
