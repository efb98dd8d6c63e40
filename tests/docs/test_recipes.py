"""The recipes for orchestrators do what they say: on stand-ins, see `standins`."""

import pandas as pd
import pytest
from pages import DOCS, blocks
from running import Runner, prepare
from standins import STANDINS, MaterializeResult

BLOCKS = [block for block in blocks(DOCS / "pipelines.md") if block.kind == "python"]
MODELS = {"SeasonalNaive", "AutoETS", "Theta", "CrostonSBA"}


@pytest.mark.parametrize("library", STANDINS)
def test_a_recipe_scores_the_file(library, url, tmp_path):
    prepare(tmp_path)
    runner = Runner("pipelines.md", url, tmp_path)
    runner.run(BLOCKS[0])
    (recipe,) = (one for one in BLOCKS if f"stand-in for {library};" in one.text)
    written = tmp_path / "scores.parquet"
    written.unlink()
    runner.run(recipe)
    if library == "dagster":  # an asset is made by dagster, not by the file that declares it
        asset = runner["scores"]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            made = asset()
        assert isinstance(made, MaterializeResult)
        assert set(made.metadata) == {f"smape {model}" for model in MODELS}
    assert set(pd.read_parquet(written)["model"]) == MODELS
