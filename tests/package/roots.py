"""Clean Debian roots, made by debootstrap from where this machine's apt installs, kept packed in
${LIVENPS_CACHE:-~/.cache/livenps}; and systemd booted in one, with the network of this machine."""

import os
import re
import shutil
import signal
import subprocess
import time

CACHE = os.path.join(os.environ.get("LIVENPS_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "livenps"), "roots")
# Besides the smallest Debian: what every machine has that runs services.
INCLUDE = ["systemd", "systemd-sysv"]


def why_not():
    """Why no root can be made here; None: it can."""
    if os.geteuid() != 0:
        return "making and booting a root needs root"
    for tool in ("debootstrap", "systemd-nspawn", "nsenter"):
        if not shutil.which(tool):
            return "%s is not installed (tests/install package)" % tool
    return None


def codename():
    with open("/etc/os-release") as f:
        return dict(line.rstrip().split("=", 1) for line in f if "=" in line)["VERSION_CODENAME"].strip('"')


def mirror():
    """Where apt of this machine has the main part of its own Debian from."""
    for attempt in range(2):
        found = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
                               capture_output=True, text=True, check=True).stdout.split("\n")
        for line in found:
            if line.split()[1:] == [codename(), "main"]:
                return line.split()[0]
        subprocess.run(["apt-get", "-q", "update"], check=attempt == 0, capture_output=True)
    raise AssertionError("apt does not say where Debian %s comes from:\n%s" % (codename(), "\n".join(found)))


def packed(release, include=()):
    """The tar file of a clean root, made if it is missing."""
    path = os.path.join(CACHE, "%s.tar" % release)
    if not os.path.exists(path):
        os.makedirs(CACHE, exist_ok=True)
        work = os.path.join(CACHE, "%s.%d" % (release, os.getpid()))
        try:
            made = subprocess.run(["debootstrap", "--variant=minbase", "--include=" + ",".join([*INCLUDE, *include]), release,
                                   work, mirror()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
            assert made.returncode == 0, "debootstrap %s: %s" % (release, made.stdout[-3000:])
            subprocess.run(["chroot", work, "apt-get", "clean"], check=True)
            subprocess.run(["tar", "-C", work, "--exclude=./dev/*", "-cf", path + ".new", "."], check=True)
            os.rename(path + ".new", path)
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", work])
    return path


def unpack(release, folder):
    os.makedirs(folder)
    subprocess.run(["tar", "-C", folder, "-xf", packed(release)], check=True)
    # apt in there asks the same names as apt out here.
    for name in ("/etc/hosts", "/etc/resolv.conf"):
        shutil.copyfile(name, folder + name)


class Booted:
    """systemd as the first process of a root. Processes and files are its own, the network is this machine's."""

    def __init__(self, world, folder):
        # Without a systemd out here there is no unit that could be made for it.
        unit = [] if os.path.isdir("/run/systemd/system") else ["--keep-unit"]
        from cluster import Program, wait_for
        self.wait_for = wait_for
        self.program = Program(world, "nspawn", ["systemd-nspawn", "--quiet", "--register=no", *unit, "--resolv-conf=off",
                                                 "--console=pipe", "--boot", "--directory=" + folder], dict(os.environ))
        self.folder = folder
        self.leader = wait_for(self._leader, 20, "systemd has started in the root")
        wait_for(lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded"), 60,
                 "the root has booted")

    def _leader(self):
        assert self.program.running(), "systemd-nspawn ended: " + self.program.log()[-2000:]
        with open("/proc/%d/task/%d/children" % (self.program.pid, self.program.pid)) as f:
            return next((int(child) for child in f.read().split() if self._is_first(child)), None)

    @staticmethod
    def _is_first(child):
        """The first process of its own namespace: before it there is another child, which makes it and ends."""
        try:
            with open("/proc/%s/status" % child) as f:
                return re.search(r"^NSpid:\s+\d+\s+1$", f.read(), re.M)
        except OSError:
            return None

    def run(self, *command, check=True, input=None, timeout=600):
        enter = ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--pid", "--root", "--wd"]
        result = subprocess.run([*enter, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive",
                                 "LC_ALL=C.UTF-8", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                stdin=subprocess.DEVNULL if input is None else None, input=input, timeout=timeout)
        assert not check or result.returncode == 0, "%s: %d: %s" % (" ".join(command), result.returncode, result.stdout[-3000:])
        return result

    def show(self, unit, name):
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def write(self, path, text, mode=0o644):
        os.makedirs(os.path.dirname(self.folder + path), exist_ok=True)
        with open(os.open(self.folder + path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as f:
            f.write(text)

    def off(self):
        """Ends it: systemd's own signal for that, then nspawn's."""
        self.program.ended_on_purpose = True
        try:
            os.kill(self.leader, signal.SIGRTMIN + 4)
        except ProcessLookupError:
            pass
        for _ in range(600):
            if not self.program.running():
                return
            time.sleep(0.1)
        self.program.kill()
