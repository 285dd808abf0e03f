"""docs/patterns.md tells of every pattern in conf/pattern what that pattern is."""

import re
import runpy
import shlex
from collections.abc import Callable

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from sparse_attention import HubsApart, InParts, Layout
from sparse_attention.pictures.cost import mean_of
from sparse_attention.show.__main__ import main

from .conftest import CONF

DOCS = CONF.parent / "docs"
TEXT = (DOCS / "patterns.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}
NAMES = sorted(path.stem for path in (CONF / "pattern").glob("*.yaml"))
LARGEST_PICTURE = 30_000


@pytest.fixture(scope="module")
def built() -> Callable[[str], Layout]:
    """A pattern at 100,000 tokens, with the options of its YAML."""

    def build(name: str) -> Layout:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return instantiate(compose("train", [f"pattern={name}"]).pattern)(100_000)

    return build


def line_of(name: str, start: str) -> str:
    (line,) = [line for line in SECTIONS[name].splitlines() if line.startswith(f"- {start}")]
    return line


@pytest.mark.parametrize("name", NAMES)
def test_every_pattern_has_a_section_with_a_small_picture_that_is_described(name: str) -> None:
    for start in ("Paper", "Edges: ", "Choose it", "Options: ", "Layout: ", "Draw it: "):
        assert line_of(name, start)
    shown = re.search(rf"!\[(.+)\]\(patterns/{name}\.png\)", SECTIONS[name])
    assert shown is not None
    assert len(shown[1]) > 10
    picture = (DOCS / "patterns" / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < LARGEST_PICTURE


def test_there_is_no_section_row_or_picture_of_what_is_no_pattern() -> None:
    assert sorted(re.findall(r"^\| \[(\w+)\]\(#\1\)", TEXT, flags=re.MULTILINE)) == NAMES
    assert sorted(path.stem for path in (DOCS / "patterns").glob("*.png")) == NAMES
    assert sorted(runpy.run_path(str(DOCS / "patterns" / "draw.py"))["EXAMPLES"]) == NAMES
    assert sorted(SECTIONS) == sorted(["All at a glance", *NAMES])


@pytest.mark.parametrize("name", NAMES)
def test_options_are_those_of_the_config_with_their_defaults(name: str) -> None:
    written = re.search(r"`(\{.*?\})`", line_of(name, "Options: "))
    assert written is not None
    options = yaml.safe_load(written[1])
    config = yaml.safe_load((CONF / "pattern" / f"{name}.yaml").read_text())
    chosen: dict = {}
    for default in config.pop("defaults", []):
        if default != "_self_":
            ((place, choice),) = default.items()
            first, *rest = place.partition("@")[2].split(".")
            if rest:
                chosen.setdefault(first, {})[rest[0]] = choice
            else:
                chosen[first] = choice
    assert options == {**{key: value for key, value in config.items() if not key.startswith("_")}, **chosen}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("file", "knn")])
def test_the_command_that_draws_it_works(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = re.search(r"`(python -m sparse_attention.show .*)`", line_of(name, "Draw it: "))
    assert command is not None
    arguments = shlex.split(command[1])[3:]
    assert f"pattern={name}" in arguments
    assert main(arguments) == 0
    assert "edges" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in NAMES if name != "file"])
def test_the_table_gives_keys_a_query_and_layout_at_100_000_tokens(name: str, built: Callable[[str], Layout]) -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| [{name}](#{name})")]
    keys, kind = [cell.strip() for cell in row.split("|")][4:6]
    layout = built(name)
    assert keys == mean_of(layout.num_edges, layout.num_tokens * (layout.num_heads or 1))
    by_itself = ("index list", "block sparse", HubsApart.kind, InParts.kind, "per head")
    names = ("auto", "of its parts") if layout.kind in by_itself else ()
    assert kind in ("by content" if layout.depends_on_inputs else layout.kind, *names)
    assert (kind == "auto") == ("layout" in yaml.safe_load((CONF / "pattern" / f"{name}.yaml").read_text()))
