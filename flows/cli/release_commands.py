"""Commands for exports, releases and nights: `export`, `promote`, `releases`, `rollback`, `history`."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.console import OUT, CurationArgument, Json, Treatment, print_json, print_line
from infra.settings import Settings, read_settings

if TYPE_CHECKING:  # it takes seconds to import: commands import it when they run
    from infra.storage.store import Store

app = typer.Typer()

_VERDICTS = "verdicts"


@app.command()
def export(
    curation: CurationArgument,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="tevatron, flagembedding, sentence-transformers, beir, trec, datasets (parquet with a card); or "
            "verdicts: what every judge said of every candidate. The configuration's `export` says what rows hold.",
        ),
    ],
    treatment: Annotated[
        str, typer.Option(help="A treatment that the curation made; verdicts are the same for all.")
    ] = "relabel",
    out: Annotated[Path, typer.Option(help="The folder to write; it must be empty or not exist.")] = Path("export"),
) -> None:
    """Write a curation's training set in the format of a trainer, or the verdicts of its judges."""
    export_to(read_settings(), curation, format_, treatment, out, OUT)


@app.command()
def promote(
    curation: CurationArgument,
    treatment: Annotated[Treatment | None, typer.Option(help="Instead of `promote.treatment`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote it even if checks fail.")] = False,
    as_json: Json = False,
) -> None:
    """Publish a finished curation's data for trainers, if its checks pass. The result of each check is recorded."""
    done = promote_by_hand(read_settings(), curation, treatment and treatment.value, OUT, force=force)
    if as_json:
        print_json(done)


@app.command()
def releases(
    name: Annotated[str | None, typer.Argument(help="A configuration's name; without it, all.")] = None,
    as_json: Json = False,
) -> None:
    """List the releases, oldest first; trainers read the last one of each name."""
    rows = show_releases(read_settings(), name, OUT)
    if as_json:
        print_json(rows)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="A configuration's name, as `reneg releases` shows it.")],
    to: Annotated[int | None, typer.Option(help="The release to go back to. Default: the one before.")] = None,
    as_json: Json = False,
) -> None:
    """Make an earlier release current again, under a new number. It stays current until a new curation is promoted."""
    from flows.cli.tables import show_release
    from flows.results.promotion import rollback as go_back
    from infra.storage.store import Store

    done = show_release(go_back(Store.open(read_settings().store), name, to), OUT)
    if as_json:
        print_json(done)


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="A configuration's name; without it, all of them.")] = None,
    as_json: Json = False,
) -> None:
    """Show the finished nights: cost, false negatives, agreement with the gold set and with people, alarms."""
    from infra.storage.store import Store

    rows = show_history(Store.open(read_settings().store, write=False), name, OUT)
    if as_json:
        print_json(rows)


