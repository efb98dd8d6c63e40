"""Compiles the CUDA kernel's tiles without a GPU and prints what came of it, as JSON lines."""

import json
import re
import subprocess
import tempfile
from itertools import product
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource

from core.kernels.fused_cuda import WIDTHS, constants, launch_options
from core.kernels.fused_tiles import join_pieces, score_tiles

TYPES = {"float32": "*fp32", "float64": "*fp64"}
FLOAT64 = {"sums", "totals"}
INT64 = {"starts", "sizes", "owners", "divisors", "firsts", "counts"}
ELEMENTS = {"prediction", "target", "slopes_mae", "slopes_mape", "slopes_smape"}


def compiled(function, arch, fixed, elements, *, aligned=True):
    signature = {}
    for name in function.arg_names:
        if name in fixed:
            signature[name] = "constexpr"
        elif name in INT64:
            signature[name] = "*i64"
        elif name in FLOAT64:
            signature[name] = "*fp64"
        else:
            signature[name] = elements if name in ELEMENTS else "i32"
    bases = {
        (i,): [["tt.divisibility", 16]]
        for i, kind in enumerate(signature.values())
        if kind.startswith("*")
    }
    source = ASTSource(function, signature, fixed, bases)
    options = launch_options(aligned=aligned)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options).asm["ptx"]


def spilled_bytes(ptx, arch):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "tiles.ptx")
        source.write_text(ptx)
        suffix = "a" if arch == 90 else ""
        ptxas = nvidia.get_ptxas(arch).path
        command = [ptxas, "-v", f"--gpu-name=sm_{arch}{suffix}", source, "-o", Path(folder, "out")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(map(int, re.findall(r"(\d+) bytes spill", said))), re.findall(
        r"Used (\d+) reg", said
    )


def main():
    for arch, dtype, width, aligned in product((80, 90), TYPES, WIDTHS, (True, False)):
        fixed = constants(width, getattr(torch, dtype), aligned=aligned)
        ptx = compiled(score_tiles, arch, fixed, TYPES[dtype], aligned=aligned)
        spilled, registers = spilled_bytes(ptx, arch)
        report = {
            "arch": arch,
            "dtype": dtype,
            "width": width,
            "aligned": aligned,
            "loads": sorted(set(re.findall(r"ld\.global[.\w]*", ptx))),
            "stores": sorted(set(re.findall(r"st\.global[.\w]*", ptx))),
            "local": len(re.findall(r"\b(?:ld|st)\.local", ptx)),
            "fused": len(re.findall(r"\bfma\.", ptx)),
            "divisions": sorted(set(re.findall(r"div\.[.\w]*", ptx))),
            "spilled": spilled,
            "registers": registers,
        }
        print(json.dumps(report), flush=True)
    for arch in (80, 90):
        compiled(join_pieces, arch, {"ROWS": 128}, "*fp64")


if __name__ == "__main__":
    main()
