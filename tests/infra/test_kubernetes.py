"""The Kubernetes manifests against the published schemas, and what no schema says: users, secrets, versions, signals.

KubeRay's own schema is in no package index, so a RayCluster's fields are compared with the list below (KubeRay 1.6,
ray.io/v1), and its pod templates are checked as the pods they become.
"""

import re
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT
from tests.infra.test_containers import SECRET, pinned

FOLDER = ROOT / "infra" / "k8s"
KUBERNETES = "1.33"
CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs",
}  # fmt: skip
HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
WORKERS = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams",
    "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip
AUTOSCALER = {
    "env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources", "securityContext",
    "upscalingMode", "version", "volumeMounts",
}  # fmt: skip
Manifest = dict[str, Any]


def manifests(folder: Path = FOLDER) -> list[Manifest]:
    paths = sorted(path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, Manifest]:
    return {found["metadata"]["name"]: found for found in manifests() if found["kind"] == kind}


def cluster() -> Manifest:
    spec: Manifest = of_kind("RayCluster")["reneg"]["spec"]
    return spec


def validate(manifest: Manifest) -> None:
    """Raise what a manifest has wrong, by the schema of its kind; a RayCluster by its fields and its pods."""
    if manifest["kind"] != "RayCluster":
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    assert manifest["apiVersion"] == "ray.io/v1"
    spec = manifest["spec"]
    assert set(spec) <= CLUSTER, set(spec) - CLUSTER
    assert spec.get("upgradeStrategy", {"type": "None"}) in ({"type": "Recreate"}, {"type": "None"})
    assert set(spec["autoscalerOptions"]) <= AUTOSCALER
    assert spec["autoscalerOptions"]["upscalingMode"] in ("Default", "Conservative", "Aggressive")
    assert spec["authOptions"]["mode"] in ("token", "disabled")
    assert set(spec["authOptions"]) <= {"mode", "secretName", "enableK8sTokenAuth"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        known = HEAD if group is spec["headGroupSpec"] else WORKERS
        assert set(group) <= known, set(group) - known
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes strings"
        metadata = {**group["template"].get("metadata", {}), "name": "pod"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def pods() -> Iterator[tuple[str, Manifest]]:
    """Give every pod's spec with a name."""
    for name, deployment in of_kind("Deployment").items():
        yield name, deployment["spec"]["template"]
    yield "head", cluster()["headGroupSpec"]["template"]
    for group in cluster()["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


@pytest.mark.parametrize("manifest", manifests(), ids=lambda found: f"{found['kind']}-{found['metadata']['name']}")
def test_a_manifest_obeys_its_schema_and_names_its_namespace(manifest: Manifest) -> None:
    validate(manifest)
    assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "reneg"


@pytest.mark.parametrize("kind", ["Deployment", "RayCluster", "NetworkPolicy"])
def test_a_misspelt_field_is_caught(kind: str) -> None:
    broken = deepcopy(next(iter(of_kind(kind).values())))
    broken["spec"]["replicaz"] = 1
    with pytest.raises((kubernetes_validate.ValidationError, AssertionError)):
        validate(broken)


def test_a_misspelt_field_in_a_ray_pod_is_caught() -> None:
    broken = deepcopy(of_kind("RayCluster")["reneg"])
    broken["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(broken)


def test_the_kustomization_applies_every_file_but_the_secrets_template() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert set(listed) == files - {"kustomization.yaml", "secret.example.yaml"}


def test_no_pod_runs_as_root_writes_its_image_or_gains_rights() -> None:
    for name, pod in pods():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == 10001, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["spec"]["containers"]:
            inner = container["securityContext"]
            assert inner["readOnlyRootFilesystem"] is True, name
            assert inner["allowPrivilegeEscalation"] is False, name
            assert inner["capabilities"] == {"drop": ["ALL"]}, name
            written = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/home/reneg", "/tmp"} <= written, name
        if name != "head":  # the autoscaler beside it asks Kubernetes for pods
            assert pod["spec"]["automountServiceAccountToken"] is False, name


def test_every_container_says_what_it_needs_and_has_time_to_stop() -> None:
    for name, pod in pods():
        assert pod["spec"]["terminationGracePeriodSeconds"] >= 30, name
        for container in pod["spec"]["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name


def test_ray_workers_are_told_to_stop_within_their_grace() -> None:
    for group in cluster()["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        (command,) = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert (ROOT / "docker" / command).exists()  # `ray stop` would kill what still has answers to write
        assert f"docker/{command}" in (ROOT / "docker" / "Dockerfile").read_text()
        assert spec["terminationGracePeriodSeconds"] >= 60


def test_no_secret_has_a_value_in_a_manifest() -> None:
    for secret in of_kind("Secret").values():
        assert set(secret["stringData"].values()) == {""}
        assert "data" not in secret
    for config in of_kind("ConfigMap").values():
        assert [name for name in config["data"] if SECRET.search(name)] == []
    for name, pod in pods():
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                assert not SECRET.search(variable["name"]) or "valueFrom" in variable, name


def test_every_secret_and_setting_that_is_asked_for_is_offered() -> None:
    offered = {"secretRef": of_kind("Secret"), "configMapRef": of_kind("ConfigMap")}
    for _, pod in pods():
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom", []):
                for kind, named in source.items():
                    assert named["name"] in offered[kind]
    token = of_kind("Secret")[cluster()["authOptions"]["secretName"]]
    assert list(token["stringData"]) == ["auth_token"]
    assert set(of_kind("ConfigMap")["reneg"]["data"]) >= {"RENEG_STORE", "RAY_ADDRESS", "PREFECT_API_URL"}


def test_each_pod_gets_the_secrets_that_it_needs() -> None:
    given = {
        name: {
            variable
            for container in pod["spec"]["containers"]
            for source in container.get("envFrom", [])
            if "secretRef" in source
            for variable in of_kind("Secret")[source["secretRef"]["name"]]["stringData"]
        }
        for name, pod in pods()
    }
    tasks = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"}
    assert given == {
        "prefect": {"PREFECT_SERVER_DATABASE_PASSWORD", "PREFECT_SERVER_API_AUTH_STRING"},
        "head": set(),
        "cpu": tasks,
        "gpu": tasks,
        "reneg": tasks | {"PREFECT_API_AUTH_STRING", "RENEG_WEBHOOK"},
    }
    addresses = of_kind("ConfigMap")["reneg-tasks"]["data"]
    assert not any(name.startswith(("PREFECT_", "RAY_")) for name in addresses)


def test_only_the_pod_of_reneg_serve_reaches_prefect() -> None:
    (rule,) = of_kind("NetworkPolicy")["prefect"]["spec"]["ingress"]
    (allowed,) = rule["from"]
    wanted = allowed["podSelector"]["matchLabels"]
    matching = [name for name, pod in pods() if wanted.items() <= pod["metadata"]["labels"].items()]
    assert (wanted, matching) == ({"app": "reneg"}, ["reneg"])


def test_a_new_image_replaces_every_pod() -> None:
    assert cluster()["upgradeStrategy"] == {"type": "Recreate"}
    assert {d["spec"]["strategy"]["type"] for d in of_kind("Deployment").values()} == {"Recreate"}
    wrong = deepcopy(of_kind("RayCluster")["reneg"])
    wrong["spec"]["upgradeStrategy"] = {"type": "RollingUpdate"}
    with pytest.raises(AssertionError):
        validate(wrong)


def test_the_pod_of_reneg_serve_is_asked_whether_the_head_knows_its_node_longer_than_a_rejoin_takes() -> None:
    (container,) = of_kind("Deployment")["reneg"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "with-ray"
    for probe in (container["startupProbe"], container["livenessProbe"]):
        assert probe["exec"] == {"command": ["with-ray", "--check"]}
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 240


def test_the_versions_are_those_of_the_pins() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert cluster()["rayVersion"] == pinned("ray") == pinned("ray", "gpu.txt")
    for name, pod in pods():
        device = "gpu" if name == "gpu" else "cpu"
        assert {container["image"] for container in pod["spec"]["containers"]} == {f"reneg:{version}-{device}"}


def test_gpu_workers_come_when_asked_for_and_the_head_computes_nothing() -> None:
    groups = {group["groupName"]: group for group in cluster()["workerGroupSpecs"]}
    assert cluster()["enableInTreeAutoscaling"] is True
    assert cluster()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert groups["gpu"]["minReplicas"] == 0
    limits = groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    for group in groups.values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_nothing_comes_in_but_what_a_policy_names() -> None:
    policies = of_kind("NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    for name, policy in policies.items():
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], f"{name} lets everybody in"
    labels = {name: pod["metadata"]["labels"] for name, pod in pods()}
    assert all(labels[name].get("ray-node") == "true" for name in ("head", "cpu", "gpu", "reneg"))
    ports = {port["containerPort"] for port in cluster()["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]}
    scraped = cluster()["headGroupSpec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
    assert {8080, 8265} <= ports
    assert int(scraped) == 8080


def test_the_head_service_has_the_name_that_ray_address_uses() -> None:
    host, _, port = of_kind("ConfigMap")["reneg"]["data"]["RAY_ADDRESS"].partition(":")
    assert host == f"{next(iter(of_kind('RayCluster')))}-head-svc"
    assert re.fullmatch(r"6379", port)
