"""On a CPU the service never imports torch, which takes a second and 200 MB in each process."""

from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from instance import QUEUED, instance
from wire import ARROW, stream


def lists(rows):
    return pa.array(rows, pa.list_(pa.float32()))


@pytest.mark.parametrize("settings", [{}, {"frontends": 1, **QUEUED}], ids=["alone", "front end"])
def test_no_process_imports_torch(settings):
    with instance(device="auto", **settings) as running:
        with httpx.Client(base_url=running.url, timeout=240) as client:
            for elements in (1, 100_000):
                ones = [1.0] * elements
                request = {"losses": ["mae", "rmse"], "gradients": True, "missing": "skip"}
                series = [{"prediction": ones, "target": ones}] * 2
                assert client.post("/score", json={**request, "series": series}).is_success
                assert client.post("/score", json={**request, "series": []}).is_success
                table = pa.table({"prediction": lists([ones]), "target": lists([ones])})
                long = pa.table({"id": ones, "y": ones, "M": ones, "w": np.ones(elements)})
                query = "/score?group_by=id&weight_col=w&duplicates=allow&gradients=true"
                for path, body in (("/score", table), (query, long)):
                    headers = {"Content-Type": ARROW}
                    answer = client.post(path, content=stream(body), headers=headers)
                    assert answer.is_success, answer.text
            assert 'torch="2' in client.get("/metrics").text
        mapped = [Path(f"/proc/{pid}/maps").read_text() for pid in running.family]
    assert mapped
    assert not any("libtorch" in maps for maps in mapped)
