"""RemoteLoss as the ``loss_fn`` of a real darts model; runs by ``make test-darts``."""

import copy

import numpy as np
import pytest

from lossclient import Client

pytestmark = [
    pytest.mark.darts,
    pytest.mark.filterwarnings("ignore"),  # Lightning's, about loggers, workers and cores
]
darts = pytest.importorskip("darts", reason="make test-darts installs darts")
pytest.importorskip("pytorch_lightning", reason="make test-darts installs it")
from darts.models import NBEATSModel  # noqa: E402 - skipped above where there is none

from lossclient.torch import RemoteLoss  # noqa: E402

KEY = "no-one-knows-it"


def model_of(loss, folder, precision):
    quiet = {"enable_progress_bar": False, "logger": False, "enable_model_summary": False}
    return NBEATSModel(
        input_chunk_length=8,
        output_chunk_length=2,
        num_stacks=1,
        num_blocks=1,
        num_layers=1,
        layer_widths=4,
        n_epochs=2,
        random_state=0,
        loss_fn=loss,
        model_name="model",
        work_dir=str(folder),
        save_checkpoints=True,
        force_reset=True,
        pl_trainer_kwargs={"accelerator": "cpu", "precision": precision, **quiet},
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_model_trains_is_saved_and_trains_on(url, tmp_path, precision, monkeypatch):
    values = np.sin(np.arange(60, dtype=np.float32) / 3) + 2
    series = darts.TimeSeries.from_values(values)
    weights = darts.TimeSeries.from_values(np.ones_like(values))
    with Client(url, api_key=KEY) as client:
        model = model_of(RemoteLoss(client, "smape"), tmp_path, precision)
        model.fit(series, verbose=False)
        model.fit(series, sample_weight=weights, verbose=False)  # sets reduction="none"
        copy.deepcopy(model)
        model.save(str(tmp_path / "model.pt"))
        wanted = model.predict(2, verbose=False).values()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 4
    assert not any(KEY.encode() in file for file in written)

    monkeypatch.delenv("LOSSCLIENT_API_KEY", raising=False)
    loaded = NBEATSModel.load(str(tmp_path / "model.pt"), trusted=True)
    np.testing.assert_array_equal(loaded.predict(2, verbose=False).values(), wanted)
    NBEATSModel.load_from_checkpoint("model", str(tmp_path), best=False, trusted=True)
    monkeypatch.setenv("LOSSCLIENT_API_KEY", KEY)
    loaded.fit(series, epochs=1, verbose=False)
