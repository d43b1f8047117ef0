"""What the proxy asks of its own deployment, beyond what Knative asks of any. **Effects**: reads mlproxy.yaml.

As in `knative_rules`, a rule takes the folder and yields a sentence per finding.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlproxy.config import Configuration, Scaling
from mlproxy.config.load import load_configuration
from mlproxy.errors import ConfigurationError
from mlproxy.units import NS_PER_S
from tests.unit.deploy.knative_folder import KnativeFolder, Mapping
from tests.unit.deploy.knative_rules import AUTOSCALING, RESERVED_PORTS, Rule

#: A pod gets SIGTERM only when it has had no request for 30 s, and SIGKILL at timeoutSeconds.
QUIET_S = 30


def proxy_probes_its_health(folder: KnativeFolder) -> Iterator[str]:
    """The proxy's own routes, which never depend on the backend: it may be at zero."""
    container = _proxy_container(folder)
    for kind, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        if container.get(kind, {}).get("httpGet", {}).get("path") != path:
            yield f"mlproxy: {kind} must get {path}"


def drain_fits_the_timeout(folder: KnativeFolder) -> Iterator[str]:
    """After the 30 s of quiet there is time for the whole drain before SIGKILL."""
    timeout_s = _proxy_revision(folder).get("timeoutSeconds", 300)
    drain_s = _configuration(folder).server.drain_timeout_ns / NS_PER_S
    if QUIET_S + drain_s >= timeout_s:
        yield f"mlproxy: {QUIET_S} s of quiet and a drain of {drain_s:g} s leave nothing of {timeout_s} timeoutSeconds"


def proxy_is_one(folder: KnativeFolder) -> Iterator[str]:
    """One pod, always, without the activator and without a concurrency limit in front of it."""
    annotations = dict(folder.annotations())["mlproxy"]
    for key, value in (("min-scale", "1"), ("max-scale", "1"), ("target-burst-capacity", "0")):
        if annotations.get(AUTOSCALING + key) != value:
            yield f"mlproxy: {key} must be {value}"
    if _proxy_revision(folder).get("containerConcurrency") != 0:
        yield "mlproxy: containerConcurrency must be 0; the proxy bounds its queues itself"


def models_are_cluster_local(folder: KnativeFolder) -> Iterator[str]:
    """Only the proxy is reached from outside."""
    for service in folder.services:
        metadata = service["metadata"]
        visibility = metadata.get("labels", {}).get("networking.knative.dev/visibility")
        if metadata["name"] != "mlproxy" and visibility != "cluster-local":
            yield f"{metadata['name']}: must be cluster-local"


def proxy_image_is_a_placeholder(folder: KnativeFolder) -> Iterator[str]:
    """proxy.yaml says `mlproxy`, kustomization.yaml says where that is, with a tag that means one build."""
    image = _proxy_container(folder)["image"]
    given = {entry["name"]: entry for entry in folder.kustomization.get("images", ())}
    if image not in given:
        yield f"mlproxy: the image {image} is none of kustomization.yaml's images"
    elif given[image].get("newTag", "latest") == "latest" and "digest" not in given[image]:
        yield f"mlproxy: the image {image} needs a tag other than latest, or a digest"


def configuration_loads(folder: KnativeFolder) -> Iterator[str]:
    """mlproxy.yaml is valid, and it is the file that MLPROXY_CONFIG means."""
    try:
        load_configuration(folder.path / "mlproxy.yaml", {"PORT": "8080"}, {})
    except ConfigurationError as error:
        yield from error.problems
    environment = {variable["name"]: variable.get("value") for variable in _proxy_container(folder)["env"]}
    revision = _proxy_revision(folder)
    maps = {volume["name"]: volume["configMap"]["name"] for volume in revision["volumes"] if "configMap" in volume}
    generated = {generator["name"]: generator["files"] for generator in folder.kustomization["configMapGenerator"]}
    mounted = {
        f"{mount['mountPath']}/{file}"
        for mount in _proxy_container(folder)["volumeMounts"]
        for file in generated.get(maps.get(mount["name"], ""), ())
    }
    if environment.get("MLPROXY_CONFIG") not in mounted:
        yield f"MLPROXY_CONFIG is {environment.get('MLPROXY_CONFIG')}, mounted are {sorted(mounted)}"


def backend_is_a_service(folder: KnativeFolder) -> Iterator[str]:
    """Every backend URL names a Service of this folder in this namespace, and `scaling` says what that says."""
    namespace = folder.kustomization["namespace"]
    urls = {
        f"http://{service['metadata']['name']}.{namespace}.svc.cluster.local": service for service in folder.services
    }
    for endpoint in _configuration(folder).endpoints:
        for url in endpoint.backend.urls:
            if url not in urls:
                yield f"{endpoint.name}: {url} is none of {sorted(urls)}"
            elif (said := endpoint.backend.scaling) != (scales := _scaling_of(urls[url])):
                yield f"{endpoint.name}: scaling is {said}, but its model's is {scales}"


def admin_port_is_scraped(folder: KnativeFolder) -> Iterator[str]:
    """Prometheus finds the admin port where the configuration puts it, on the pod's address."""
    admin = _configuration(folder).admin
    annotations = dict(folder.annotations())["mlproxy"]
    if annotations.get("prometheus.io/port") != str(admin.port):
        yield f"prometheus.io/port is {annotations.get('prometheus.io/port')}, admin.port is {admin.port}"
    if admin.host != "0.0.0.0" or admin.port in RESERVED_PORTS:
        yield f"the admin port {admin.host}:{admin.port} cannot be scraped"


def _scaling_of(service: Mapping) -> Scaling:
    """How the Service scales, with Knative's defaults."""
    annotations: Mapping = service["spec"]["template"]["metadata"]["annotations"]
    concurrency: int = service["spec"]["template"]["spec"].get("containerConcurrency", 0)
    return Scaling(
        kind="knative",
        target=float(annotations.get(AUTOSCALING + "target", concurrency or 100)),
        utilization=float(annotations.get(AUTOSCALING + "target-utilization-percentage", 70)) / 100,
        container_concurrency=concurrency,
        max_scale=int(annotations.get(AUTOSCALING + "max-scale", 0)),
    )


def _proxy_container(folder: KnativeFolder) -> Mapping:
    container: Mapping = _proxy_revision(folder)["containers"][0]
    return container


def _configuration(folder: KnativeFolder) -> Configuration:
    return load_configuration(folder.path / "mlproxy.yaml", {"PORT": "8080"}, {})


def _proxy_revision(folder: KnativeFolder) -> Mapping:
    revision: Mapping = folder.service("mlproxy")["spec"]["template"]["spec"]
    return revision


RULES: tuple[Rule, ...] = (
    proxy_probes_its_health, drain_fits_the_timeout, proxy_is_one, models_are_cluster_local,
    proxy_image_is_a_placeholder, configuration_loads, backend_is_a_service, admin_port_is_scraped,
)  # fmt: skip
