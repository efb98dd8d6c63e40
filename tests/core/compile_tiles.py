"""Compiles the CUDA kernel's tiles without a GPU and prints what came of it, as JSON lines."""

import json
import re
import subprocess
import tempfile
from pathlib import Path

from triton.backends.nvidia import compiler as nvidia

from core.kernels.ahead import compile_tiles
from core.kernels.fused_tiles import join_pieces, score_tiles


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
    for arch in (80, 90):
        compile_tiles(arch)
        assert len(join_pieces.device_caches[arch][0]) == 1
        for kernel in score_tiles.device_caches[arch][0].values():
            kinds = dict(zip(score_tiles.arg_names, kernel.src.signature.values(), strict=True))
            fixed = {
                score_tiles.arg_names[i]: value for (i,), value in kernel.src.constants.items()
            }
            ptx = kernel.asm["ptx"]
            spilled, registers = spilled_bytes(ptx, arch)
            report = {
                "arch": arch,
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
            print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
