"""Compiles the CUDA kernel's tiles without a GPU and prints what came of it, as JSON lines.

The default losses in every specialisation; for sm_90 a few other sets in one width. With ``--all``
each loss alone as well, and everything in every specialisation.
"""

import json
import re
import subprocess
import sys
import tempfile

import torch
from triton import knobs

from loss_scoring.core import DEFAULT_LOSSES, LOSSES, LossSpec
from loss_scoring.core.kernels import fused_cuda
from loss_scoring.core.kernels.ahead import absent_gpu
from loss_scoring.core.kernels.fused_tiles import join_pieces, score_tiles

FULL = LossSpec("smape", block_denom_grad=False)
DEFAULT = tuple(map(LossSpec, DEFAULT_LOSSES))
EVERY = tuple(map(LossSpec, LOSSES))


def resources(cubin):
    """Return the registers of a thread, and the bytes of local memory, where spills go."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(count) for name, count in re.findall(r"\b([A-Z]+):(\d+)", printed)}
    return found["REG"], found["STACK"] + found["LOCAL"]


def report(arch, label, kernel):
    kinds = dict(zip(score_tiles.arg_names, kernel.src.signature.values(), strict=True))
    fixed = {score_tiles.arg_names[i]: value for (i, *_), value in kernel.src.constants.items()}
    ptx = kernel.asm["ptx"]
    registers, spilled = resources(kernel.asm["cubin"])
    return {
        "arch": arch,
        "losses": label,
        "dtype": {"*fp32": "float32", "*fp64": "float64"}[kinds["prediction"]],
        "width": fixed["WIDTH"],
        "aligned": fixed["ALIGNED"] > 1,
        "loads": sorted(set(re.findall(r"ld\.global[.\w]*", ptx))),
        "stores": sorted(set(re.findall(r"st\.global[.\w]*", ptx))),
        "local": len(re.findall(r"\b(?:ld|st)\.local", ptx)),
        "fused": len(re.findall(r"\bfma\.", ptx)),
        "divisions": sorted(set(re.findall(r"div\.[.\w]*", ptx))),
        "spilled": spilled,
        "registers": registers,
    }


def main():
    seen = set()
    widths = fused_cuda.WIDTHS
    every = "--all" in sys.argv
    others = [
        ("default full", (*DEFAULT[:2], FULL), False),
        ("default weighted", DEFAULT, True),
        ("every", EVERY, False),
    ]
    if every:
        others += [(spec.name, (spec,), False) for spec in EVERY]
        others += [("smape full", (FULL,), False), ("every weighted", EVERY, True)]
    for arch in (80, 90):
        for label, losses, weighted in [
            ("default", DEFAULT, False),
            *(others if every or arch == 90 else ()),
        ]:
            fused_cuda.WIDTHS = widths if every or label == "default" else (256,)
            with absent_gpu(arch):
                fused_cuda.compile_for(torch.device("cpu"), losses, weighted=weighted)
            for key, kernel in score_tiles.device_caches[arch][0].items():
                if (arch, key) not in seen:
                    seen.add((arch, key))
                    print(json.dumps(report(arch, label, kernel)), flush=True)
        assert len(join_pieces.device_caches[arch][0]) == 1


if __name__ == "__main__":
    main()