def export_to(settings: Settings, curation_id: str, format_: str, treatment: str, folder: Path, out: Console) -> None:
    """Write one treatment of a finished curation in one format to a folder.

    Raises:
        ConfigError: the format is unknown, the folder holds files, or the curation has not made this treatment.
    """
    from flows.config.section import ConfigError
    from flows.curation.lookup import training_set
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.results.verdict_layer import export_verdicts
    from tasks.data.export import FORMATS, export

    if format_ not in (*FORMATS, _VERDICTS):
        raise ConfigError(f"unknown format {format_!r}; known: {', '.join((*FORMATS, _VERDICTS))}")
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise ConfigError(f"{folder} holds files already; give another folder with --out")
    workspace = Workspace.open(settings, write=False)
    curation = load_curation(workspace.store, curation_id)
    if format_ == _VERDICTS:
        export_verdicts(workspace, curation, folder)
    else:
        config, found = training_set(workspace, curation, treatment, (format_,))
        tables: dict[str, Any] = dict(found)
        folder.mkdir(parents=True, exist_ok=True)
        export(config, **tables, out=folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        out.print(str(path), soft_wrap=True)
    if format_ != _VERDICTS:
        show_export(json.loads((folder / "export.json").read_text(encoding="utf-8")), out)


def show_export(record: Mapping[str, Any], out: Console) -> None:
    """Print how much of a treatment was written, and what the format cannot hold. record: that of `export.json`."""
    for name, counts in record["formats"].items():
        figures = (f"{what.replace('_', ' ')} {count:,}" for what, count in counts.items())
        print_line(out, f"{name}: {', '.join(figures)}")
    for name, left in record["not_held"].items():
        print_line(out, f"{name} cannot hold: {', '.join(f'{what} ({count:,})' for what, count in left.items())}")
    if not record["instances"]:
        print_line(out, "the training set is empty: the treatment left out every query; the report says why")


def promote_by_hand(
    settings: Settings, curation_id: str, treatment: str | None, out: Console, *, force: bool = False
) -> dict[str, Any]:
    """Promote a finished curation by name, with the same checks as at night unless `force` is given.

    Raises:
        ConfigError: it is unfinished, unknown, or did not make the treatment.
    """
    from flows.cli.tables import show_release
    from flows.config.section import ConfigError
    from flows.curation.lookup import look
    from flows.curation.prepare import prepare
    from flows.curation.records import load_curation, say_unfinished
    from flows.curation.workspace import Workspace
    from flows.promotion.gating import compares_models, gate_job
    from flows.results.history import standing_alarms
    from flows.results.promotion import promote as promote_finished
    from tasks.training.promote import PromoteConfig

    workspace = Workspace.open(settings)
    curation = load_curation(workspace.store, curation_id)
    setup = prepare(workspace, curation)
    outcome = look(workspace.store, setup)[0]
    if outcome is None:
        raise ConfigError(say_unfinished(workspace.store, curation_id))
    config = curation.config.promote or PromoteConfig()
    if treatment is not None:
        config = config.model_copy(update={"treatment": treatment})
    alarms = standing_alarms(workspace.store, curation.config.name, curation_id)
    split = curation.config.evaluate.split
    gate = None
    if compares_models(config, outcome):  # what is not trained yet is not trained here
        gate = look(workspace.store, setup, gate_job(workspace.store, curation.config.name, config))[0]
    done = promote_finished(workspace, curation_id, outcome, config, alarms, force=force, split=split, gate=gate)
    return show_release(done, out)


def show_releases(settings: Settings, name: str | None, out: Console) -> list[dict[str, Any]]:
    """Print the releases, oldest first within each name; the last of a name is current. Returns the rows.

    What readers of `latest.json` see is mended on the way, where this user may write.
    """
    from rich.table import Table

    from flows.results.promotion import Release
    from infra.storage.release_pointers import heal, names, read_all
    from infra.storage.store import Store, StoreError

    store = Store.open(settings.store, write=False)
    rows = []
    table = Table("release", "curation", "treatment", "because", "at", title="releases", title_justify="left")
    for column in ("instances", "relabelled", "difference"):
        table.add_column(column, justify="right")
    for line in [name] if name else names(store):
        with contextlib.suppress(StoreError):
            heal(store, line)
        for record in read_all(store, line):
            rows.append({"name": line, **Release(line, record, new=False).as_json(), "at": record["at"]})
            because = record["because"] if record["of"] is None else f"{record['because']} to {record['of']}"
            cells = (f"{record['instances']:,}", f"{record['summary']['found']:,}", _difference(record["checks"]))
            number = f"{line} {record['number']}"
            table.add_row(number, record["curation"], record["treatment"], because, record["at"], *cells)
    out.print(
        table
        if rows
        else f"no release in {settings.store} yet; add a section `promote` to the configuration, or run `reneg promote`"
    )
    return rows


def _difference(checks: Sequence[Mapping[str, Any]]) -> str:
    from tasks.formatting import signed

    score = next((check for check in checks if check["name"] == "score"), None)
    if score is None or score["figure"] is None:
        return "–"
    if score["low"] is None:
        return signed(score["figure"])
    return f"{signed(score['figure'])} ({signed(score['low'])} to {signed(score['high'])})"


def show_history(store: "Store", name: str | None, out: Console) -> list[dict[str, Any]]:
    """Print the finished nights, the oldest first; returns their records."""
    from rich.table import Table

    from flows.results.history import read_history
    from flows.results.nights_page import COLUMNS, LEFT_ALIGNED, night_cells

    records = read_history(store, name)
    if not records:
        out.print(f"no finished night {'of ' + name if name else ''} in {store.url} yet", soft_wrap=True)
        return []
    table = Table(title="nights", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in LEFT_ALIGNED else "right")
    for record in records:
        table.add_row(*night_cells(record))
    out.print(table)
    for record in records:
        for alarm in record["alarms"]:
            print_line(out, f"{record['night']} {record['curation']}: {alarm['message']}")
    return records
