"""docs/semantics.md and docs/protocol.md on losses: what the rows of losses and other libraries say."""

import numpy as np
import pytest
from losses_tables import TABLES, found
from pages import DOCS, rows

Y, P = np.array([2.0, -4.0, 5.0]), np.array([3.0, -2.0, 5.5])
MAPE, SMAPE = np.mean(abs((Y - P) / Y)), np.mean(abs(Y - P) / (abs(Y) + abs(P)))
WITH_0 = np.append(Y, 0.0), np.append(P, 1.0)


@pytest.mark.parametrize(("page", "table"), TABLES.items())
def test_tables_are_those_of_the_code(page, table):
    assert found(page, table) == table, "run python tests/docs/losses_tables.py"


def of_utilsforecast():
    pd, losses = pytest.importorskip("pandas"), pytest.importorskip("utilsforecast.losses")

    def call(function):
        def loss(y, p):
            return function(pd.DataFrame({"unique_id": 0, "y": y, "M": p}), ["M"])["M"].item()

        return loss

    return call(losses.mape), call(losses.smape)


def of_darts():
    darts = pytest.importorskip("darts")
    from darts import metrics

    series = darts.TimeSeries.from_values
    return (
        lambda y, p: metrics.mape(series(y), series(p)),
        lambda y, p: metrics.smape(series(y), series(p)),
    )


def of_sklearn():
    return pytest.importorskip("sklearn.metrics").mean_absolute_percentage_error, None


def of_torchmetrics():
    torch = pytest.importorskip("torch")
    regression = pytest.importorskip("torchmetrics.functional.regression")
    return (
        lambda y, p: regression.mean_absolute_percentage_error(*map(torch.tensor, (p, y))).item(),
        lambda y, p: regression.symmetric_mean_absolute_percentage_error(
            *map(torch.tensor, (p, y))
        ).item(),
    )


@pytest.mark.parametrize(
    ("library", "losses"),
    [
        ("utilsforecast.losses", of_utilsforecast),
        *(
            pytest.param(*case, marks=pytest.mark.darts)
            for case in [
                ("darts.metrics", of_darts),
                ("sklearn.metrics", of_sklearn),
                ("torchmetrics", of_torchmetrics),
            ]
        ),
    ],
)
def test_factors_of_other_libraries(library, losses):
    shown = {
        row[0].strip("`"): row for row in rows(DOCS / "semantics.md", "Why does my MAPE differ?")
    }
    _, mape_factor, smape_factor, at_0, _ = shown[library]
    mape, smape = losses()
    assert mape(Y, P) == pytest.approx(float(mape_factor) * MAPE)
    if smape is not None:
        assert smape(Y, P) == pytest.approx(float(smape_factor) * SMAPE)
    if at_0 == "leaves the mean":
        assert mape(*WITH_0) == pytest.approx(float(mape_factor) * MAPE)
    else:
        divisor = float(at_0.removeprefix("divided by "))
        assert mape(*WITH_0) == pytest.approx(float(mape_factor) / divisor / 4, rel=0.01)
