"""What kubectl makes of the overlays, and how to find one's way in it."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBECTL = shutil.which("kubectl")
Document = dict[str, Any]

VARIANTS: Mapping[str, tuple[str, Sequence[str]]] = {
    "cpu": ("cpu", ()),
    "gpu": ("gpu", ()),
    "gpu-shared": ("gpu-shared", ()),
    "cpu behind NGINX": ("cpu", ["+gateway-nginx"]),
    "gpu behind Cilium": ("gpu", ["+gateway-cilium"]),
    "gpu without a spare": ("gpu", ["+no-spare-gpu"]),
    "gpu-shared in time": ("gpu-shared", ["-mig", "+time-sliced"]),
    "kserve": ("kserve", ()),
}
"""Each overlay as it is, then with other components: overlay, what is added to its list or left out."""


@dataclass(frozen=True)
class Rendered:
    """The objects of one variant."""

    documents: Sequence[Document]

    def all(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str) -> Document:
        (found,) = self.all(kind)
        return found

    @property
    def pod(self) -> Document:
        if not self.all("Deployment"):
            return _made_by_kserve(self.one("InferenceService"), self.one("ServingRuntime"))
        return self.one("Deployment")["spec"]["template"]

    @property
    def container(self) -> Document:
        (found,) = self.pod["spec"]["containers"]
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What the container sees of its ConfigMaps and its own variables."""
        maps = {one["metadata"]["name"]: one["data"] for one in self.all("ConfigMap")}
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            found |= maps.get(source["configMapRef"]["name"], {})
        return found | {one["name"]: one["value"] for one in self.container.get("env", [])}


def _made_by_kserve(service: Document, runtime: Document) -> Document:
    """Return a pod as KServe makes it: containers of the runtime, the rest of the predictor."""
    predictor, own = service["spec"]["predictor"], {"labels", "minReplicas", "model"}
    spec = {key: value for key, value in predictor.items() if key not in own}
    return {
        "metadata": {"labels": predictor["labels"]},
        "spec": {**spec, "containers": runtime["spec"]["containers"]},
    }


@cache
def why_not() -> str | None:
    """Return why nothing can be rendered here, if so."""
    if KUBECTL is None:
        return "kubectl is not installed"
    done = subprocess.run(
        [KUBECTL, "version", "--client", "-o", "json"], capture_output=True, text=True, check=False
    )
    said = json.loads(done.stdout) if done.returncode == 0 else {}
    version = said.get("kustomizeVersion", "none that it tells of")
    if not version.startswith(
        "v5"
    ):  # Debian 12 has kubectl 1.20, whose Kustomize has no components
        return f"kubectl has Kustomize {version}, v5 is needed"
    return None


def skips() -> bool:
    """Return whether tests that render may be skipped; in CI, and for ``.ci/run``, they fail instead."""
    strict = any(os.environ.get(name) for name in ("CI", "NEEDS_KUBECTL"))
    return why_not() is not None and not strict


@cache
def render(variant: str) -> Rendered:
    """Return what ``kubectl kustomize`` makes of a variant; not to be changed."""
    return with_changes(*VARIANTS[variant])


def with_changes(overlay: str, changes: Sequence[str]) -> Rendered:
    """Return what it makes of an overlay whose list of components has been changed."""
    with TemporaryDirectory() as beside:
        copy = Path(beside).resolve() / "deploy"
        shutil.copytree(DEPLOY, copy)
        file = copy / "overlays" / overlay / "kustomization.yaml"
        text = yaml.safe_load(file.read_text())
        listed = {Path(path).name: path for path in text["components"]}
        for change in changes:
            if change.startswith("+"):
                listed[change[1:]] = f"../../components/{change[1:]}"
            else:
                del listed[change[1:]]
        file.write_text(yaml.safe_dump(text | {"components": list(listed.values())}))
        return Rendered(documents(file.parent if changes else DEPLOY / "overlays" / overlay))


def documents(folder: Path) -> list[Document]:
    """Return what ``kubectl kustomize`` makes of a folder."""
    assert not why_not(), why_not()
    done = subprocess.run(
        [KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # deprecations come as warnings
    return list(yaml.safe_load_all(done.stdout))
