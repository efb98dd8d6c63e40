"""``loss-scoring compile``: compile ahead what a start would compile."""

import subprocess
from typing import Annotated

import typer

from loss_scoring.core import warm_up


def compile_all(
    gpu: Annotated[
        list[int] | None,
        typer.Option(
            help="Also the kernels for GPUs of this compute capability, such as 90 for an H100; "
            "may be repeated; 0 means all that are known. No GPU is needed, a C compiler is."
        ),
    ] = None,
) -> None:
    """Compile all kernels into the caches of numba and Triton, so that the next start is quick."""
    from loss_scoring.core.table import loops
    from loss_scoring.service.codecs import json

    typer.echo("the CPU kernels")
    warm_up("cpu", everything=True)
    loops.warm_up()
    json.warm_up()
    if gpu:
        _compile_cuda(gpu)


def _compile_cuda(gpus: list[int]) -> None:
    try:
        from loss_scoring.core.kernels import ahead  # Triton may be absent
    except ImportError as error:
        raise typer.BadParameter(f"Triton is needed for CUDA kernels: {error}") from error
    try:
        ahead.compile_launcher()
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        raise typer.BadParameter(f"no launcher: {error}") from error
    for capability in ahead.CAPABILITIES if 0 in gpus else gpus:
        typer.echo(f"the CUDA kernels for compute capability {capability / 10}")
        ahead.compile_tiles(capability)
