"""Rules: whether a query sees a key, stated once for each pattern; index lists and blocks are derived from them."""

from .blocks import Blocks
from .cost import Choice
from .documents import Documents
from .each_head import EachHead
from .global_tokens import Columns, Rows
from .lay_out import lay_out
from .listed import Listed
from .rule import Rule
from .steps import Everything, Steps
from .stretches import Stretches

__all__ = [
    "Blocks",
    "Choice",
    "Columns",
    "Documents",
    "EachHead",
    "Everything",
    "Listed",
    "Rows",
    "Rule",
    "Steps",
    "Stretches",
    "lay_out",
]
