"""What Knative's webhooks, and good sense, ask of the manifests; the CRD's schema knows none of it. **Pure**, but for
`files_exist`, which looks at the folder.

A rule takes the folder and yields a sentence per finding. Names, ports and ranges are those of Knative Serving 1.8 to
1.23 (its runtime contract and ``config-autoscaler``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.unit.deploy.knative_folder import KnativeFolder

Rule = Callable[[KnativeFolder], Iterator[str]]
AUTOSCALING = "autoscaling.knative.dev/"
RESERVED_VARIABLES = {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}
RESERVED_PORTS = {8008, 8012, 8013, 8022, 9090, 9091}
RESERVED_MOUNTS = {"/", "/dev", "/dev/log"}
SHORTEST_TIMEOUT_S = 45
#: What a readiness probe without a period must not have.
_AGGRESSIVE_PROBE_EXCLUDES = ("timeoutSeconds", "failureThreshold")

_NUMBERS: dict[str, tuple[float, float]] = {
    "min-scale": (0, 1000), "max-scale": (0, 1000), "initial-scale": (0, 1000), "activation-scale": (2, 1000),
    "target": (0.01, 1e6), "target-utilization-percentage": (1, 100), "panic-window-percentage": (1, 100),
    "panic-threshold-percentage": (110, 1000), "target-burst-capacity": (-1, 1e6),
}  # fmt: skip
_DURATIONS_S = {"window": (6, 3600), "scale-down-delay": (0, 3600), "scale-to-zero-pod-retention-period": (0, 3600)}
_WORDS = {
    "class": {"kpa.autoscaling.knative.dev", "hpa.autoscaling.knative.dev"},
    "metric": {"concurrency", "rps", "cpu", "memory"},
    "metric-aggregation-algorithm": {"linear", "weighted-exponential"},
}
_SPEC_FIELDS = {
    "containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds",
    "enableServiceLinks", "automountServiceAccountToken", "serviceAccountName", "imagePullSecrets", "containers",
    "volumes",
}  # fmt: skip
_CONTAINER_FIELDS = {
    "name", "image", "imagePullPolicy", "command", "args", "workingDir", "env", "envFrom", "ports", "readinessProbe",
    "livenessProbe", "startupProbe", "resources", "securityContext", "volumeMounts",
}  # fmt: skip


def files_exist(folder: KnativeFolder) -> Iterator[str]:
    """Everything that the kustomization names is there."""
    kustomization = folder.kustomization
    generated = [name for generator in kustomization.get("configMapGenerator", ()) for name in generator["files"]]
    for name in [*kustomization["resources"], *generated, *kustomization.get("configurations", ())]:
        if not (folder.path / name).is_file():
            yield f"kustomization.yaml names {name}, which is not there"


def fields_are_known(folder: KnativeFolder) -> Iterator[str]:
    """No misspelt field: without strict validation the API server drops it with a warning."""
    for name, revision in folder.revisions():
        for field in revision.keys() - _SPEC_FIELDS:
            yield f"{name}: Knative has no spec.template.spec.{field}"
    for name, container in folder.containers():
        for field in container.keys() - _CONTAINER_FIELDS:
            yield f"{name}: Knative has no containers[].{field}"


def annotations_are_strings(folder: KnativeFolder) -> Iterator[str]:
    """YAML's unquoted 1 and true are no strings."""
    for name, given in folder.annotations():
        for key, value in given.items():
            if not isinstance(value, str):
                yield f"{name}: {key} must be quoted, it is {value!r}"


def autoscaling_is_valid(folder: KnativeFolder) -> Iterator[str]:
    """Known annotations with values in range, on the template."""
    for name, given in folder.annotations():
        for key, value in given.items():
            if key.startswith(AUTOSCALING) and not _is_valid(key.removeprefix(AUTOSCALING), str(value)):
                yield f"{name}: {key}: {value!r} is not valid"
    for service in folder.services:
        misplaced = [key for key in service["metadata"].get("annotations", {}) if key.startswith(AUTOSCALING)]
        if misplaced:
            yield f"{service['metadata']['name']}: {misplaced} must stand in spec.template.metadata"


def _is_valid(key: str, value: str) -> bool:
    if key in _WORDS:
        return value in _WORDS[key]
    if key not in _NUMBERS and key not in _DURATIONS_S:
        return False
    low, high = _NUMBERS.get(key) or _DURATIONS_S[key]
    try:
        return low <= float(value.removesuffix("s") if key in _DURATIONS_S else value) <= high
    except ValueError:
        return False


def scale_bounds_are_ordered(folder: KnativeFolder) -> Iterator[str]:
    """min-scale at most max-scale, where 0 means no bound."""
    for name, given in folder.annotations():
        low, high = (int(given.get(f"{AUTOSCALING}{key}-scale", 0)) for key in ("min", "max"))
        if high and low > high:
            yield f"{name}: min-scale {low} exceeds max-scale {high}"


