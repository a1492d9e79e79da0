"""Known vulnerabilities and licences of the installed packages: ``make audit``, where the network allows.

The tools run from an environment of their own, so that they are not among what they look at.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

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
    command = [str(programs / "pip-audit"), "--no-deps", "--disable-pip", "--timeout", "5", "--format", "json"]
    command += ["--requirement", str(ROOT / "constraints.txt")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if not result.stdout.strip() and any(word in result.stderr for word in OFFLINE):
        print("Vulnerabilities: not looked for, as the service that knows them cannot be reached from here.")
        return 0
    if not result.stdout.strip():
        print(result.stderr)
        return 1
    print("\n".join(said(json.loads(result.stdout)["dependencies"])))
    return result.returncode


def said(packages: list[dict[str, Any]]) -> list[str]:
    """What pip-audit found, in lines. A package that its service does not know is one that was not looked at."""
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, fault) for package in packages for fault in package.get("vulns", [])]
    lines = [f"{package['name']} {package['version']}: {fault['id']}" for package, fault in found]
    asked = len(packages) - len(skipped)
    lines.append(f"Vulnerabilities: {asked} of {len(packages)} packages were looked up, {len(found)} known.")
    return [*lines, f"The service does not know: {', '.join(skipped)}."] if skipped else lines


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
