"""Every overlay renders, fits the schemas of Kubernetes, and keeps to every policy."""

import re
import subprocess
from copy import deepcopy

import jsonschema
import kubernetes_validate
import pytest
import yaml
from policies import POLICIES
from rendered import DEPLOY, VARIANTS, Rendered, documents, render, why_not
from validate import NEWEST, OLDEST, check

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module", params=VARIANTS)
def rendered(request) -> Rendered:
    return render(request.param)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_fits_its_schema(rendered, version):
    for document in rendered.documents:
        check(document, version)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_kept(rendered, policy):
    assert list(POLICIES[policy](rendered)) == []


def test_overlays_are_all_rendered():
    folders = {path.name for path in (DEPLOY / "overlays").iterdir()}
    assert {overlay for overlay, _ in VARIANTS.values()} == folders
    used = {name for _, components in VARIANTS.values() for name in components}
    texts = "".join(path.read_text() for path in (DEPLOY / "overlays").glob("*/*.yaml"))
    for component in (DEPLOY / "components").iterdir():
        assert component.name in used or f"\n  - ../../components/{component.name}\n" in texts


def test_the_newest_version_is_the_newest_known():
    assert kubernetes_validate.latest_version().startswith(NEWEST)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("Deployment", "replica"), ("Service", "targetport"), ("ScaledObject", "maxReplicas"),
     ("HTTPRoute", "timeout"), ("ServiceMonitor", "port")],
)  # fmt: skip
def test_unknown_fields_fail(kind, key):
    document = deepcopy(render("gpu").one(kind))
    document["spec"][key] = 1
    with pytest.raises(jsonschema.ValidationError, match=key):
        check(document, NEWEST)


def test_before_the_oldest_version_a_pod_cannot_sleep():
    with pytest.raises(jsonschema.ValidationError, match="sleep"):
        check(render("gpu").one("Deployment"), "1.28")


def test_alerts_become_an_object_with_the_same_rules():
    script = DEPLOY / "observability/prometheus-rule.sh"
    printed = subprocess.run([script], capture_output=True, text=True, check=True).stdout
    rule = yaml.safe_load(printed)
    check(rule, NEWEST)
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load((DEPLOY / "observability/alerts.yml").read_text())


def test_the_readme_names_what_there_is():
    text = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"`((?:overlays|components)/[\w-]+)`", text))
    folders = [*(DEPLOY / "overlays").iterdir(), *(DEPLOY / "components").iterdir()]
    assert named == {str(folder.relative_to(DEPLOY)) for folder in folders}
    for path in re.findall(r"(?:-[kf] |^)(deploy/\S+)", text, re.MULTILINE):
        assert (DEPLOY.parent / path).exists(), path


def test_the_overlay_that_the_readme_shows_is_one(tmp_path):
    text = (DEPLOY / "README.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "loss-scoring").symlink_to(DEPLOY.parent)
    (tmp_path / "mine/kustomization.yaml").write_text(shown)
    rendered = Rendered(documents(tmp_path / "mine"))
    for document in rendered.documents:
        check(document, NEWEST)
    assert rendered.container["image"] == "registry.mine/loss-scoring:0.1.0-cuda"
    assert rendered.environment["LOSS_SCORING_FRONTENDS"] == "8"
    assert list(POLICIES["memory suffices"](rendered)), "as the page says"
    others = POLICIES.keys() - {"memory suffices"}
    assert [one for name in others for one in POLICIES[name](rendered)] == []


def test_the_resource_of_each_gpu_overlay():
    def asked(variant):
        limits = render(variant).container["resources"]["limits"]
        return [name for name in limits if name.startswith("nvidia.com/")]

    assert asked("gpu") == ["nvidia.com/gpu"]
    assert asked("gpu-shared") == ["nvidia.com/mig-1g.10gb"]
    assert asked("gpu-shared in time") == ["nvidia.com/gpu.shared"]
    assert asked("cpu") == []
