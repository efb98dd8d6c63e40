"""Every overlay renders, fits the schemas of Kubernetes, and keeps to every policy."""

import re
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from policies import OF_KSERVE, POLICIES
from rendered import (
    DEPLOY,
    ROOT,
    VARIANTS,
    Rendered,
    documents,
    render,
    skips,
    why_not,
    with_changes,
)
from sizes import seconds_of
from validate import NEWEST, OLDEST, check
from wiring_policies import ALERTS

PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(skips(), reason=str(why_not()))


def names(folder):
    return {path.name for path in (DEPLOY / folder).iterdir()}


@pytest.fixture(scope="module", params=VARIANTS)
def rendered(request) -> Rendered:
    return render(request.param)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_fits_its_schema(rendered, version):
    for document in rendered.documents:
        check(document, version)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_kept(rendered, policy):
    if rendered.all("InferenceService") and policy in OF_KSERVE:
        pytest.skip("KServe makes it")
    assert list(POLICIES[policy](rendered)) == []


def test_overlays_and_components_are_all_rendered():
    assert {overlay for overlay, _ in VARIANTS.values()} == names("overlays")
    used = {change[1:] for _, changes in VARIANTS.values() for change in changes}
    for file in (DEPLOY / "overlays").glob("*/kustomization.yaml"):
        used |= {Path(path).name for path in yaml.safe_load(file.read_text())["components"]}
    assert used == names("components") | {"observability"}


def test_kserve_makes_the_pods_that_the_deployment_would():
    of_kserve, plain = render("kserve"), render("cpu")
    assert of_kserve.container["name"] == "kserve-container"
    spec = {**of_kserve.pod["spec"], "containers": [{**of_kserve.container, "name": "scorer"}]}
    assert {"metadata": of_kserve.pod["metadata"], "spec": spec} == plain.pod
    pod = {"metadata": {"name": "made"}, "spec": of_kserve.pod["spec"]}
    for version in (OLDEST, NEWEST):
        check({"apiVersion": "v1", "kind": "Pod", **pod}, version)


def test_what_is_for_kserve_agrees():
    rendered = render("kserve")
    runtime, service = rendered.one("ServingRuntime"), rendered.one("InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"] in runtime["spec"]["supportedModelFormats"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    port = str(rendered.container["ports"][0]["containerPort"])
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == port
    scaler = rendered.one("ScaledObject")["spec"]
    assert scaler["scaleTargetRef"]["name"] == f"{service['metadata']['name']}-predictor"
    assert scaler["minReplicaCount"] == service["spec"]["predictor"]["minReplicas"]
    left = {document["kind"] for document in rendered.documents}
    assert not left & {"Deployment", "Service", "HTTPRoute"}


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


@pytest.mark.parametrize("overlay", sorted(names("overlays") - {"kserve"}))
def test_a_plain_cluster_needs_no_component(overlay):
    bare = with_changes(overlay, ["-gateway", "-keda", "-observability"])
    for document in bare.documents:
        assert check(document, NEWEST) == NEWEST, "a part of Kubernetes"
    assert bare.one("Deployment")["spec"]["replicas"] == 2
    for policy in ("the Service", "the network policy", "memory suffices", "the GPU"):
        assert list(POLICIES[policy](bare)) == []


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt: prometheus)")
def test_what_the_scaler_asks_is_about_all_pods(tmp_path):
    """Two pods, one with a queue of 20 Mi elements, one with half of its memory taken."""
    triggers = render("gpu").one("ScaledObject")["spec"]["triggers"]
    queries = [one["metadata"]["query"] for one in triggers if one["type"] == "prometheus"]
    pods = {
        "queued_elements": (20 << 20, 0),
        "open_bytes": (0, 512),
        "open_bytes_limit": (1024, 1024),
    }
    series = [
        {
            "series": f'loss_scoring_{name}{{job="loss-scoring",namespace="loss-scoring",pod="{i}"}}',
            "values": f"{value}x20",
        }
        for name, values in pods.items()
        for i, value in enumerate(values)
    ]
    series += [  # of another service
        {
            "series": f'loss_scoring_{name}{{job="loss-scoring",namespace="other",pod="2"}}',
            "values": "1024x20",
        }
        for name in pods
    ]
    wanted = [
        {"expr": query, "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": value}]}
        for query, value in zip(queries, (20 << 20, 0.5), strict=True)
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": wanted}
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"tests": [test]}))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", tmp_path / "test.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_what_there_is():
    text = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"`((?:overlays|components)/[\w-]+)`", text))
    assert named == {f"{one}/{name}" for one in ("overlays", "components") for name in names(one)}
    for path in re.findall(r"(?:-[kf] |^)(deploy/\S+)", text, re.MULTILINE):
        assert (DEPLOY.parent / path).exists(), path


