"""Known vulnerabilities and licences of the installed packages: ``make audit``, where the network allows.

The tools run from an environment of their own, so that they are not among what they look at.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("pip-audit>=2.7", "pip-licenses>=5")
OFFLINE = ("ConnectionError", "Max retries exceeded", "ServiceError", "NameResolutionError", "ProxyError", "HTTPError")


def tools(folder: Path) -> Path | None:
    """The tools' programs in an environment in ``folder``; None where they cannot be had."""
    venv.create(folder, with_pip=True)
    command = [str(folder / "bin/pip"), "install", "--quiet", *TOOLS]
    return folder / "bin" if subprocess.run(command, check=False, capture_output=True).returncode == 0 else None


def vulnerabilities(programs: Path) -> int:
    """Look for known vulnerabilities of what constraints.txt names; 0 where none is known, or nobody can be asked."""
    command = [str(programs / "pip-audit"), "--no-deps", "--disable-pip", "--timeout", "5"]
    command += ["--requirement", str(ROOT / "constraints.txt")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    said = result.stdout + result.stderr
    if any(word in said for word in OFFLINE):
        print("Vulnerabilities: not looked for, as the service that knows them cannot be reached from here.")
        return 0
    print(said)
    return result.returncode


def licences(programs: Path) -> int:
    """List the licences of what is installed."""
    command = [str(programs / "pip-licenses"), "--python", sys.executable, "--summary", "--order=count"]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Both; a sentence where the tools cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        programs = tools(Path(folder) / "tools")
        if programs is None:
            print("Audit skipped: pip-audit and pip-licenses cannot be installed from here.")
            return 0
        return vulnerabilities(programs) | licences(programs)


if __name__ == "__main__":
    sys.exit(main())
