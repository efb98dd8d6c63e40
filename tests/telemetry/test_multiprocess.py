"""Several real front ends and a worker: any of them shows all, and nothing goes backwards."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile

import httpx
import pytest
from documented import documented_rows, rows
from family import wait_until
from instance import QUEUED, faulty, instance
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from scrape import samples, scrape, total

from loss_scoring.service.telemetry import multiprocess

FRONTENDS, CLIENTS = 2, 24
ROLES = ("frontend", "worker")
MIXED = {"losses": ["mae", "mape"], "series": [{"prediction": [1.0, 2.0], "target": [0.0, 1.0]}]}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    shared_files = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(shared_files))
        with instance(faulty(FRONTENDS), frontends=FRONTENDS, device="cpu", **QUEUED) as one:
            one.temporary = shared_files
            one.sent = 0  # tests of this file can run in any order
            yield one


def test_several_processes_show_the_metrics_of_one(service):
    assert documented_rows() == rows(scrape(service.url))


def scored(text):
    return total(text, "loss_scoring_requests_total", route="/score", status="200")


def send(service, each):
    """Have clients score something, each that often."""

    async def some():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            for _ in range(each):
                (await client.post("/score", json=MIXED)).raise_for_status()

    async def all_of_them():
        await asyncio.gather(*(some() for _ in range(CLIENTS)))

    asyncio.run(all_of_them())
    service.sent += CLIENTS * each


def settled(service, count, of=scored):
    """Wait until a count is shown; return what any process shows then, ten times over."""
    wait_until(lambda: of(scrape(service.url)) >= count)
    return [scrape(service.url) for _ in range(10)]


def read(folder):
    """Return what lies in the files, without a scrape, which would write there."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return generate_latest(registry).decode()


def test_counts_are_published_though_nobody_scrapes(service):
    send(service, 1)
    (folder,) = folders(service)
    wait_until(lambda: scored(read(folder)) == service.sent)


def test_any_process_shows_all(service):
    send(service, 9)
    for text in settled(service, service.sent):
        assert scored(text) == service.sent
        assert total(text, "loss_scoring_request_seconds_count", format="json") == service.sent
        assert total(text, "loss_scoring_stage_seconds_count") == 4 * service.sent
        for loss in ("mae", "mape"):
            assert total(text, "loss_scoring_scored_series_total", loss=loss) == service.sent
            assert total(text, "loss_scoring_scored_elements_total", loss=loss) == 2 * service.sent
        assert total(text, "loss_scoring_masked_elements_total", loss="mape") == service.sent
        assert total(text, "loss_scoring_masked_elements_total", loss="smape") == 0
        assert total(text, "loss_scoring_processes", role="frontend") == FRONTENDS
        assert total(text, "loss_scoring_processes", role="worker") == 1
        assert total(text, "loss_scoring_ready_processes") == FRONTENDS
    batched = settled(
        service, 2 * service.sent, lambda text: total(text, "loss_scoring_batch_elements_sum")
    )
    assert total(batched[0], "loss_scoring_batch_elements_sum") == 2 * service.sent
    assert total(batched[0], "loss_scoring_batch_requests_sum") == service.sent


def counters(text):
    return {
        key: value
        for key, value in samples(text).items()
        if key[0].endswith(("_total", "_count", "_sum", "_bucket"))
    }


def test_nothing_goes_backwards_when_processes_are_killed(service):
    send(service, 1)
    before = settled(service, service.sent)[-1]
    restarts = {role: total(before, "loss_scoring_restarts_total", role=role) for role in ROLES}
    frontends, worker = service.frontends, service.worker
    (folder,) = folders(service)
    files = {path.name for path in folder.iterdir()}
    os.kill(min(frontends), signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(service.frontends - frontends) == 1 and service.worker != worker)
    service.await_ready()
    for _ in range(10):
        after = scrape(service.url)
        assert all(counters(after)[key] >= value for key, value in counters(before).items())
        before = after
    send(service, 9)
    assert {scored(text) for text in settled(service, service.sent)} == {service.sent}
    for role in ROLES:
        wait_until(
            lambda role=role: (
                total(scrape(service.url), "loss_scoring_restarts_total", role=role)
                == restarts[role] + 1
            )
        )
    text = scrape(service.url)
    assert total(text, "loss_scoring_processes", role="frontend") == FRONTENDS
    assert total(text, "loss_scoring_processes", role="worker") == 1
    assert {path.name for path in folder.iterdir()} == files, "they do not pile up"


def folders(service):
    return list(service.temporary.glob("loss-scoring-metrics-*"))


def test_a_refusal_is_counted_with_its_reason(service):
    def refused(text):
        return total(text, "loss_scoring_refusals_total", reason="unsupported-media-type")

    with httpx.Client(base_url=service.url, timeout=60) as client:
        before = refused(scrape(service.url))
        # Of no format, so that it is not counted among what was sent.
        assert client.post("/score", data={"nonsense": "1"}).status_code == 415
    assert {refused(text) for text in settled(service, before + 1, refused)} == {before + 1}


