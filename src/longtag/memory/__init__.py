"""Levers: ways to train in less memory, one a file, chosen together by the config group `memory`."""

from longtag.memory.levers import Levers

__all__ = ["Levers"]