def one_container_has_one_port(folder: KnativeFolder) -> Iterator[str]:
    """Exactly one container declares a port, one, which is nobody else's."""
    for name, revision in folder.revisions():
        ports = [port for container in revision["containers"] for port in container.get("ports", ())]
        if len(ports) != 1:
            yield f"{name}: exactly one port must be declared, not {len(ports)}"
        for port in ports:
            if port["containerPort"] in RESERVED_PORTS:
                yield f"{name}: port {port['containerPort']} is Knative's own"
            if port.get("name", "") not in ("", "http1", "h2c"):
                yield f"{name}: a port is named http1 or h2c, not {port['name']}"


def environment_is_not_reserved(folder: KnativeFolder) -> Iterator[str]:
    """PORT and K_* are Knative's to set."""
    for name, container in folder.containers():
        for variable in container.get("env", ()):
            if variable["name"] in RESERVED_VARIABLES:
                yield f"{name}: {variable['name']} is set by Knative"


def probes_are_knatives(folder: KnativeFolder) -> Iterator[str]:
    """Readiness without a period (Knative then asks every 50 ms) nor fields that need one; on the own port only."""
    for name, container in folder.containers():
        readiness = container.get("readinessProbe", {})
        if readiness.get("periodSeconds"):
            yield f"{name}: a readiness period slows cold starts down"
        elif any(readiness.get(field) for field in _AGGRESSIVE_PROBE_EXCLUDES):
            yield f"{name}: {_AGGRESSIVE_PROBE_EXCLUDES} need a periodSeconds"
        for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
            port = container.get(kind, {}).get("httpGet", {}).get("port")
            if port not in (None, 0, *(port["containerPort"] for port in container.get("ports", ()))):
                yield f"{name}: {kind} asks port {port}, which the container does not declare"


def timeout_outlasts_draining(folder: KnativeFolder) -> Iterator[str]:
    """Time for the 30 s of quiet and the drain after them, before SIGKILL."""
    for name, revision in folder.revisions():
        if revision.get("timeoutSeconds", 300) < SHORTEST_TIMEOUT_S:
            yield f"{name}: with less than {SHORTEST_TIMEOUT_S} timeoutSeconds a pod is killed while it drains"


def containers_are_confined(folder: KnativeFolder) -> Iterator[str]:
    """Not root, nothing to write on, nothing to gain, no token, no variables from other Services."""
    wanted = {
        "runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    for name, container in folder.containers():
        context = container.get("securityContext", {})
        for field, value in wanted.items():
            if context.get(field) != value:
                yield f"{name}: securityContext.{field} must be {value}"
        if not context.get("runAsUser"):
            yield f"{name}: securityContext.runAsUser must be a number other than root's"
    for name, revision in folder.revisions():
        for field in ("enableServiceLinks", "automountServiceAccountToken"):
            if revision.get(field) is not False:
                yield f"{name}: {field} must be false"


def mounts_are_volumes(folder: KnativeFolder) -> Iterator[str]:
    """Each mount has its volume, each volume its mount, no path is reserved; /tmp is writable."""
    for name, revision in folder.revisions():
        volumes = {volume["name"]: volume for volume in revision.get("volumes", ())}
        mounts = [mount for container in revision["containers"] for mount in container.get("volumeMounts", ())]
        for missing in volumes.keys() ^ {mount["name"] for mount in mounts}:
            yield f"{name}: {missing} is a volume without a mount or a mount without a volume"
        for mount in mounts:
            if mount["mountPath"].rstrip("/") in {path.rstrip("/") for path in RESERVED_MOUNTS}:
                yield f"{name}: {mount['mountPath']} is reserved"
        if not any(mount["mountPath"] == "/tmp" and "emptyDir" in volumes.get(mount["name"], {}) for mount in mounts):
            yield f"{name}: with a read-only root file system, /tmp must be an emptyDir"


def resources_are_guaranteed(folder: KnativeFolder) -> Iterator[str]:
    """Requests equal limits, in whole CPUs: ``workers: auto`` counts the quota, and a shared fraction is throttled."""
    for name, container in folder.containers():
        resources = container.get("resources", {})
        limits = resources.get("limits", {})
        if resources.get("requests") != limits or limits.keys() != {"cpu", "memory"}:
            yield f"{name}: requests and limits of cpu and memory must be there and equal"
        elif not str(limits["cpu"]).isdecimal():
            yield f"{name}: cpu must be whole"


RULES: tuple[Rule, ...] = (
    files_exist, fields_are_known, annotations_are_strings, autoscaling_is_valid, scale_bounds_are_ordered,
    one_container_has_one_port, environment_is_not_reserved, probes_are_knatives, timeout_outlasts_draining,
    containers_are_confined, mounts_are_volumes, resources_are_guaranteed,
)  # fmt: skip
