"""The command line in this process."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from loss_scoring.service.cli import main


def cli(*arguments) -> tuple[int, str, str]:
    """Run a command; return its status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["loss-scoring", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            return stop.code, out.getvalue(), err.getvalue()
    raise AssertionError("the command line ends with a status")
