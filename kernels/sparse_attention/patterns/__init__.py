"""Functions that return a layout: which keys each query of a sequence of `num_tokens` sees."""

from .dilated import dilated
from .file import file
from .longformer import longformer
from .random import random
from .window import window

__all__ = ["dilated", "file", "longformer", "random", "window"]
