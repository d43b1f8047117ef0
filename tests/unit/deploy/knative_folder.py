"""A folder with a kustomization of Knative Services, read into values. **Effects** only in `read_folder`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Mapping = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KnativeFolder:
    """What stands in the files, by file name where it matters."""

    path: Path
    kustomization: Mapping
    services: tuple[Mapping, ...]

    def service(self, name: str) -> Mapping:
        """The Service with this name."""
        return next(service for service in self.services if service["metadata"]["name"] == name)

    def revisions(self) -> Iterator[tuple[str, Mapping]]:
        """Each Service's name and revision spec."""
        for service in self.services:
            yield service["metadata"]["name"], service["spec"]["template"]["spec"]

    def containers(self) -> Iterator[tuple[str, Mapping]]:
        """Each container of each Service, with the Service's name."""
        for name, revision in self.revisions():
            for container in revision["containers"]:
                yield name, container

    def annotations(self) -> Iterator[tuple[str, Mapping]]:
        """Each Service's name and its template's annotations."""
        for service in self.services:
            metadata = service["spec"]["template"].get("metadata", {})
            yield service["metadata"]["name"], metadata.get("annotations", {})


def read_folder(path: Path) -> KnativeFolder:
    """Read the kustomization and every resource that it names and that is there."""
    kustomization = yaml.safe_load((path / "kustomization.yaml").read_text())
    files = [path / name for name in kustomization["resources"] if (path / name).exists()]
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return KnativeFolder(path, kustomization, tuple(documents))
