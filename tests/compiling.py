"""Compile the test files once for all processes of a run, as pytest compiles them: with asserts that tell their values.

Each process would else do it for itself, at the same time as the others, as long as none has finished; and in every run
where PYTHONDONTWRITEBYTECODE is set. It is 14 s of CPU in each.
"""

import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from _pytest.assertion import rewrite


def compile_tests(files: Sequence[Path], config: pytest.Config) -> list[Path]:
    """Compile the files whose compiled form is missing or older, on all cores; returns them."""
    stale = [path for path in files if rewrite._read_pyc(path, compiled(path)) is None]
    cores = len(os.sched_getaffinity(0))
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_compile, args=(stale[n::cores], config)) for n in range(min(cores, len(stale)))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return stale


def compiled(path: Path) -> Path:
    """Name the file in which pytest looks for the compiled form."""
    return rewrite.get_cache_dir(path) / f"{path.stem}{rewrite.PYC_TAIL}"


def _compile(files: Sequence[Path], config: pytest.Config) -> None:
    for path in files:
        compiled(path).parent.mkdir(exist_ok=True)
        source, code = rewrite._rewrite_test(path, config)
        rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, source, compiled(path))
