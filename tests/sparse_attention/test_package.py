"""The package stands alone, and the folder it lies in is none."""

import subprocess
import sys
from pathlib import Path

import sparse_attention


def test_importing_it_imports_neither_the_application_nor_what_only_parts_of_it_need() -> None:
    program = "import sys, sparse_attention; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"longtag", "lightning", "hydra", "triton", "safetensors", "matplotlib"} & set(run.stdout.split())


def test_the_folder_kernels_is_no_package() -> None:
    """With an __init__.py it would hide the package of that name which Hugging Face publishes."""
    assert not (Path(sparse_attention.__file__).parents[1] / "__init__.py").exists()
