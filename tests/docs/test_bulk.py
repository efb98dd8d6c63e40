"""What docs/bulk.md quotes from the examples is there."""

import re

from conftest import ROOT

TEXT = (ROOT / "docs/bulk.md").read_text()
EXAMPLES = {"examples/ray_data.py", "examples/spark.py"}


def test_what_is_quoted_stands_in_the_examples():
    assert set(re.findall(r"\.\./(examples/\w+\.py)", TEXT)) == EXAMPLES
    quoted = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    for example, quote in zip(sorted(EXAMPLES), quoted, strict=True):
        calls = re.findall(r"\.(\w+)\(", quote)
        source = (ROOT / example).read_text()
        assert all(f"{call}(" in source for call in calls), example
