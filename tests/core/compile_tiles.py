"""Compiles the CUDA kernel's tiles without a GPU and prints what came of it, as JSON lines."""

import json
import re
import subprocess
import tempfile

from triton import knobs

from loss_scoring.core.kernels.ahead import compile_tiles
from loss_scoring.core.kernels.fused_tiles import join_pieces, score_tiles


def resources(cubin):
    """Return the registers of a thread, and the bytes of local memory, where spills go."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(count) for name, count in re.findall(r"\b([A-Z]+):(\d+)", printed)}
    return found["REG"], found["STACK"] + found["LOCAL"]


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
            registers, spilled = resources(kernel.asm["cubin"])
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
