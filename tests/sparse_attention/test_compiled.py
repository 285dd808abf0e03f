"""What the interpreter does not see: that kernels compile for a GPU, into its registers and its shared memory."""

import os
import subprocess
import sys

import pytest

LIMIT = 227 * 1024
"""Bytes of shared memory that one program may have on an H100."""

PROGRAM = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sparse_attention.triton.block_sparse import by_column, by_row, forward
from sparse_attention.triton.block_sparse.launch import padded, tiles_for
import torch

name, head_dim, block_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kernel = {"forward": forward._forward_kernel, "by_row": by_row._by_row_kernel, "by_column": by_column._by_column_kernel}
kernel, tile = kernel[name].function, getattr(tiles_for(torch.bfloat16, head_dim, block_size), name)
own, walked = ("KEYS", "QUERIES") if name == "by_column" else ("QUERIES", "KEYS")
constants = {"HEAD_DIM": head_dim, "BLOCK_D": padded(head_dim), "BLOCK": block_size, own: tile.own, walked: tile.walked,
             "PER_HEAD": False, "RAGGED": True, "NEGATIVE": False, "HAS_D_LSE": True}
constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
integers = {"words_ptr", "blocks_ptr", "masks_ptr", "items_ptr"}
written = {"out_ptr", "dq_ptr", "dk_ptr", "dv_ptr"}
rows = {"q": "QUERIES", "d_out": "QUERIES", "out": "QUERIES", "k": "KEYS", "v": "KEYS"}
signature = {}
for argument in kernel.arg_names:
    if argument in constants:
        signature[argument] = "constexpr"
    elif argument in rows:
        signature[argument] = f"tensordesc<bf16[1, 1, {constants[rows[argument]]}, {padded(head_dim)}]>"
    elif argument in integers:
        signature[argument] = "*i32"
    elif argument.endswith("_ptr"):
        signature[argument] = "*bf16" if argument in written else "*fp32"
    else:
        signature[argument] = "fp32" if argument == "scale" else "i32"
compiled = compile(ASTSource(kernel, signature, constexprs=constants), target=GPUTarget("cuda", 90, 32),
                   options=tile.options)
print(compiled.metadata.shared)
"""


@pytest.mark.parametrize("name", ["forward", "by_row", "by_column"])
@pytest.mark.parametrize(("head_dim", "block_size"), [(64, 64), (80, 128)])
def test_block_sparse_kernels_compile_for_a_gpu(name, head_dim, block_size, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(head_dim), str(block_size)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) <= LIMIT
