"""The container image, built by the Dockerfile without a registry: its base is a clean Debian 13 made here, its steps run in
a chroot (buildah). What it holds and as whom it runs."""

import os
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cluster  # noqa: E402
import roots  # noqa: E402


@pytest.fixture
def buildah(tmp_path):
    """A call of buildah in a store of this test's own."""
    reason = roots.why_not() or (None if shutil.which("buildah") else "buildah is not installed (tests/install package)")
    if reason:
        pytest.skip(reason)
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    environment = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}

    def call(command, *args):
        # None of these fetches anything: there is no registry here.
        policies = ["--signature-policy", str(policy)] if command in ("from", "commit", "bud") else []
        result = subprocess.run(["buildah", "--root", str(tmp_path / "store"), "--runroot", str(tmp_path / "run"), command, *policies,
                                 *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=environment, cwd=cluster.ROOT, preexec_fn=cluster.die_with_parent)
        assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
        return result.stdout.strip()
    yield call
    subprocess.run(["rm", "-rf", "--one-file-system", str(tmp_path / "store"), str(tmp_path / "run")])


@pytest.mark.timeout(3600)
def test_image(buildah):
    base = buildah("from", "scratch")
    buildah("add", base, roots.packed("trixie"), "/")
    buildah("commit", "--quiet", base, "localhost/base")
    buildah("bud", "--network", "host", "--pull-never", "--build-arg", "BASE=localhost/base", "--tag", "localhost/livenps", ".")
    image = buildah("from", "--pull-never", "localhost/livenps")

    def run(*command):
        return buildah("run", image, "--", *command)
    shown = run("livenps-consumer", "--version")
    assert "livenps-consumer 0.1.0" in shown and "TLS to Redis: yes" in shown
    assert "livenps-producer 0.1.0" in run("livenps-producer", "--version")
    assert run("id", "-u") == "10001"
    assert buildah("inspect", "--type", "image", "--format", "{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}",
                   "localhost/livenps") == "10001 [livenps-consumer] [run]"
    # What docker-compose.yml runs in it: health checks, and the script that makes the passwords.
    for tool in ("bash", "grep", "sha256sum", "od", "sed"):
        run("sh", "-c", "command -v " + tool)
    # Nothing of the build is left.
    assert run("sh", "-c", "ls /src /usr/bin/gcc /var/lib/apt/lists/* 2>/dev/null; true") == ""
