"""Jars from Maven Central, as a pom names them, fetched once into ${LIVENPS_CACHE:-~/.cache/livenps}."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time


def classpath(name, pom, who):
    """The class path of the folder `name` of the cache, fetched if it is not there or of another pom. Safe beside another
    run: the folder appears under its name only when complete, and one run fetches while others wait. Fails as `who`."""
    cache = os.environ.get("LIVENPS_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "livenps")
    with open(pom, "rb") as f:
        wanted = f.read()
    target = os.path.join(cache, name)
    mark = os.path.join(target, "pom.xml")

    def complete():
        try:
            with open(mark, "rb") as f:
                return f.read() == wanted
        except OSError:
            return False

    if not complete():
        os.makedirs(cache, exist_ok=True)
        with open(os.path.join(cache, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete():
                print("%s: fetching %s" % (who, name), file=sys.stderr)
                fresh = tempfile.mkdtemp(prefix="jars-", dir=cache)
                try:
                    for _ in range(3):
                        result = subprocess.run(
                            ["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime",
                             "-DoutputDirectory=" + fresh],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                        if result.returncode == 0:
                            break
                        time.sleep(2)
                    else:
                        sys.exit("%s: Maven could not fetch %s:\n%s" % (
                            who, name, "\n".join(result.stdout.rstrip().split("\n")[-15:])))
                    with open(os.path.join(fresh, "pom.xml"), "wb") as f:
                        f.write(wanted)
                    shutil.rmtree(target, ignore_errors=True)
                    os.rename(fresh, target)
                finally:
                    shutil.rmtree(fresh, ignore_errors=True)
    return os.path.join(target, "*")
