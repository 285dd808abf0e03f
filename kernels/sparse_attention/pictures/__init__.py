"""Patterns drawn: where edges lie, how they are spread, and what they cost, for terminals and as figures."""
