"""Origins: what computed something, as a record with a digest and a line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra import provenance
from infra.provenance import Origin, declared, here, versions
from tests.conftest import ROOT

OLD = Origin({"vllm": "0.31.0"}, {"device": "cpu", "name": "AMD EPYC"})


def install(folder: Path, name: str, version: str) -> None:
    """Leave what pip leaves of a package: enough for its version to be found."""
    found = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_equal_origins_have_one_digest_whatever_their_order_and_any_difference_gives_another() -> None:
    one = Origin({"torch": "2.13.0", "vllm": "0.31.0"}, {"name": "AMD EPYC", "device": "cpu"})
    other = Origin({"vllm": "0.31.0", "torch": "2.13.0"}, {"device": "cpu", "name": "AMD EPYC"})
    assert one.digest == other.digest
    assert len(one.digest) == 16
    different = [
        Origin({**one.software, "vllm": "0.32.0"}, one.processor),
        Origin(one.software, {**one.processor, "name": "Intel Xeon"}),
        Origin(one.software, one.processor, "openai gpt-4o"),
        Origin(),
    ]
    assert len({origin.digest for origin in [one, *different]}) == 5


def test_an_origin_survives_json_and_other_json_is_refused() -> None:
    assert Origin.from_json(OLD.to_json()) == OLD
    for data in (b"[]", b'{"software": {}}', b'{"software": 1, "processor": {}, "endpoint": ""}', b"{"):
        with pytest.raises(ValueError):
            Origin.from_json(data)


def test_a_line_tells_everything_that_differs() -> None:
    assert OLD.line == "vllm 0.31.0; cpu: name AMD EPYC"
    assert (
        Origin({"vllm": "0.31.0"}, {"device": "cuda", "gpu": "NVIDIA H200"}).line
        == "vllm 0.31.0; cuda: gpu NVIDIA H200"
    )
    assert Origin(endpoint="openai gpt-4o at api.example").line == "endpoint openai gpt-4o at api.example"


def test_a_package_built_for_cpus_counts_and_an_absent_one_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "engine-x-cpu", "1.2.3+cpu")
    install(tmp_path, "engine-y", "4.5")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert versions(("engine-x", "engine-y", "engine-z")) == {"engine-x": "1.2.3+cpu", "engine-y": "4.5"}
    assert declared(("engine-x",), "cuda") == {"engine-x": "1.2.3", "processor": "cuda"}


def test_a_key_knows_the_instruction_sets_and_not_the_processors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "processor", lambda: ("AMD EPYC", ("avx2", "avx512f")))
    assert declared((), "cpu") == {"processor": "cpu avx2 avx512f"}


def test_this_process_says_what_its_libraries_run_on() -> None:
    script = (
        "import faiss, torch; torch.set_num_threads(1)\n"
        "from infra.provenance import here\n"
        "plain, both = here(), here(('torch', 'faiss'), with_threads=True)\n"
        "import json, sys\n"
        "print(json.dumps([plain.processor, plain.software, both.processor, both.software, torch.__version__]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin", "ATEN_CPU_CAPABILITY": "avx2", "FAISS_OPT_LEVEL": "avx2"},
    )  # fmt: skip
    plain, tables, both, software, torch_version = json.loads(done.stdout)
    assert set(tables) == {"polars", "numpy"}
    assert "torch kernels" not in plain
    assert set(software) == {"torch", "faiss"}
    assert software["torch"] == torch_version
    assert both["torch kernels"] == "AVX2"
    assert both["faiss kernels"]
    assert (both["threads"], both["ATEN_CPU_CAPABILITY"], both["device"]) == ("1", "avx2", "cpu")


def test_a_gpu_is_named_with_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    here.cache_clear()
    monkeypatch.setattr(provenance, "gpus", lambda: ("NVIDIA H200, compute 9.0, driver 570.1",))
    assert here((), "cuda").processor == {"device": "cuda", "gpu": "NVIDIA H200, compute 9.0, driver 570.1"}
    here.cache_clear()