def of_the_readme(index, folder):
    """Return what is made of one of the overlays that the readme shows."""
    text = (DEPLOY / "README.md").read_text()
    shown = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[index]
    (folder / "mine").mkdir()
    (folder / "loss-scoring").symlink_to(DEPLOY.parent)
    (folder / "mine/kustomization.yaml").write_text(shown)
    rendered = Rendered(documents(folder / "mine"))
    for document in rendered.documents:
        check(document, NEWEST)
    return rendered


def test_an_overlay_can_be_named_where_it_is(tmp_path):
    """As the README says, but of a repository on this machine."""
    remote, mine = tmp_path / "remote", tmp_path / "mine"
    shutil.copytree(DEPLOY, remote / "deploy")
    git = ["git", "-C", remote, "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["commit", "--quiet", "-m", "x"],
        ["tag", "v1"],
    ):
        subprocess.run([*git, *command], check=True)
    mine.mkdir()
    link = f"file://{remote}//deploy/overlays/cpu?ref=v1"
    (mine / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [link]}))
    assert documents(mine) == list(render("cpu").documents)


def test_labels_name_the_version_that_the_image_has(rendered):
    version = (ROOT / "VERSION").read_text().strip()
    assert rendered.container["image"].partition(":")[2].startswith(f"{version}-")
    for document in rendered.documents:
        assert document["metadata"]["labels"]["app.kubernetes.io/version"] == version


def assert_all_in(namespace, rendered):
    assert rendered.one("Namespace")["metadata"]["name"] == namespace
    for document in rendered.documents:
        assert document["metadata"].get("namespace", namespace) == namespace
    text = yaml.safe_dump(rendered.one("ScaledObject"))
    assert set(re.findall(r'namespace="(.*?)"', text)) == {namespace}
    others = OF_KSERVE if rendered.all("InferenceService") else set()
    kept = [policy for name, policy in POLICIES.items() if name not in others]
    assert [one for policy in kept for one in policy(rendered)] == []


@pytest.mark.parametrize("overlay", sorted(names("overlays")))
def test_an_overlay_whose_namespace_is_changed_is_all_there(overlay, tmp_path):
    """As `kustomize edit set namespace` and Argo CD change it."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    folder = tmp_path / "deploy/overlays" / overlay
    text = (folder / "kustomization.yaml").read_text()
    (folder / "kustomization.yaml").write_text(
        text.replace("namespace: loss-scoring\n", "namespace: nightly\n")
    )
    assert_all_in("nightly", Rendered(documents(folder)))


def test_the_overlay_of_another_namespace_that_the_readme_shows_is_one(tmp_path):
    assert_all_in("nightly", of_the_readme(1, tmp_path))


def test_the_overlay_that_the_readme_shows_is_one(tmp_path):
    rendered = of_the_readme(0, tmp_path)
    version = (ROOT / "VERSION").read_text().strip()
    assert rendered.container["image"] == f"registry.mine/loss-scoring:{version}-cuda"
    assert rendered.environment["LOSS_SCORING_ACCESS_LOG"] == "true"
    assert "prometheus-operated" not in str(rendered.one("ScaledObject"))
    assert [one for policy in POLICIES.values() for one in policy(rendered)] == []


def test_cilium_lets_its_gateway_in():
    assert len(render("gpu behind Cilium").all("CiliumNetworkPolicy")) == 1


def test_no_start_is_an_alert(rendered):
    probe = rendered.container["startupProbe"]
    (alert,) = (
        rule
        for group in ALERTS["groups"]
        for rule in group["rules"]
        if rule["alert"] == "LossScoringNotReady"
    )
    assert seconds_of(alert["for"]) > probe["periodSeconds"] * probe["failureThreshold"]


def test_processors_tell_of_need_where_a_gpu_does_the_work():
    def asked(variant):
        return [one["type"] for one in render(variant).one("ScaledObject")["spec"]["triggers"]]

    assert asked("gpu") == asked("gpu-shared") == ["prometheus", "prometheus", "cpu"]
    assert asked("cpu") == ["prometheus", "prometheus"]


def test_the_resource_of_each_gpu_overlay():
    def asked(variant):
        limits = render(variant).container["resources"]["limits"]
        return [name for name in limits if name.startswith("nvidia.com/")]

    assert asked("gpu") == ["nvidia.com/gpu"]
    assert asked("gpu-shared") == ["nvidia.com/mig-1g.10gb"]
    assert asked("gpu-shared in time") == ["nvidia.com/gpu.shared"]
    assert asked("cpu") == []
