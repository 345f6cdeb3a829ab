"""Commands that maintain the store: `gc`, `purge`, `ledger`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.console import OUT, Json, print_json, print_line
from infra.settings import Settings, read_settings

if TYPE_CHECKING:  # it takes seconds to import: commands import it when they run
    from flows.maintenance.purge import Found

app = typer.Typer()
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"]
_BEYOND = (
    "Not removed: backups, older versions that a bucket keeps, exports and models copied elsewhere, the logs of "
    "Prefect and Ray, and what was sent to an endpoint, such as batch files at the vendor."
)


@app.command()
def gc(  # noqa: PLR0913, PLR0917 - each option is an argument
    keep_curations: Annotated[
        int | None, typer.Option(min=1, help="Newest curations to keep of each name. Default: `retention` (30).")
    ] = None,
    keep_releases: Annotated[
        int | None, typer.Option(min=1, help="Newest releases to keep of each name. Default: `retention` (5).")
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(min=0, help="Also keep curations with a run within this many days. Default: `retention` (30)."),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Grace period in hours. 0 deletes at once: only if nothing else uses the store."),
    ] = 24.0,
    drop: Annotated[list[str] | None, typer.Option(help="A curation to remove in any case; may be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Delete data that no kept curation or release uses.

    It goes to the trash first and is deleted after the grace period, by a later `reneg gc --yes`.
    """
    from flows.maintenance.gc import Wanted, collect

    wanted = Wanted(keep_curations, keep_releases, days, grace, frozenset(drop or ()))
    done = collect(read_settings(), wanted, yes=yes)
    show_collected(done, grace, OUT)
    if as_json:
        print_json(done)


