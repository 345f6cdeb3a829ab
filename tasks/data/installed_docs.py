"""Find the docstrings of installed libraries, in a separate interpreter.

Some libraries patch others at run time (scipy rewrites numpy's docstrings, vLLM replaces functions of torch). In the
running process the corpus would depend on what was imported before. `find_documentation` therefore runs this file as a
program, with the modules as arguments, and only these modules are imported.
"""

import importlib
import inspect
import json
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_DESCRIPTORS = (
    *(types.MethodDescriptorType, types.ClassMethodDescriptorType, types.WrapperDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType),
)


class DocumentationError(ValueError):
    """A library to be read could not be imported."""


def find_documentation(modules: Sequence[str]) -> dict[str, list[str]]:
    """Map each docstring of the modules' public functions, classes and members to the names that have it.

    A submodule that does not exist in the installed version is skipped.

    Raises:
        DocumentationError: a library is not installed, or fails on import.
    """
    # -P keeps this folder off the path: its files would hide modules of the same name.
    command = [sys.executable, "-P", "-W", "ignore", __file__, *modules]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise DocumentationError(
            f"modules: the documentation of {', '.join(_roots(modules))} could not be read ({reason}); "
            "install what is missing or leave it out of `modules`"
        )
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def walk(modules: Iterable[str]) -> dict[str, list[str]]:
    """Map each docstring of the modules, as imported here, to its qualified names, shortest first."""
    found: dict[str, list[str]] = {}
    roots = _roots(modules)
    for name in sorted(modules):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            if "." not in name:
                raise
            continue
        for qualified, member in _members(module, name, roots):
            doc = getattr(member, "__doc__", None)
            if isinstance(doc, str) and doc.strip() and doc != type(member).__doc__:
                found.setdefault(doc, []).append(qualified)
    return {doc: sorted(names, key=lambda name: (len(name), name)) for doc, names in found.items()}


def _roots(modules: Iterable[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in modules})


def _members(module: types.ModuleType, name: str, roots: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the public members of a module and of its classes, without computing any attribute."""
    for attribute, member in _public(vars(module)):
        if isinstance(member, types.ModuleType) or not _belongs(member, roots):
            continue
        yield f"{name}.{attribute}", member
        if not inspect.isclass(member):
            continue
        own: dict[str, Any] = {}
        for base in reversed(member.__mro__):
            if base is member or (_is_private(base) and _belongs(base, roots)):
                own |= vars(base)
        for method, function in _public(own):
            if _belongs(function, roots):
                yield f"{name}.{attribute}.{method}", function


def _public(members: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, members[name]) for name in sorted(members) if not name.startswith("_")]


def _is_private(base: type) -> bool:
    """Tell whether a base class has no public name of its own (`torch._C.TensorBase`)."""
    return any(part.startswith("_") for part in f"{base.__module__}.{base.__qualname__}".split("."))


def _belongs(member: object, roots: Sequence[str]) -> bool:
    """Tell whether an object is defined in one of the libraries, not only imported by it."""
    owner = member.fget if isinstance(member, property) else member
    owner = owner.__objclass__ if isinstance(owner, _DESCRIPTORS) else owner
    module = getattr(owner, "__module__", None)
    return module is None or (isinstance(module, str) and module.partition(".")[0] in roots)


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(walk(sys.argv[1:])) + "\n")
