"""Commands for the first steps: `init` writes a configuration, `preview` runs the whole method on a few queries."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.console import ERR, OUT, Json, Strict, print_json, print_line, strictly
from infra.settings import Settings, read_settings

if TYPE_CHECKING:  # these take seconds to import: commands import them when they run
    from flows.config.curation import CurationConfig
    from flows.planning.preview import Preview, Wanted
    from flows.planning.starter import Machine
    from flows.planning.survey import Survey
    from tasks.statistics import Interval

app = typer.Typer()


@app.command()
def init(
    source: Annotated[str, typer.Argument(help="A file, a folder or an address with your training data.")],
    out: Annotated[
        Path | None, typer.Option(help="The configuration to write. Default: the source's name, .yaml.")
    ] = None,
    name: Annotated[str, typer.Option(help="The curation's name. Default: made of the source's name.")] = "",
    rows: Annotated[int, typer.Option(min=1, help="How many rows are looked at.")] = 20_000,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the configuration.")] = False,
    as_json: Json = False,
) -> None:
    """Look at your data, and write a commented configuration for it that can be used as it is."""
    from flows.planning.starter import Machine
    from infra.machine import gpu_memory, total_memory

    record = write_config(
        read_settings(), source, (out, name), Machine(total_memory(), gpu_memory()), OUT, rows=rows, force=force
    )
    if as_json:
        print_json(record)


@app.command()
def preview(
    config: Annotated[Path, typer.Argument(help="The YAML configuration of the curation.")],
    queries: Annotated[int, typer.Option(min=1, help="Training queries, drawn by their texts.")] = 50,
    passages: Annotated[
        int, typer.Option(min=0, help="Passages of the corpus beside those that these queries name.")
    ] = 5000,
    train: Annotated[bool, typer.Option("--train", help="Train and evaluate models too.")] = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Run the whole method on a few queries, and show what the rest would cost and find.

    It is a curation of its own. What its judges answer is kept, so the real curation does not ask it again.
    """
    from flows.config.load import load_config
    from flows.planning.preview import Wanted

    wanted = Wanted(queries, passages, train)
    real = strictly(load_config(config), strict=strict)
    record = run_preview(read_settings(), real, wanted, f"reneg curate {config}", (OUT, ERR))
    if as_json:
        print_json(record)


def write_config(  # noqa: PLR0913 - what a user chooses
    settings: Settings,
    source: str,
    wanted: tuple[Path | None, str],
    machine: "Machine",
    out: Console,
    *,
    rows: int,
    force: bool,
) -> dict[str, Any]:
    """Look at a source and write a configuration; prints what it is and what comes next, returns the JSON record.

    wanted: the file and the curation's name; None and empty for those made of the source's name.

    Raises:
        ConfigError: the source cannot be used, the name is none, or the file is there already.
    """
    from flows.config.load import load_config
    from flows.config.section import ConfigError
    from flows.curation.source import read_here
    from flows.planning.starter import name_of, path_beside, starter
    from flows.planning.survey import survey

    name = wanted[1] or name_of(source)
    path = wanted[0] or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; give another file with --out, or --force to overwrite it")
    with read_here(settings, source) as folder:
        try:
            found = survey(folder, rows)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
    text = starter(found, name, path_beside(source, path), machine)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=path.absolute().parent, encoding="utf-8") as trial:
        trial.write(text)
        trial.flush()
        load_config(Path(trial.name))
    path.write_text(text, encoding="utf-8")
    show_survey(found, source, out)
    print_line(out, f"written: {path}")
    commands = [f"reneg {command} {path}" for command in ("preview", "plan", "curate")]
    print_line(out, "next: " + ", then ".join(commands))
    return {"config": str(path), "name": name, "survey": asdict(found), "next": commands}


def show_survey(found: "Survey", source: str, out: Console) -> None:
    """Print what a source holds."""
    from tasks.data.ingest_config import MOST_REJECTED

    more = "" if found.complete else "more than "
    if found.is_corpus:
        sizes = f"{more}{found.documents:,} passages, {found.queries:,} queries"
        print_line(out, f"{source}: a corpus ({found.form}), {sizes}")
        splits = ", ".join(f"{name} {size:,}" for name, size in found.splits.items())
        print_line(out, f"judged queries: {splits or 'none; there is nothing to train on'}")
    else:
        print_line(out, f"{source}: training rows ({found.form}), {more}{found.rows:,}")
        given = f"{found.negatives:.1f} negatives on average, {found.bare:,} rows without any"
        print_line(out, f"each row: {found.positives:.1f} positives and {given}")
        named = {name or "(none named)": size for name, size in found.datasets.items()}
        print_line(out, "datasets: " + ", ".join(f"{name} {size:,}" for name, size in list(named.items())[:10]))
    if found.recognised:
        print_line(out, "fields: " + ", ".join(f"{role} from {name}" for role, name in found.recognised.items()))
    print_line(out, f"median length: queries {found.query_chars:,}, passages {found.passage_chars:,} characters")
    kept = [*(["titles"] if found.titles else []), *(["scores"] if found.scores else []), *found.extras]
    if kept:
        print_line(out, "also there: " + ", ".join(kept))
    repeated = f"{found.repeated_queries:,} queries, {found.repeated_passages:,} passages"
    print_line(out, f"texts that came before: {repeated}")
    for reason, passed in found.passed_over.items():
        print_line(out, f"passed over, {reason}: {passed.count:,} ({passed.first})")
    if stops := found.too_much_lost(MOST_REJECTED):
        print_line(out, f"a run stops after ingest: {stops}. Mend the source, or set ingest.max_rejected to go on")


def run_preview(
    settings: Settings, config: "CurationConfig", wanted: "Wanted", then: str, consoles: tuple[Console, Console]
) -> dict[str, Any]:
    """Run a preview, and print its result and the figures of the whole; returns the JSON record.

    then: the command that computes the whole.
    """
    from flows.cli.run_commands import run_curation
    from flows.curation.lookup import look
    from flows.curation.prepare import prepare
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.planning.preview import look_ahead, preview_config

    out, err = consoles
    record = run_curation(settings, preview_config(config, wanted), out, err)
    workspace = Workspace.open(settings, write=False)
    setup = prepare(workspace, load_curation(workspace.store, record["curation"]))
    _, runs = look(workspace.store, setup)
    found = look_ahead(workspace, config, setup, runs)
    show_preview(found, config, out)
    print_line(out, f"next: {then}")
    return {**record, "preview": found.as_json()}


def show_preview(found: "Preview", config: "CurationConfig", out: Console) -> None:
    """Print what a preview shows of the whole."""
    from flows.cli.tables import show_tier_plans
    from flows.planning.plan import show_amount

    print_line(out, f"preview of {config.name}: {found.drawn:,} of {found.whole:,} training queries")
    print_line(
        out,
        f"judged false: {_share(found.false)} of {found.pairs:,} pairs; {_share(found.queries_with)} of the queries "
        "have such a pair",
    )
    show_tier_plans(found.plan, out)
    if found.encode_hours is not None:
        hours = found.encode_hours
        took = f"{show_amount(hours)} hours" if hours >= 1 else f"{max(1, round(hours * 60))} min"
        print_line(out, f"encoding {found.corpus:,} passages: about {took}")
    for note in found.notes:
        print_line(out, note)
    if config.train is not None:
        print_line(out, "train and evaluate: not part of a preview; `--train` adds them")


def _share(share: "Interval") -> str:
    if share.value is None or share.low is None or share.high is None:
        return "none"
    return f"{share.value:.1%} (95% interval {share.low:.1%} to {share.high:.1%})"
