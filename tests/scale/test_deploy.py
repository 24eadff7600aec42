"""What lies in deploy/ is well formed, and its commands are ours. Nothing is built here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.commands import probe, serve, upscale
from runtime.serving import metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TRITON = {"nv_inference_queue_duration_us", "nv_inference_request_success"}
"""Triton's own counters, as its page on metrics lists them."""
PARSERS = {"serve": serve.parser, "probe": probe.parser, "upscale": upscale.parser}


def documents() -> list[dict]:
    yaml = pytest.importorskip("yaml", reason="needs the extra test-serve")
    found = [each for path in sorted(DEPLOY.rglob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    assert {each["kind"] for each in found} == {"Deployment", "Service", "Job"}
    return found


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.triton"])
def test_dockerfiles(name):
    program = Path(sys.executable).parent / "hadolint"
    if not program.is_file():
        pytest.skip("needs the extra test-serve")
    result = subprocess.run([program, DEPLOY / name], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_manifests_follow_the_schema():
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the extra test-serve")
    for document in documents():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_misspelt_probe_is_found():
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the extra test-serve")
    (deployment,) = (each for each in documents() if each["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["livnessProbe"] = container.pop("livenessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


def test_commands_are_ours():
    checked = set()
    for document in documents():
        for container in document["spec"].get("template", {}).get("spec", {}).get("containers", []):
            commands = [container["args"]]
            if container.get("command") == ["sh", "-c"]:
                commands = [shlex.split(container["args"][0].removeprefix("exec ignn "))]
            if "livenessProbe" in container:
                commands.append(container["livenessProbe"]["exec"]["command"][1:])
            for name, *arguments in commands:
                PARSERS[name]().parse_args(arguments)
                checked.add(name)
    assert checked == set(PARSERS)


def test_the_job_has_as_many_shards_as_completions():
    (job,) = (each["spec"] for each in documents() if each["kind"] == "Job")
    assert f"$JOB_COMPLETION_INDEX/{job['completions']}" in job["template"]["spec"]["containers"][0]["args"][0]


def test_nothing_runs_as_root_or_writes_to_its_root():
    for document in documents():
        pod = document["spec"].get("template", {}).get("spec")
        if pod is not None:
            assert pod["securityContext"]["runAsNonRoot"]
            assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in pod["containers"])


def test_the_dashboard_asks_for_metrics_that_exist():
    """Its panels have what Grafana needs, and ask for counters that our code or Triton makes."""
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 36
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) >= 6
    serving = Path(metrics.__file__).parent
    code = "".join((serving / name).read_text() for name in ("metrics.py", "model.py"))
    ours = set(re.findall(r'counter\("(\w+)"', code)) | set(re.findall(r'"ignn_(\w+)_total"', code))
    asked = set()
    for panel in dashboard["panels"]:
        assert panel["type"] == "timeseries"
        assert set(panel["gridPos"]) == {"h", "w", "x", "y"}
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")
            asked |= set(re.findall(r"\b(?:ignn|nv)_\w+", target["expr"]))
    named = {name.removeprefix("ignn_").removesuffix("_total") for name in asked if name.startswith("ignn_")}
    assert named == ours
    assert asked - {f"ignn_{name}_total" for name in named} <= TRITON
