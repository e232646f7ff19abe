"""What any document of the project says about files and commands is true: links lead somewhere, scripts exist, the
programs know the options and settings they are shown with."""

import os
import re
import subprocess

import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("BUILD_DIR", os.path.join(ROOT, "build", "release"))
DOCUMENTS = sorted(
    [name for name in os.listdir(ROOT) if name.endswith(".md")] +
    ["docs/" + name for name in os.listdir(os.path.join(ROOT, "docs")) if name.endswith(".md")])


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


def fenced(text, languages):
    return [m[2] for m in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.M | re.S) if m[1] in languages]


def command_lines(text):
    """Command lines in shell blocks, with continued lines joined and prompts removed."""
    for block in fenced(text, {"sh", "bash", "console", "shell"}):
        for line in re.sub(r"\\\n\s*", " ", block).split("\n"):
            line = re.sub(r"^\s*[$#] ", "", line.strip())
            if line and not line.startswith("#"):
                yield line


def anchors(text):
    found = set()
    for title in re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        found.add(re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    text = re.sub(r"^```.*?^```", "", read(name), flags=re.M | re.S)
    folder = os.path.dirname(os.path.join(ROOT, name))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = os.path.normpath(os.path.join(folder, path)) if path else os.path.join(ROOT, name)
        assert os.path.exists(file), "%s links to %s" % (name, target)
        if anchor and file.endswith(".md"):
            with open(file, encoding="utf-8") as f:
                assert anchor in anchors(f.read()), "%s links to %s" % (name, target)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    """Names in code spans that begin with a folder of this project, as a whole word: `config/livenps.yaml`."""
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", read(name), flags=re.M | re.S)):
        path = span.split()[0]
        if re.fullmatch(r"(\./)?(common|consumer|producer|config|docs|tests|\.ci)/[\w./-]+", path):
            assert os.path.exists(os.path.join(ROOT, path)), "%s names %s" % (name, path)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_scripts_that_are_shown_exist(name):
    for line in command_lines(read(name)):
        word = line.split()[0]
        if re.match(r"(\./|tests/|\.ci/)", word) and not word.startswith("./build"):
            assert os.access(os.path.join(ROOT, word), os.X_OK), "%s shows %s" % (name, line)


@pytest.fixture(scope="session")
def known_options():
    known = {}
    for program, commands in (("livenps-consumer", ["run", "replay", "verify", "table", "board", "log"]),
                              ("livenps-producer", ["publish", "check", "serve", "simulate", "embedded"])):
        texts = [subprocess.run([os.path.join(BUILD, program), *command, "--help"], capture_output=True, text=True,
                                check=True).stdout for command in [[]] + [[c] for c in commands]]
        known[program] = set(re.findall(r"--[a-z][a-z-]*", "\n".join(texts)))
    return known


@pytest.mark.parametrize("name", DOCUMENTS)
def test_options_that_are_shown_exist(name, known_options):
    for line in command_lines(read(name)):
        for part in re.split(r"[|;&]", line):
            if re.match(r"\s*(journalctl|systemctl)\s", part):
                continue  # there it is the name of a unit
            match = re.search(r"(?:^|[\s/])(livenps-(?:consumer|producer))\s(.*)", part)
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", match[2]) if match else []:
                assert option in known_options[match[1]], "%s shows %s" % (name, line)


def test_readme_shows_the_two_commands():
    if "README.md" in DOCUMENTS:
        lines = list(command_lines(read("README.md")))
        assert "./quickstart" in lines and "tests/run" in lines
    else:
        pytest.fail("there is no README.md")
