"""What a kernel takes of shared memory is known without a GPU: the compiler for one is in triton."""

import os
import subprocess
import sys

import pytest

LIMIT = 227 * 1024
"""Bytes that one program may have on an H100."""

PROGRAM = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from longtag.fused import masked_product as product

depth = int(sys.argv[1])
constants = {"DEPTH": depth, "BLOCK_N": product.BLOCK_N, "BLOCK_F": product.BLOCK_F, "BLOCK_M": product.BLOCK_M,
             "GROUP": product.GROUP}
result = f"tensordesc<bf16[{product.BLOCK_N}, {product.BLOCK_F}]>"
signature = {"a": f"tensordesc<bf16[{product.BLOCK_N}, {product.BLOCK_M}]>",
             "b": f"tensordesc<bf16[{product.BLOCK_M}, {product.BLOCK_F}]>", "mask": result, "out": result,
             "sums_ptr": "*fp32", "factor": "fp32", "num_rows": "i32", "features": "i32"}
signature |= dict.fromkeys(constants, "constexpr")
kernel = compile(ASTSource(product._kernel.function, signature, constexprs=constants), target=GPUTarget("cuda", 90, 32),
                 options={"num_warps": 8, "num_stages": product.stages_of(depth)})
print(kernel.metadata.shared)
"""


@pytest.mark.parametrize("depth", [64, 768])
def test_the_masked_product_fits_for_narrow_models_and_for_wide_ones(depth, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(depth)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < int(done.stdout) <= LIMIT
