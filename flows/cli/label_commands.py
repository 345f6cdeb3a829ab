"""`reneg labels`: imports people's labels from a filled-in sheet, or counts the labels in the store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.console import ERR, OUT, CurationArgument, Json, print_json, print_line
from flows.cli.run_commands import resume_curation
from infra.settings import read_settings

if TYPE_CHECKING:  # these take seconds to import: commands import them when they run
    from flows.curation.labels import Imported
    from infra.storage.store import Store

app = typer.Typer(help="Labels of people: import a filled-in sheet, or count the labels in the store.")


@app.callback()
def labels(context: typer.Context, as_json: Json = False) -> None:
    """Count people's labels, by annotator and by the curation of their sheet."""
    if context.invoked_subcommand is not None:
        return
    from infra.storage.store import Store

    rows = show_labels(Store.open(read_settings().store, write=False), OUT)
    if as_json:
        print_json(rows)


@app.command("import")
def import_labels(
    curation: CurationArgument,
    sheet: Annotated[Path, typer.Argument(help="The filled-in sheet.csv, or JSON lines.")],
    annotator: Annotated[str, typer.Option(help="Who filled it in, for rows that name nobody.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Then continue the curation.")] = False,
    as_json: Json = False,
) -> None:
    """Import people's labels. They apply wherever the same texts occur, in every later curation too."""
    from flows.curation.labels import import_labels as keep_labels
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace

    workspace = Workspace.open(read_settings())
    imported = keep_labels(workspace, load_curation(workspace.store, curation), sheet, annotator)
    record = show_import(imported, OUT)
    result = {"result": resume_curation(read_settings(), curation, OUT, ERR)} if resume else {}
    if as_json:
        print_json(record | result)


@app.command("silver")
def silver(
    default: Annotated[str, typer.Option(help="The training set as it was: a file, a folder or an address.")],
    relabelled: Annotated[str, typer.Option(help="The same set, relabelled.")],
    out: Annotated[Path, typer.Option(help=".csv or .parquet: all labels. .jsonl: pairs with texts, for `gold.path`.")],
    pairs: Annotated[int, typer.Option(min=1, help=".jsonl: how many pairs are drawn.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help=".jsonl: another seed draws other pairs.")] = 0,
    as_json: Json = False,
) -> None:
    """Find machine-made labels: which negatives of a training set became positives when it was relabelled."""
    from flows.config.section import ConfigError
    from flows.curation.silver import write_silver

    if out.exists():
        raise ConfigError(f"--out: {out} exists; give another file, or remove it")
    done = write_silver(
        read_settings(), {"default": default, "relabelled": relabelled}, out, pairs=pairs, seed=seed
    ).as_json()
    show_silver(done, OUT)
    if as_json:
        print_json(done)


def show_silver(done: dict[str, Any], out: Console) -> None:
    """Print what was labelled, and what was not and why."""
    rows, labels = done["rows"], done["labels"]
    print_line(out, f"{rows['default']:,} rows as they were, {rows['relabelled']:,} relabelled")
    print_line(out, "labels: " + ", ".join(f"{count:,} {label}" for label, count in labels.items()))
    for title, counts in (("without a label", done["without"]), ("not read", done["passed_over"])):
        if counts:
            print_line(out, f"{title}: " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items()))
    use = "gold: {path: …}" if done["out"].endswith(".jsonl") else "imported: {path: …}"
    print_line(out, f"{done['out']}: {done['written']:,} pairs; made by a machine, not by people. Use it as `{use}`")


def show_import(imported: "Imported", out: Console) -> dict[str, Any]:
    """Print the result of an import; returns its JSON record."""
    from flows.curation.labels import reasons_of

    record = imported.as_json()
    out.print(
        f"{record['labels']} labels read: {record['new']} new, {record['changed']} changed, {record['known']} known "
        f"already; {record['blank']} rows blank, {record['repeated']} rows repeated",
        soft_wrap=True,
    )
    for line in reasons_of(imported.checked):
        print_line(out, line)
    return record


def show_labels(store: "Store", out: Console) -> list[dict[str, Any]]:
    """Print how many labels there are, by annotator and by the curation of their sheet; returns the rows."""
    import polars as pl
    from rich.table import Table

    from flows.method.human_labels import label_keys, read_labels
    from tasks import schemas
    from tasks.quality.labels import settle

    labels = read_labels(store)
    settled = settle(labels)
    counts = labels.group_by("annotator", "curation").agg(
        pl.len().alias("labels"),
        *((pl.col("label") == label).sum().alias(label) for label in schemas.LABELS),
        pl.col("at").max().alias("last"),
    )
    rows = counts.sort("annotator", "curation").to_dicts()
    table = Table(title="people's labels", title_justify="left")
    for name in counts.columns:
        table.add_column(name, justify="left" if name in ("annotator", "curation", "last") else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    if not rows:
        out.print("there are no labels yet; fill in a sample/sheet.csv, then run `reneg labels import`")
        return []
    out.print(table)
    several = settled.filter(pl.col("annotators") > 1).height
    out.print(
        f"{settled.height} pairs of texts, {several} of them by several people, {settled['tied'].sum()} without "
        f"a majority; {len(label_keys(store))} imports",
        soft_wrap=True,
    )
    return rows
