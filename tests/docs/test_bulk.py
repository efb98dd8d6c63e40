"""What docs/bulk.md names of the examples is there, and what it calls is called there."""

import re

from conftest import ROOT

TEXT = (ROOT / "docs/bulk.md").read_text()
EXAMPLES = ["examples/ray_data.py", "examples/spark.py"]


def test_what_is_quoted_is_in_the_examples():
    assert re.findall(r"\.\./(examples/\w+\.py)", TEXT) == EXAMPLES
    quoted = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    for example, quote in zip(EXAMPLES, quoted, strict=True):
        source = (ROOT / example).read_text()
        assert all(f"{call}(" in source for call in re.findall(r"(\w+)\(", quote)), example
