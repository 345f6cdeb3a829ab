"""What a configuration from the store may use of this machine: its files, and the keys in its environment.

A file on the user's own disk may name what it likes: whoever runs it could read the same things without Reneg. A
configuration from the store was written by somebody who can write there, and it runs with the rights and the
environment of the worker. So it is bound by two variables of that environment, RENEG_ALLOWED_KEYS and
RENEG_ALLOWED_SOURCES.
"""

from pathlib import Path

from flows.config.curation import CurationConfig, is_no_file
from flows.config.section import ConfigError
from infra.engines.kinds import refusal_of
from infra.engines.specs import ScoresSpec
from infra.key_rules import KeyRules
from infra.settings import SOURCES_VARIABLE, Settings, allowed_keys, allowed_sources

_ON_DISK = ("file://", "local://")


def key_rules(*, own_file: bool) -> KeyRules | None:
    """Return the rules for the keys of a configuration; None for a file of the user's own, which is not bound.

    Raises:
        ConfigError: RENEG_ALLOWED_KEYS is of another form.
    """
    try:
        return None if own_file else allowed_keys()
    except ValueError as error:
        raise ConfigError(str(error)) from error


def refused_keys(config: CurationConfig, rules: KeyRules | None) -> list[str]:
    """Return a line for each judge and encoder that may not be asked with the key it names, with what to do."""
    asked = {f"tier {tier.name}: engine": tier.engine for tier in config.tiers} | config.all_encoders
    refusals = [(place, refusal_of(engine, rules)) for place, engine in asked.items()]
    return [f"{config.name}: {place}.{refusal}" for place, refusal in refusals if refusal]


def refuse_other_keys(config: CurationConfig, rules: KeyRules | None) -> None:
    """Refuse a configuration with a judge or an encoder that may not be asked with the key it names.

    Raises:
        ConfigError: a line for each, with what to do.
    """
    told = refused_keys(config, rules)
    if told:
        raise ConfigError("\n".join(told))


def refuse_other_places(config: CurationConfig, settings: Settings) -> None:
    """Refuse a configuration from a remote store that reads places which RENEG_ALLOWED_SOURCES does not name.

    A store on this machine's disk is written by those who can write this disk, so it binds nobody.

    Raises:
        ConfigError: a line for each such place, with what to do.
    """
    if "://" not in settings.store:
        return
    prices = config.prices if isinstance(config.prices, str) else None
    named = {
        "source.path": config.source.path,
        "gold.path": config.gold and config.gold.path,
        "imported.path": config.imported and config.imported.path,
        "calibration": None if is_no_file(config.calibration) else config.calibration,
        "prices": prices,
    }
    named |= {
        f"tier {tier.name}: engine.path": tier.engine.path
        for tier in config.tiers
        if isinstance(tier.engine, ScoresSpec)
    }
    named |= {f"guards.evaluation {number}": place for number, place in enumerate(config.guards.evaluation, start=1)}
    sets = enumerate(config.evaluate.collections, start=1)
    named |= {f"evaluate.collections {number}": each.path for number, each in sets}
    allowed = allowed_sources()
    told = [
        f"{config.name}: {field}: a configuration from the store may not read {place}; allowed here: "
        f"{', '.join(allowed)}. Add its folder to {SOURCES_VARIABLE} in the environment of this process (for a "
        "deployment: of `reneg serve`), or run `reneg curate` with a file of your own"
        for field, place in named.items()
        if place and not any(_is_below(place, prefix) for prefix in allowed)
    ]
    if told:
        raise ConfigError("\n".join(told))


def _is_below(place: str, prefix: str) -> bool:
    """Tell whether a place lies below an allowed one; a chain of file systems (`zip://x::file:///y`) never does.

    >>> _is_below("s3://corpora/a.jsonl", "s3://corpora"), _is_below("s3://corpora-2/a.jsonl", "s3://corpora")
    (True, False)
    >>> _is_below("hf://owner/name@main/data", "hf://datasets/owner/name"), _is_below("hf://own", "hf://owner/name")
    (True, False)
    """
    pinned = "@" in prefix  # to one revision
    place, prefix = _of_hub(place, pinned=pinned), _of_hub(prefix, pinned=pinned)
    place = next((place.removeprefix(scheme) for scheme in _ON_DISK if place.startswith(scheme)), place)
    if "://" in place or "::" in place:
        inside = place == prefix or place.startswith(prefix if prefix.endswith("/") else f"{prefix}/")
        return "://" in prefix and inside and "::" not in place and ".." not in place.split("/")
    return "://" not in prefix and Path(place).expanduser().resolve().is_relative_to(Path(prefix).resolve())


def _of_hub(address: str, *, pinned: bool) -> str:
    """Write an address of a data set of a hub in one form, with its revision if `pinned`; others stay as they are."""
    if not address.startswith("hf://") or "::" in address:
        return address
    owner, *rest = address.removeprefix("hf://").removeprefix("datasets/").split("/", 2)
    named = [rest[0] if pinned else rest[0].partition("@")[0], *rest[1:]] if rest else []
    return "/".join([f"hf://{owner}", *named])