def test_the_directory_goes_with_the_supervisor(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with instance(faulty(1), frontends=1, device="cpu") as service:
        service.temporary = tmp_path
        assert folders(service)
        service.signal()
        assert service.exit_code(120) == 0
        assert not folders(service)


DIES = """
import os, sys
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.multiprocess import MetricsDirectory, count_as, forget_gauges
directory = MetricsDirectory()
child = os.fork()
if not child:
    Metrics(count_as("worker"), "worker").publish()
    os._exit(9)
os.waitpid(child, 0)
metrics = Metrics(count_as("frontend"))
if sys.argv[1] == "ended":
    directory.count_restart("worker")
    forget_gauges("worker")
print(metrics.render().decode())
directory.close()
"""


@pytest.mark.parametrize(("end", "workers"), [("unnoticed", 1), ("ended", 0)])
def test_gauges_of_the_dead_are_forgotten_and_their_counts_are_not(end, workers, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DIES, end],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert total(done.stdout, "loss_scoring_processes", role="worker") == workers
    assert total(done.stdout, "loss_scoring_processes", role="frontend") == 1
    assert total(done.stdout, "loss_scoring_restarts_total", role="worker") == 1 - workers


def test_a_full_file_system_costs_the_sum_and_nothing_else(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(multiprocess.VARIABLE, "of somebody else")
    directory = multiprocess.MetricsDirectory()
    assert "No space left" in caplog.text
    assert multiprocess.VARIABLE not in os.environ
    assert not list(tmp_path.iterdir())
    directory.count_restart("worker")
    multiprocess.forget_gauges("worker")
    directory.close()
    assert multiprocess.count_as("frontend") is None


def test_what_a_killed_supervisor_left_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, young = tmp_path / "loss-scoring-metrics-old", tmp_path / "loss-scoring-metrics-young"
    used = tmp_path / "loss-scoring-metrics-used"
    for folder in (old, young, used):
        folder.mkdir(0o700)
        (folder / "counter_worker-0.db").touch()
    lock = multiprocess._lock(used)
    for folder in (old, used):
        os.utime(folder, (0, 0))
    multiprocess.MetricsDirectory._remove_old()
    assert {folder.name[21:] for folder in tmp_path.iterdir()} == {"young", "used"}
    os.close(lock)


def test_what_is_not_a_supervisors_own_is_never_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prefix = tmp_path / "loss-scoring-metrics-"
    target, link = tmp_path / "target", prefix.with_name(f"{prefix.name}link")
    precious, open_to_all = (prefix.with_name(f"{prefix.name}{n}") for n in ("precious", "open"))
    for folder, mode in ((target, 0o700), (precious, 0o700), (open_to_all, 0o755)):
        folder.mkdir(mode)
        (folder / "counter_worker-0.db").touch()
        os.utime(folder, (0, 0))
    (precious / "letter").touch()
    link.symlink_to(target)
    os.utime(precious, (0, 0))
    os.utime(link, (0, 0), follow_symlinks=False)
    multiprocess.MetricsDirectory._remove_old()
    assert (precious / "letter").exists()
    assert (target / "counter_worker-0.db").exists()
    assert link.is_symlink()
    assert open_to_all.exists()


def test_links_in_the_place_of_files_are_not_followed(tmp_path, monkeypatch, caplog):
    folder, target = tmp_path / "folder", tmp_path / "target"
    folder.mkdir(0o700)
    (folder / "counter_frontend-0.db").symlink_to(target)
    monkeypatch.setenv(multiprocess.VARIABLE, str(folder))
    monkeypatch.setattr(multiprocess.values, "ValueClass", multiprocess.values.MutexValue)
    assert multiprocess.count_as("frontend") is None
    assert "metrics of its own" in caplog.text
    assert not target.exists()


REMOVED = """
import os, shutil
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.multiprocess import MetricsDirectory, count_as, VARIABLE
directory = MetricsDirectory()
metrics = Metrics(count_as("frontend"))
metrics.opened()
path = os.environ[VARIABLE]
for n in range(2):
    shutil.rmtree(path)
    metrics.opened()
    directory.restore()
    text = metrics.render().decode()
    directory.count_restart("worker")
os.rename(path, path + "-moved")
os.symlink(path + "-moved", path)
metrics.opened()
print(text, "then", metrics.render().decode(), "then", sep=chr(10))
print(directory._locked is not None, oct(os.stat(path + "-moved").st_mode))
"""


def test_metrics_go_on_when_their_directory_is_removed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", REMOVED],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    restored, alone, kept = done.stdout.split("then\n")
    assert total(restored, "loss_scoring_connections_total") == 3
    assert total(restored, "loss_scoring_restarts_total", role="worker") == 1
    assert total(alone, "loss_scoring_connections_total") == 4, "of this process, through no link"
    assert kept == "True 0o40700\n"
    assert "is not a directory of this user alone" in done.stderr
