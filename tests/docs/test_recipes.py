"""The recipes of docs/pipelines.md do what they say, with the real libraries (make test-recipes)."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT
from pages import DOCS, blocks
from running import prepare

BLOCKS = blocks(DOCS / "pipelines.md")
SHARED = [block.text for block in BLOCKS if block.kind == "python" and block.why_not is None]
(WORKFLOW,) = (block.text for block in BLOCKS if block.kind == "yaml")
BIN = Path(sys.prefix) / "bin"
WORSE = ('model="Theta", baseline="SeasonalNaive"', 'model="SeasonalNaive", baseline="Theta"')

AIRFLOW = """
if __name__ == "__main__":
    run = nightly_dag.test()
    print(*sorted(f"{task.task_id} {task.state}" for task in run.get_task_instances()))
"""
DAGSTER = """
made = dg.materialize([scores, theta_is_no_worse], raise_on_error=False)
(event,) = made.get_asset_check_evaluations()
(asset,) = made.asset_materializations_for_node("scores")
print(made.success, event.passed, event.description, sorted(asset.metadata))
"""
MLFLOW = """
(run,) = mlflow.search_runs(output_format="list")
shown = mlflow.load_table("leaderboard.json", run_ids=[run.info.run_id])
print(sorted(run.data.metrics), len(shown), run.data.tags["gate"])
"""
EVERY = ["AutoETS", "CrostonSBA", "SeasonalNaive", "Theta"]
SMAPES = [f"smape {model}" for model in EVERY]
METRICS = [f"{loss}/{model}" for loss in ("mae", "smape") for model in EVERY]


@pytest.fixture
def run(url, tmp_path):
    """Run a recipe behind what it shares with others, in the environment that has its library."""
    prepare(tmp_path)

    def ran(library: str, *more: str, worse: bool = False) -> tuple[int, str]:
        python = ROOT / f".venv-{'airflow' if library == 'airflow' else 'recipes'}/bin/python"
        if not python.exists():
            pytest.skip("make test-recipes brings the libraries")
        (recipe,) = (
            block.text for block in BLOCKS if f"runs it, with {library} " in block.text.lower()
        )
        first, gate = (text for text in SHARED if "httpx" not in text)
        gate, _ = gate.split("\nprint(")
        if worse:
            gate = gate.replace(*WORSE)
        source = "\n".join([first, gate, recipe, *more]).replace("http://127.0.0.1:8000", url)
        (tmp_path / "recipes").mkdir()
        script = tmp_path / f"recipes/with_{library}.py"
        script.write_text(source)
        homes = dict.fromkeys(["AIRFLOW_HOME", "DAGSTER_HOME", "PREFECT_HOME"], str(tmp_path))
        quiet = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(script.parent),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "DO_NOT_TRACK": "1",
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        }
        environment = os.environ | homes | quiet
        if library == "airflow":
            subprocess.run([python, "-m", "airflow", "db", "migrate"], env=environment, check=True)
        done = subprocess.run(
            [python, script],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return ran


def test_airflow_runs_the_dag(run, tmp_path):
    status, out = run("airflow", AIRFLOW)
    assert (status, out.splitlines()[-1]) == (0, "gate success score success")
    assert set(pd.read_parquet(tmp_path / "scores.parquet")["model"]) == {*EVERY}


def test_airflow_fails_by_the_gate(run):
    _, out = run("airflow", AIRFLOW, worse=True)
    assert out.splitlines()[-1] == "gate failed score success"


@pytest.mark.parametrize("worse", [False, True])
def test_dagster_makes_the_asset_and_checks_it(run, worse):
    status, out = run("dagster", DAGSTER, worse=worse)
    verdict = (
        "False False worse: mae of SeasonalNaive" if worse else "True True passed: mae of Theta"
    )
    line = out.splitlines()[-1]
    assert (status, line.startswith(verdict), line.endswith(str(SMAPES))) == (0, True, True)


@pytest.mark.parametrize("worse", [False, True])
def test_prefect_runs_the_flow(run, worse):
    status, _ = run("prefect", worse=worse)
    assert (status != 0) == worse


def test_mlflow_keeps_figures_and_table(run):
    status, out = run("mlflow", MLFLOW)
    assert status == 0
    assert out.splitlines()[-1].startswith(f"{METRICS} 8 passed: mae of Theta")


def test_mlflow_ends_a_run_as_failed_by_the_gate(run, tmp_path):
    status, _ = run("mlflow", worse=True)
    assert status != 0
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        assert store.execute("SELECT status FROM runs").fetchall() == [("FAILED",)]


def test_duckdb_queries_the_scores(run):
    status, out = run("duckdb", "print(losses.num_rows)")
    assert status == 0
    assert "Theta" in out


def test_the_workflow_is_valid(tmp_path):
    path = tmp_path / "gate.yml"
    path.write_text(WORKFLOW)
    schema = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    for command in (schema, ["zizmor", "--offline", "--quiet"]):
        subprocess.run([BIN / command[0], *command[1:], path], check=True)
    actions = (ROOT / ".github/workflows/ci.yml").read_text()
    assert all(line in actions for line in WORKFLOW.splitlines() if "uses:" in line)


@pytest.mark.parametrize(("model", "status"), [("Theta", 0), ("SeasonalNaive", 1)])
def test_the_workflow_fails_by_the_gate(model, status, tmp_path):
    prepare(tmp_path)
    _, _, install, gate = yaml.safe_load(WORKFLOW)["jobs"]["gate"]["steps"]
    assert install == {"run": "pip install loss-scoring"}
    command = gate["run"].replace("Theta", "?").replace("SeasonalNaive", "Theta")
    command = command.replace("?", "SeasonalNaive") if status else gate["run"]
    summary = tmp_path / "summary.md"
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(summary)}
    done = subprocess.run(
        ["bash", "-e", "-c", command], cwd=tmp_path, env=os.environ | environment, check=False
    )
    assert done.returncode == status
    verdict = "worse" if status else "passed"
    assert f"| {verdict} | mae of {model} no worse" in summary.read_text()
