"""Proves that a check checks something: it must fail where the defect is."""

from collections.abc import Callable
from typing import Any

import pytest


def must_fail(check: Callable[..., None], *arguments: Any, by: tuple[type[Exception], ...] = ()) -> None:
    """Run a check on a re-typed defect: an assertion must fail, or the defect must raise one of `by`, its own end."""
    try:
        check(*arguments)
    except (AssertionError, *by):
        return
    pytest.fail(f"{check.__name__} passes on the re-typed defect: it would not notice its return")


def refused(ask: Callable[[], Any]) -> str | None:
    """Give the message with which a configuration is refused; None where it is taken."""
    from flows.config.section import ConfigError

    try:
        ask()
    except (ConfigError, ValueError) as error:
        return str(error)
    return None
