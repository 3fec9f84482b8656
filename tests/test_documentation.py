"""What the documentation says can be done: its commands parse, its Python compiles, its files and links exist."""

import ast
import importlib.util
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import typer

import wsigen

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
OF_OTHER_PROGRAMS = {"--host", "--dashboard-address", "--nthreads", "--memory-limit", "--resources", "--lifetime"}  # dask's
TREE = ("benchmarks", "configs", "docs", "examples", "pipelines", "tests", "wsigen")


def ids(value):
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def blocks(page, *languages):
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def command_lines(page, program):
    """Every line of a page that runs ``program``: in blocks, in indented lines, or between backticks."""
    text = page.read_text().replace("\\\n", " ")
    outside = BLOCK.sub("", text)
    lines = [line for _, block in BLOCK.findall(text) for line in block.splitlines()]
    lines += re.findall(r"^ {4,}(.*)$", outside, re.MULTILINE)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", outside)]
    return [line.strip() for line in lines if re.match(rf"{program}\s+\S", line.strip())]


def arguments(line):
    """The words of a command line; of ``a|b`` the first, of ``[--option X]`` what is inside; no comments, no dots."""
    words = shlex.split(re.split(r"\s{3,}", line)[0].replace("[", " ").replace("]", " "), comments=True)
    words = words[: words.index("|")] if "|" in words else words
    return [word if word.startswith("http") else word.split("|")[0] for word in words if word != "..."]


@cache
def command_of(*words):
    """The command that words begin with, and how many of them name it."""
    command, used = typer.main.get_command(wsigen_app()), 0
    while hasattr(command, "commands"):
        left = words[used:]
        two = " ".join(left[:2])
        name = two if two in command.commands else left[0] if left else ""
        if not name or name.startswith("-"):
            break
        assert name in command.commands, f"wsigen {' '.join(words)}: no command {name!r}"
        command, used = command.commands[name], used + len(name.split())
    return command, used


def wsigen_app():
    from wsigen.cli.app import app

    return app


def lines_of_all_pages(program):
    return [pytest.param(line, id=f"{ids(page)}: {line}") for page in PAGES for line in command_lines(page, program)]


@pytest.mark.parametrize("line", lines_of_all_pages("wsigen"))
def test_commands_parse(line):
    words = arguments(line)[1:]
    command, used = command_of(*words)
    options = options_of(command)
    rest = iter(words[used:])
    for word in rest:
        if not word.startswith("--"):
            continue
        name, _, value = word.partition("=")
        assert name in options or name == "--help", f"wsigen has no option {name} here"
        if name in options and not getattr(options[name], "is_flag", False) and not value:
            assert not next(rest, "--").startswith("--"), f"{name} takes a value"


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "benchmarks"], ids=ids)
def test_options_in_the_text_exist(page):
    """Options between backticks on their own, such as ``--size 4096x4096``; those of other programs stand in a list."""
    named = set(re.findall(r"`(--[a-z][a-z0-9-]*)", BLOCK.sub("", page.read_text())))
    assert named <= all_options(typer.main.get_command(wsigen_app())) | OF_OTHER_PROGRAMS


def options_of(command):
    found = command.get_params(typer.Context(command))
    return {name: param for param in found for name in (*param.opts, *param.secondary_opts)}


def all_options(command):
    return set(options_of(command)).union(*(all_options(each) for each in getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("line", lines_of_all_pages("python -m"))
def test_modules_that_pages_run_exist(line):
    assert importlib.util.find_spec(arguments(line)[2].rstrip(".,;:"))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python_compiles_and_uses_public_names(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "wsigen":
                assert node.attr in wsigen.__all__


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_that_pages_name_exist(page):
    for name in re.findall(rf"(?<![\w/])(?:{'|'.join(TREE)})/[\w./*-]+\.\w+", page.read_text()):
        assert list(ROOT.glob(name)), f"{ids(page)} names {name}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=ids)
def test_links_outside_the_site_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert "://" in target or (ROOT / target).exists(), f"{ids(page)} links to {target}"


def test_the_reading_path_is_a_chain_of_imports():
    """From ``wsigen generate`` to the first model call: at most 12 files, each of which imports the next."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    text = text.partition("to the first model call\n")[2].partition("\n## ")[0]
    path = re.findall(r"^\d+\. `(wsigen/[\w/]+)\.py`", text, re.MULTILINE)
    assert 2 <= len(path) <= len(set(re.findall(r"wsigen/[\w/]+\.py", text))) <= 12
    for here, following in pairwise(path):
        source = (ROOT / f"{here}.py").read_text()
        package, name = following.replace("/", ".").rsplit(".", 1)
        assert f"{package}.{name} import" in source or re.search(rf"from {package} import .*\b{name}\b", source), here


def test_names_that_the_architecture_gives_stand_in_their_files():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for file, names in re.findall(r"`(wsigen/[\w/]+\.py)`\s\((`[^)]*`)\)", text):
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{name} is not in {file}"
