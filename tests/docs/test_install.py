"""What `cmake --install` puts where, tried in a folder of its own."""

import os
import subprocess

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("BUILD_DIR", os.path.join(ROOT, "build", "release"))


def test_installed_tree(tmp_path):
    subprocess.run(["cmake", "--install", BUILD, "--prefix", str(tmp_path)], check=True, capture_output=True)
    for program in ("livenps-consumer", "livenps-producer"):
        shown = subprocess.run([str(tmp_path / "bin" / program), "--version"], check=True, capture_output=True, text=True)
        assert "0.1.0" in shown.stdout
        assert (tmp_path / "share" / "man" / "man1" / (program + ".1")).is_file()
    assert (tmp_path / "share" / "livenps" / "livenps.yaml").is_file()
    assert (tmp_path / "share" / "livenps" / "events.schema.json").is_file()
    for document in ("README.md", "LICENSE", "events.md", "redis.md", "board.md", "board.png"):
        assert (tmp_path / "share" / "doc" / "livenps" / document).is_file()
    # The installed example is one that the installed program accepts.
    subprocess.run([str(tmp_path / "bin" / "livenps-consumer"), "--check-config", "--config",
                    str(tmp_path / "share" / "livenps" / "livenps.yaml")], check=True, capture_output=True)


def test_hardened():
    """Position-independent, read-only relocations, no executable stack."""
    for program in ("livenps-consumer", "livenps-producer"):
        shown = subprocess.run(["readelf", "-h", "-l", "-d", os.path.join(BUILD, program)], check=True,
                               capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
        assert "DYN (Position-Independent Executable file)" in shown
        assert "GNU_RELRO" in shown and "BIND_NOW" in shown
        stack = [line for line in shown.replace("\n                 ", " ").split("\n") if "GNU_STACK" in line]
        assert stack and "RWE" not in stack[0]
