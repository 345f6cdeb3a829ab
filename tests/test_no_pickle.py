"""Nothing is unpickled: whoever may write into the store must not be able to run code on those who read it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
CALLS = {"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "pd.read_pickle"}
ALLOWED = {"weights_only": True, "allow_pickle": False, "trust_remote_code": False}
FILES = sorted(path for layer in ("flows", "infra", "tasks") for path in (ROOT / layer).rglob("*.py"))


def unpicklings(code: str) -> list[str]:
    """Name every place of a file that can unpickle or run code that it reads."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] if node.module.split(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [name] if name in CALLS else []
            for keyword in node.keywords:
                if keyword.arg in ALLOWED and ast.unparse(keyword.value) != str(ALLOWED[keyword.arg]):
                    found.append(f"{name}({keyword.arg}={ast.unparse(keyword.value)})")
    return found


def test_no_file_can_unpickle() -> None:
    assert len(FILES) > 50
    found = {str(path.relative_to(ROOT)): unpicklings(path.read_text()) for path in FILES}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, Loader)",
        "AutoModel.from_pretrained(path, trust_remote_code=config.remote)",
        "def f():\n    import dill",
    ],
)
def test_the_search_would_find_it(code: str) -> None:
    assert len(unpicklings(code)) == 1
