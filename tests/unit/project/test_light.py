"""What the Snakefile imports is light: it is imported again in every job."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "sklearn", "scipy", "matplotlib", "nibabel", "pydicom", "h5py", "huggingface_hub")
CODE = """
import sys
for name in {heavy!r}:
    sys.modules[name] = None  # an import of it fails
import dinodp.configuration.asked, dinodp.configuration.page, dinodp.jobs.devices, dinodp.jobs.provenance
from dinodp.backbones import BACKBONES
from dinodp.datasets.sources import SOURCES
from dinodp.families import FAMILIES
print(len(BACKBONES), len(SOURCES), len(FAMILIES))
"""


def test_the_configuration_is_read_without_heavy_packages(root):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(heavy=HEAVY)],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(root / "scripts")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "8", "15"]


def test_reading_the_configuration_takes_a_fraction_of_a_second(root):
    """Of the processor, since other work on the machine must not decide; Snakemake has imported pandas anyway."""
    code = """
import pandas, pydantic, time, yaml
start = time.process_time()
from dinodp.configuration import Configuration
merged = {**yaml.safe_load(open("config/catalog.yaml")), **yaml.safe_load(open("config/paper.yaml"))}
read = time.process_time()
Configuration.of(merged)
print(read - start, time.process_time() - read)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=root, env={"PYTHONPATH": str(root / "scripts")},
    )  # fmt: skip
    imports, reading = map(float, done.stdout.split())
    assert imports < 1.5
    assert reading < 0.5
