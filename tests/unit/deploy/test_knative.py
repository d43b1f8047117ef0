"""deploy/knative keeps every rule, and every rule can be broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.unit.deploy import knative_rules as knative
from tests.unit.deploy import proxy_rules as ours
from tests.unit.deploy.knative_folder import read_folder
from tests.unit.deploy.knative_rules import Rule

RULES = (*knative.RULES, *ours.RULES)

FOLDER = Path(__file__).parents[3] / "deploy" / "knative"

_IN = "\n            "  # the next line, indented as a container's inner fields are
_MISPLACED = "  annotations: {autoscaling.knative.dev/target: '1'}\n  labels:"
#: A rule, the file to damage, the text that stands there, and what it becomes: an edit as a tired person makes it.
BREAKAGES: tuple[tuple[Rule, str, str, str], ...] = (
    (knative.files_exist, "kustomization.yaml", "- namereference.yaml", "- namereferences.yaml"),
    (knative.files_exist, "kustomization.yaml", "      - mlproxy.yaml", "      - proxy-config.yaml"),
    (knative.fields_are_known, "proxy.yaml", "timeoutSeconds: 60", "timeoutSecond: 60"),
    (knative.fields_are_known, "model.yaml", "securityContext:", "securityContexts:"),
    (knative.annotations_are_strings, "proxy.yaml", 'min-scale: "1"', "min-scale: 1"),
    (knative.annotations_are_strings, "proxy.yaml", 'scrape: "true"', "scrape: true"),
    (knative.autoscaling_is_valid, "proxy.yaml", 'target-burst-capacity: "0"', 'target-burst-capacity: "-2"'),
    (knative.autoscaling_is_valid, "proxy.yaml", "dev/min-scale", "dev/minimum-scale"),
    (knative.autoscaling_is_valid, "model.yaml", "metric: concurrency", "metric: requests"),
    (knative.autoscaling_is_valid, "model.yaml", 'dev/max-scale: "4"', 'dev/window: "5s"'),
    (knative.autoscaling_is_valid, "model.yaml", 'max-scale: "4"', 'max-scale: "many"'),
    (knative.autoscaling_is_valid, "proxy.yaml", "  labels:", _MISPLACED),
    (knative.scale_bounds_are_ordered, "model.yaml", 'min-scale: "1"', 'min-scale: "5"'),
    (knative.one_container_has_one_port, "proxy.yaml", "containerPort: 8080", "containerPort: 8012"),
    (knative.one_container_has_one_port, "proxy.yaml", "- name: http1", "- name: web"),
    (knative.one_container_has_one_port, "proxy.yaml", "ports:", f"ports:{_IN}- containerPort: 1"),
    (knative.one_container_has_one_port, "model.yaml", "ports:", "env:"),
    (knative.environment_is_not_reserved, "proxy.yaml", "- name: MLPROXY_CONFIG", "- name: PORT"),
    (knative.environment_is_not_reserved, "proxy.yaml", "- name: MLPROXY_CONFIG", "- name: K_SERVICE"),
    (knative.probes_are_knatives, "proxy.yaml", "readinessProbe:", f"readinessProbe:{_IN}periodSeconds: 5"),
    (knative.probes_are_knatives, "model.yaml", "readinessProbe:", f"readinessProbe:{_IN}failureThreshold: 2"),
    (knative.probes_are_knatives, "proxy.yaml", "path: /healthz", f"path: /healthz{_IN}  port: 8081"),
    (ours.proxy_probes_its_health, "proxy.yaml", "path: /readyz", "path: /v1/models/iris"),
    (ours.proxy_probes_its_health, "proxy.yaml", "livenessProbe:", "startupProbe:"),
    (knative.timeout_outlasts_draining, "model.yaml", "timeoutSeconds: 60", "timeoutSeconds: 30"),
    (ours.drain_fits_the_timeout, "mlproxy.yaml", "drain_timeout: 20s", "drain_timeout: 30s"),
    (knative.containers_are_confined, "proxy.yaml", "runAsUser: 65532", "runAsUser: 0"),
    (knative.containers_are_confined, "proxy.yaml", "runAsNonRoot: true", "runAsNonRoot: false"),
    (knative.containers_are_confined, "model.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    (knative.containers_are_confined, "model.yaml", "drop: [ALL]", "drop: [NET_RAW]"),
    (knative.containers_are_confined, "proxy.yaml", "enableServiceLinks: false", "enableServiceLinks: true"),
    (knative.containers_are_confined, "model.yaml", "      automountServiceAccountToken: false\n", ""),
    (knative.mounts_are_volumes, "proxy.yaml", "- name: tmp\n          empty", "- name: temporary\n          empty"),
    (knative.mounts_are_volumes, "proxy.yaml", "mountPath: /etc/mlproxy", "mountPath: /dev"),
    (knative.mounts_are_volumes, "proxy.yaml", "mountPath: /etc/mlproxy", "mountPath: /"),
    (knative.mounts_are_volumes, "model.yaml", "mountPath: /tmp", "mountPath: /var/tmp"),
    (knative.resources_are_guaranteed, "proxy.yaml", 'requests: {cpu: "2"', 'requests: {cpu: "1"'),
    (knative.resources_are_guaranteed, "proxy.yaml", 'cpu: "2"', "cpu: 1500m"),
    (knative.resources_are_guaranteed, "model.yaml", "            limits:", "            limit:"),
    (ours.proxy_is_one, "proxy.yaml", 'min-scale: "1"', 'min-scale: "0"'),
    (ours.proxy_is_one, "proxy.yaml", "containerConcurrency: 0", "containerConcurrency: 80"),
    (ours.models_are_cluster_local, "model.yaml", "visibility: cluster-local", "visibility: external"),
    (ours.proxy_image_is_a_placeholder, "proxy.yaml", "image: mlproxy", "image: localhost/mlproxy"),
    (ours.proxy_image_is_a_placeholder, "kustomization.yaml", "newTag: 0.1.0", "newTag: latest"),
    (ours.configuration_loads, "mlproxy.yaml", "max_size: 32", "max_sizes: 32"),
    (ours.configuration_loads, "mlproxy.yaml", "timeout: 5s", "timeout: 5"),
    (ours.configuration_loads, "proxy.yaml", "value: /etc/mlproxy/mlproxy.yaml", "value: /etc/mlproxy.yaml"),
    (ours.configuration_loads, "kustomization.yaml", "  - name: mlproxy\n    files", "  - name: settings\n    files"),
    (ours.backend_is_a_service, "kustomization.yaml", "namespace: default", "namespace: models"),
    (ours.backend_is_a_service, "model.yaml", "name: iris\n", "name: flowers\n"),
    (ours.backend_is_a_service, "mlproxy.yaml", "max_scale: 4", "max_scale: 5"),
    (ours.backend_is_a_service, "model.yaml", 'max-scale: "4"', 'target: "2"'),
    (ours.backend_is_a_service, "model.yaml", "containerConcurrency: 1", "containerConcurrency: 2"),
    (ours.admin_port_is_scraped, "proxy.yaml", 'port: "8081"', 'port: "9091"'),
    (ours.admin_port_is_scraped, "mlproxy.yaml", "host: 0.0.0.0", "host: 127.0.0.1"),
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_shipped_folder_keeps_the_rule(rule: Rule) -> None:
    assert list(rule(read_folder(FOLDER))) == []


@pytest.mark.parametrize(
    ("rule", "file", "before", "after"), BREAKAGES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_broken_copy_breaks_the_rule(rule: Rule, file: str, before: str, after: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "knative"))
    text = (copy / file).read_text()
    assert before in text
    (copy / file).write_text(text.replace(before, after))
    assert list(rule(read_folder(copy))) != []


def test_every_rule_has_a_breakage() -> None:
    assert {rule for rule, *_ in BREAKAGES} == set(RULES)


def test_every_service_of_the_folder_is_read() -> None:
    assert {service["metadata"]["name"] for service in read_folder(FOLDER).services} == {"mlproxy", "iris"}
    assert all(service["apiVersion"] == "serving.knative.dev/v1" for service in read_folder(FOLDER).services)


def test_the_generated_name_reaches_the_volume() -> None:
    """kustomize appends a hash to the ConfigMap's name; without a name reference the pod would wait for ever."""
    reference = yaml.safe_load((FOLDER / "namereference.yaml").read_text())["nameReference"][0]
    assert reference["kind"] == "ConfigMap"
    assert reference["fieldSpecs"] == [
        {"group": "serving.knative.dev", "kind": "Service", "path": "spec/template/spec/volumes/configMap/name"}
    ]