@app.command()
def purge(
    text_file: Annotated[Path | None, typer.Option(help="A file that contains exactly the text.")] = None,
    hash_: Annotated[str | None, typer.Option("--hash", help="The text's hash, as in the column text_hash.")] = None,
    doc: Annotated[str | None, typer.Option(help="A passage, as DATASET/DOC_ID.")] = None,
    query: Annotated[str | None, typer.Option(help="A query, as DATASET/QUERY_ID.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a text from the store, with everything said about it or made from it. Stop all runs first.

    Name the text with one of `--text-file`, `--hash`, `--doc` and `--query`.
    """
    from flows.maintenance.purge import Wanted
    from flows.maintenance.purge import purge as purge_text

    found = purge_text(read_settings(), Wanted(text_file, hash_, doc, query), yes=yes)
    show_purged(found, OUT, removed=yes)
    if as_json:
        print_json(found.as_json(yes))


ledger_app = typer.Typer(help="Answers of judges: count what is kept, or forget some.")
app.add_typer(ledger_app, name="ledger", invoke_without_command=True)


@ledger_app.callback()
def ledger(
    context: typer.Context,
    compact: Annotated[bool, typer.Option("--compact", help="Merge small segments first; safe at any time.")] = False,
    as_json: Json = False,
) -> None:
    """Show how many answers of each judge are kept. A kept answer is used again where the same is asked."""
    if context.invoked_subcommand is not None:
        return
    rows = show_ledger(read_settings(), compact=compact, out=OUT)
    if as_json:
        print_json(rows)


@ledger_app.command("forget")
def forget(
    judge: Annotated[
        str | None, typer.Option(help="The judge, as the report or `reneg ledger` names it, or its model's name.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=_TIMES, help="Only answers given from then on, in UTC. Default: all.")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="Only answers with this `system_fingerprint`; `none`: those without one.")
    ] = None,
    undo: Annotated[int | None, typer.Option(min=1, help="Put back what this forgetting took away.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Forget answers of a judge, so that it is asked anew. Stop all runs first; then run `reneg curate` again.

    Finished parts that used such an answer are computed again. `reneg gc --yes` deletes it all after its grace period;
    until then `--undo` puts it back.
    """
    from flows.maintenance import forget as module

    if (judge is None) == (undo is None) or (undo is not None and (since or fingerprint)):
        raise typer.BadParameter("give --judge, with --since and --fingerprint if wanted; or --undo alone")
    if undo is not None:
        facts = module.undo(read_settings(), undo, yes=yes)
        show_undone(facts, OUT)
    else:
        when = None if since is None else since.replace(tzinfo=UTC)
        facts = module.forget(read_settings(), module.Wanted(str(judge), when, fingerprint), yes=yes)
        show_forgotten(facts, OUT)
    if as_json:
        print_json(facts)


def show_forgotten(facts: Mapping[str, Any], out: Console) -> None:
    """Print what was or would be forgotten."""
    from rich.table import Table

    removed = facts["removed"]
    table = Table("what", "how many", title="forgotten" if removed else "would be forgotten", title_justify="left")
    table.add_row("answers", f"{facts['rows']:,}")
    for name, count in facts["fingerprints"].items():
        table.add_row(f"  with fingerprint {name}", f"{count:,}")
    table.add_row("finished parts that used them", f"{len(facts['parts']):,}")
    out.print(table)
    names = sorted({name for name in facts["folders"].values() if name}) or sorted(facts["folders"])
    print_line(out, f"judge: {', '.join(names)}")
    if facts["first"]:
        print_line(out, f"given from {_time(facts['first'])} to {_time(facts['last'])}")
    if facts["undated"]:
        print_line(
            out,
            f"{facts['undated']:,} answers stay: they were kept before Reneg recorded when an answer was given. "
            "Without --since they are forgotten too",
        )
    if facts["curations"]:
        print_line(out, f"run again: {', '.join(facts['curations'])}")
    if not removed:
        print_line(out, "Nothing was forgotten. Stop curations in this store, then give --yes.")
    elif "number" in facts:
        print_line(
            out,
            f"`reneg ledger forget --undo {int(facts['number'])} --yes` puts it back, until `reneg gc --yes` deletes "
            "it after its grace period.",
        )


def show_undone(facts: Mapping[str, Any], out: Console) -> None:
    """Print what was or would be put back."""
    print_line(
        out,
        f"forgetting {facts['number']}: judge {facts['judge']}, {facts['rows']:,} answers, {facts['parts']:,} parts",
    )
    if not facts["undone"]:
        print_line(out, "Nothing was put back. Stop curations in this store, then give --yes.")
        return
    print_line(out, f"put back: {facts['segments_back']:,} segments of the ledger, {facts['parts_back']:,} parts")
    if facts["computed_meanwhile"]:
        print_line(out, f"{facts['computed_meanwhile']:,} parts were computed again meanwhile and stay as they are now")


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def show_collected(facts: Mapping[str, Any], grace: float, out: Console) -> None:
    """Print what `collect` did or would do; `grace` in hours."""
    from rich.table import Table

    removed = facts["removed"]
    table = Table("what", "how many", title="removed" if removed else "would be removed", title_justify="left")
    for what in ("curations", "releases"):
        table.add_row(what, f"{len(facts[what]):,}")
    table.add_row("finished parts", f"{facts['parts']:,}")
    table.add_row("objects", f"{facts['objects']:,}")
    table.add_row("MB, to the trash", f"{facts['bytes'] / 1e6:,.1f}")
    table.add_row("deleted from the trash", f"{facts['deleted']:,}")
    table.add_row("MB, for good", f"{facts['deleted_bytes'] / 1e6:,.1f}")
    table.add_row("restored from the trash", f"{facts['put_back']:,}")
    table.add_row("vectors of unused encoders, for good: segments", f"{facts['vectors']:,}")
    table.add_row("forgotten answers and parts, for good", f"{facts['forgotten']:,}")
    out.print(table)
    for id_, why in facts["why"].items():
        print_line(out, f"  {id_}: {why}")
    unfinished = [id_ for id_, reason in facts["kept"].items() if reason == "unfinished"]
    if unfinished:
        out.print(f"kept because unfinished: {', '.join(unfinished)}; remove one with --drop", soft_wrap=True)
    if facts["missing"]:
        out.print(
            f"missing objects of kept parts; run those parts again: {', '.join(facts['missing'])}", soft_wrap=True
        )
    if not removed:
        out.print("Nothing was removed. Give --yes to remove it; curations may run meanwhile.")
    elif facts["bytes"] and grace:
        out.print(f"The next `reneg gc --yes` that begins {grace:g} hours from now frees what is in the trash.")


def show_purged(found: "Found", out: Console, *, removed: bool) -> None:
    """Print what a purge removed or would remove, and what it cannot remove."""
    from rich.table import Table

    if not found.target.texts:
        out.print(
            "No table holds a text with this hash, so files with the text cannot be found. Give --text-file if you can."
        )
    if found.nothing:
        out.print("Nothing in the store, the ledger or the files holds it.")
        return
    facts = found.as_json(removed)
    table = Table("what", "how many", title="removed" if removed else "would be removed", title_justify="left")
    table.add_row("ledger: rows that name it", str(facts["ledger_rows"]))
    if found.rows.damaged:
        table.add_row("ledger: damaged segments", str(found.rows.damaged))
    table.add_row("vectors that are remembered of it", str(facts["vectors"]))
    table.add_row("labels of people", str(facts["labels"]))
    table.add_row("places in parts, kept for later ingests", str(facts["places"]))
    table.add_row("store: tables and files that hold it", str(facts["objects"]))
    for stage, count in facts["parts"].items():
        table.add_row(f"store: parts of {stage}", str(count))
    table.add_row("store: what those parts made", str(facts["derived_objects"]))
    table.add_row("store: notes of curations", str(len(found.plan.records)))
    table.add_row("files laid out", str(len(found.files)))
    table.add_row("published releases", str(len(found.published)))
    out.print(table)
    out.print(f"hashes, to repeat the purge with if it is interrupted: {' '.join(facts['hashes'])}", soft_wrap=True)
    for path in found.files:
        out.print(f"  {path}", markup=False, soft_wrap=True)
    for source in found.sources:
        out.print(
            f"source of {source['curation']}: remove the text from {source['path']} yourself, or the next curation "
            "brings it back",
            markup=False,
            soft_wrap=True,
        )
    out.print(_BEYOND, soft_wrap=True)
    if not removed:
        out.print("Nothing was removed. Stop curations in this store, then give --yes.")


def show_ledger(settings: Settings, *, compact: bool, out: Console) -> list[dict[str, Any]]:
    """Print what the ledger holds of each judge; `compact` merges its segments first. Returns the rows."""
    from rich.table import Table

    from infra.ledger.ledger import Ledger
    from infra.storage.store import Store

    ledger = Ledger(Store.open(settings.store, write=compact))
    for judge in ledger.judges() if compact else ():
        done = ledger.compact(judge, min_segments=2)
        out.print(f"{judge}: {done.merged} segments merged into {done.into}", soft_wrap=True)
    rows = [{"judge": judge, **stats.__dict__} for judge, stats in ledger.stats().items()]
    table = Table("judge", "segments", "rows", "MB", title="ledger", title_justify="left")
    for row in rows:
        table.add_row(row["judge"], f"{row['segments']:,}", f"{row['rows']:,}", f"{row['bytes'] / 1e6:,.1f}")
    out.print(table if rows else f"nothing is remembered in {settings.store} yet")
    return rows
