"""What OpenAPI cannot say: what an Arrow stream is.

Read by schemathesis, which has an environment of its own.
"""

import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

ARROW = "application/vnd.apache.arrow.stream"
STREAMS = [path.read_bytes() for path in sorted(Path(os.environ["CHAOS_STREAMS"]).iterdir())]

schemathesis.openapi.media_type(ARROW, st.sampled_from(STREAMS))
