"""Functions that return a layout: which keys each query of a sequence of `num_tokens` sees."""

from .bigbird import bigbird
from .dense import dense
from .dilated import dilated
from .documents import documents
from .file import file
from .fixed import fixed
from .hubs import hubs
from .knn import knn
from .local import local
from .logsparse import logsparse
from .longformer import longformer
from .pattern import Pattern
from .per_head import per_head
from .random import random
from .strided import strided
from .union import union
from .window import window

__all__ = [
    "Pattern",
    "bigbird",
    "dense",
    "dilated",
    "documents",
    "file",
    "fixed",
    "hubs",
    "knn",
    "local",
    "logsparse",
    "longformer",
    "per_head",
    "random",
    "strided",
    "union",
    "window",
]
