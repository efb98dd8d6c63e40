"""The gate's verdict against that of mlflow on the mean losses of random pairs."""

import numpy as np
import pyarrow as pa
import pytest

from loss_scoring.core.table import CheckError, check

mlflow = pytest.importorskip(
    "mlflow", reason="make test-decisions installs it in an environment of its own"
)
pytestmark = [pytest.mark.decisions, pytest.mark.filterwarnings("ignore")]


def theirs(losses, threshold):
    from mlflow.models import MetricThreshold
    from mlflow.models.evaluation import EvaluationResult
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    new, old = (EvaluationResult({"mae": value}, {}, run_id="none") for value in losses)
    try:
        mlflow.validate_evaluation_results(
            {"mae": MetricThreshold(greater_is_better=False, **threshold)}, new, old
        )
    except ModelValidationFailedException:
        return False
    return True


def ours(losses, **rules):
    new, old = losses
    rows = pa.table({"id": ["a", "a"], "model": ["New", "Old"], "mae": [new, old]})
    try:
        check(rows, model="New", baseline="Old", loss="mae", **rules)
    except CheckError:
        return False
    return True


def test_hundreds_of_pairs_get_the_same_verdict():
    generator = np.random.default_rng(11)
    verdicts = []
    for _ in range(600):
        old = float(generator.lognormal()) * generator.choice([1, -1], p=[0.9, 0.1])
        change = float(generator.choice([0.0, 0.02, 0.05, 0.5]))
        new = old - abs(old) * float(generator.choice([0, change, generator.normal(scale=0.05)]))
        most = float(generator.choice([1e9, abs(old)]))
        found = ours((new, old), min_relative_improvement=change, max=most)
        # No change at all is no rule of theirs: then the new one must be no worse.
        want = theirs((new, old), {"min_relative_change": change}) if change else new <= old
        want = want and theirs((new, old), {"threshold": most})
        assert found == want, (new, old, change, most)
        verdicts.append(found)
    assert 100 < sum(verdicts) < 500
