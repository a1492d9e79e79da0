"""Every package that a script imports, directly or through the library, is declared in its rule's environment."""

import ast
import re
from pathlib import Path

import pytest
import rattler
import yaml

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "scripts"
STANDARD = set(__import__("sys").stdlib_module_names)
CONDA_NAME = {"PIL": "pillow", "torch": "pytorch", "sklearn": "scikit-learn", "yaml": "pyyaml"}
OPTIONAL = {"faiss", "openvino"}  # each is asked for by name, and its absence is told in a sentence
RULE = re.compile(r'conda:\s+(?:"\.\./envs/(\w+)\.yaml"|TORCH\b).*?script:\s+"\.\./scripts/(\w+)\.py"', re.S)


def pairs():
    return sorted({match for file in (ROOT / "rules").glob("*.smk") for match in rule_pairs(file.read_text())})


def rule_pairs(text):
    for rule in re.split(r"(?m)^rule ", text)[1:]:
        yield from ((environment or "torch", script) for environment, script in RULE.findall(rule))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_files(name):
    parts = SCRIPTS.joinpath(*name.split("."))
    return [path for path in (parts.with_suffix(".py"), parts / "__init__.py") if path.is_file()]


def packages_of(script):
    """Names of third-party packages reached from a script; a package with a registry reaches all its modules."""
    seen, queue, found = set(), [script], set()
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        if path.name == "__init__.py" and "iter_modules" in path.read_text():
            queue.extend(path.parent.glob("*.py"))
        for name in imports(path):
            top = name.split(".")[0]
            if top == "dinodp":
                queue.extend(module_files(name))
            elif top not in STANDARD and top != "snakemake":
                found.add(CONDA_NAME.get(top, top))
    return found


def test_every_rule_is_covered():
    rules = sum(len(re.findall(r"(?m)^rule (\w+)", file.read_text())) for file in (ROOT / "rules").glob("*.smk"))
    assert len(pairs()) == rules


@pytest.mark.parametrize(("environment", "script"), pairs())
def test_imports_are_declared(environment, script):
    content = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())
    declared = {line.split()[0] for line in content["dependencies"]}
    assert packages_of(SCRIPTS / f"{script}.py") - OPTIONAL <= declared


def test_the_environments_for_cpu_and_cuda_differ_in_the_build_of_torch_alone():
    cpu, cuda = ((ROOT / f"envs/{name}.yaml").read_text().splitlines() for name in ("torch", "torch-cuda"))
    differing = {tuple(pair) for pair in zip(yaml_lines(cpu), yaml_lines(cuda), strict=True) if len(set(pair)) > 1}
    assert differing == {("  - pytorch 2.13.* cpu*", "  - pytorch 2.13.* cuda*")}


def yaml_lines(lines):
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_environments_are_pinned_as_constraints_are(path):
    """A release that pip is held to is the one that conda is held to."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    for line in yaml.safe_load(path.read_text())["dependencies"]:
        spec = rattler.MatchSpec(line, strict=True)
        name = {"pytorch": "torch"}.get(spec.name.normalized, spec.name.normalized).replace("_", "-")
        if name != "python":
            assert f"{constraints[name]}.".startswith(str(spec.version).removesuffix("*")), line


def test_the_container_has_the_pinned_torch():
    pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    text = (ROOT / "Dockerfile").read_text()
    assert f"pip install --no-cache-dir {pinned} " in text
    assert "--constraint constraints.txt" in text


def test_a_missing_declaration_would_be_noticed(tmp_path):
    script = tmp_path / "x.py"
    script.write_text("import faiss\nfrom dinodp.jobs.costs import measured\n")
    assert {"faiss", "pytorch"} <= packages_of(script)
