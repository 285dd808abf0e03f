"""Variants of a sweep: options that belong together, so that one of them is not combined with those of another."""

import shlex
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import ListConfig, OmegaConf

from longtag.errors import UsageError

WHERE = "hydra.sweeper.variants"


def variants_to_run(
    variants: Any, parser: OverridesParser, *, params: Iterable[str], arguments: Iterable[Override]
) -> list[list[str]]:
    """The overrides of each variant; none where the command line gives an option that a variant sets.

    Args:
        variants: a list of texts, each the options of a variant as one would type them.
        parser: of Hydra. What it cannot read is left as it is: the job is refused, and the others are run.
        params: options that the sweep varies by themselves.
        arguments: what the command line gives.

    Raises:
        UsageError: no list of texts; a variant that is empty, there twice, or holds several values for an option; or
            an option that params give as well.
    """
    listed = OmegaConf.to_container(variants, resolve=True) if isinstance(variants, ListConfig) else variants
    if not isinstance(listed, list | tuple):
        raise UsageError(f"{WHERE}={listed}: expected a list, such as ['pattern=window pattern.window=64'], or []")
    read = [_read(variant, parser) for variant in listed]
    for place, overrides in enumerate(read):
        if sorted(overrides) in map(sorted, read[:place]):
            raise UsageError(f"{WHERE}: {listed[place]!r} is there twice; leave one out")
    names = {_name(override) for overrides in read for override in overrides}
    if names & {_name(argument.get_key_element()) for argument in arguments}:
        return []
    if twice := sorted(names & {_name(param) for param in params}):
        raise UsageError(f"hydra.sweeper.params.{twice[0]}: {WHERE} set it as well; leave it out of one of the two")
    return read


def _read(variant: Any, parser: OverridesParser) -> list[str]:
    """The overrides of a variant, written as Hydra writes those of the command line."""
    if not isinstance(variant, str):
        raise UsageError(f"{WHERE}: {variant!r}: expected a text with the options of a variant, such as 'seed=1'")
    try:
        words = shlex.split(variant)
    except ValueError as error:
        raise UsageError(f"{WHERE}: {variant!r}: {error}; quotes are those of a shell") from error
    if not words:
        raise UsageError(f"{WHERE}: a variant is empty; give it an option, or leave it out")
    try:
        overrides = parser.parse_overrides(words)
    except HydraException:
        return words
    for override in overrides:
        if override.is_sweep_override():
            raise UsageError(
                f"{WHERE}: {override.input_line}: several values; write a variant for each, or give the option in "
                "hydra.sweeper.params"
            )
    return [f"{override.get_key_element()}={override.get_value_element_as_str()}" for override in overrides]


def _name(override: str) -> str:
    """The option that an override changes, adds or takes away."""
    return override.lstrip("+~").partition("=")[0]
