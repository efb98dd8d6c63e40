"""``make cases``: scripts that need a service are run against one."""

import cases

ASKS = (
    "import os, httpx; assert httpx.get(os.environ['BASE_URL'] + '/readyz', timeout=60).is_success"
)


def test_each_script_is_run_and_one_that_fails_is_shown(tmp_path, capfd):
    assert cases.main(tmp_path / "absent") == 0
    (tmp_path / "1_asks.py").write_text(ASKS)
    assert cases.main(tmp_path) == 0
    (tmp_path / "2_fails.py").write_text("assert 1 == 2, 'one is not two'")
    capfd.readouterr()
    assert cases.main(tmp_path) == 1
    said = capfd.readouterr().out
    assert "passed 1_asks.py\nFAILED 2_fails.py\n" in said
    assert "AssertionError: one is not two\n1 of 2 passed\n" in said
