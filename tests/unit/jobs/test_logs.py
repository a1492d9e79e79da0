import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dinodp.jobs import logs
from dinodp.jobs.closure import Closures

SCRIPTS = Path(__file__).parents[3] / "scripts"


def run(code, tmp_path):
    header = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\nfrom dinodp.jobs.logs import log_to_file, progress\n"
    log = tmp_path / "job.log"
    body = f"log_to_file({str(log)!r})\n{code}"
    process = subprocess.run([sys.executable, "-c", header + body], capture_output=True, text=True, check=False)
    return process, log.read_text()


def test_progress_ends_with_a_line_in_the_log(tmp_path):
    process, log = run("list(progress(range(3), 'embed', per_item=4, total=10))", tmp_path)
    assert process.returncode == 0
    assert "embed: 10 images in" in log


def test_a_users_mistake_is_one_sentence_in_log_and_terminal(tmp_path):
    process, log = run("from dinodp.errors import InputError\nraise InputError('No such folder.')", tmp_path)
    assert process.returncode == 1
    assert log == process.stderr == "Error: No such folder.\n"


def test_a_defect_keeps_its_traceback(tmp_path):
    process, log = run("1 / 0", tmp_path)
    assert process.returncode == 1
    assert "Traceback" in log
    assert "ZeroDivisionError" in log


GPU = "The memory of the GPU does not suffice (CUDA"
HERE = "The memory of this machine does not suffice: give smaller scans"
OUT_OF_MEMORY = (
    ("RuntimeError('CUDA error: out of memory')", f"{GPU} error: out of memory): "),
    ("torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.')", f"{GPU} out of memory): end what"),
    ("RuntimeError('DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes')", HERE),
    ("MemoryError()", HERE),
)


@pytest.mark.parametrize(("error", "sentence"), OUT_OF_MEMORY)
def test_memory_that_does_not_suffice_is_one_sentence(error, sentence, tmp_path):
    process, log = run(f"import torch\nraise {error}", tmp_path)
    assert process.returncode == 1
    (line,) = [line for line in log.splitlines() if line.startswith("Error: ")]
    assert line.startswith(f"Error: {sentence}")
    assert "Traceback (most recent call last)" in log  # a job's log keeps it


def test_what_a_reader_raises_is_a_sentence_and_its_traceback_is_in_the_log(tmp_path):
    code = "import pathlib, pandas, dinodp.jobs.origin as origin\n"
    code += "def broken(*_, **__): return [][1]\n"
    code += "pandas.read_csv = broken\norigin.parse_table(pathlib.Path('t.csv'), b'a')"
    process, log = run(code, tmp_path)
    (sentence,) = process.stderr.splitlines()
    assert sentence.startswith("Error: t.csv is damaged, or of a kind that is not known here (IndexError: list index")
    assert sentence.endswith(f"the traceback is in {tmp_path / 'job.log'}.")
    assert "in broken" in log
    assert sentence in log


@pytest.mark.parametrize("seconds", [0.0])
def test_rate_and_time_left_are_reported(tmp_path, seconds):
    code = f"import dinodp.jobs.logs as logs\nlogs.SECONDS_BETWEEN_LINES = {seconds}\nlist(progress(range(2), 'fit'))"
    _, log = run(code, tmp_path)
    assert "50%" in log
    assert "1/2" in log


@pytest.mark.parametrize("digest", [None, "own", "another"])
def test_a_job_runs_the_library_that_its_rules_name(tmp_path, digest):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "from types import SimpleNamespace\nfrom dinodp.jobs.logs import begin_job\n"
        "job = SimpleNamespace(log=['job.log'], config={}, params={'library': sys.argv[1] if sys.argv[1:] else None})\n"
        "begin_job(job)\nprint('began')"
    )
    given = {None: [], "own": [Closures().digest(script)], "another": ["0"]}[digest]
    process = subprocess.run(
        [sys.executable, script, *given], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    if digest == "another":
        assert (tmp_path / "job.log").read_text() == process.stderr
        assert process.stderr.startswith("Error: The library that this Python imports, ")
        assert "is not the one beside the rules that run" in process.stderr
    else:
        assert process.stdout == "began\n"


def test_of_scans_the_rate_per_minute_and_the_time_left_are_told(monkeypatch, caplog):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(logs.time, "monotonic", lambda: next(clock))
    caplog.set_level("INFO", logger=logs.logger.name)
    monkeypatch.setattr(logs.logger, "propagate", True)
    assert list(logs.progress(iter("abc"), "predict", 3, unit="scan")) == ["a", "b", "c"]
    first, *_, last = (record.getMessage() for record in caplog.records)
    assert first == "predict: 1/3 [00:20<00:40, 3 scans/min]"
    assert last == "predict: 3 scans in 80.0 s, 2.25 scans/min"


def test_on_a_terminal_a_bar_tells_the_same(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(logs.sys, "stderr", terminal)
    assert list(logs.progress(iter("ab"), "fit", 2, unit="scan")) == ["a", "b"]
    assert re.search(r"fit: 100%\|.*\| 2/2 \[00:00<00:00, [0-9.e+]+ scans/min\]", terminal.getvalue())
    list(logs.progress(iter("ab"), "embed", 2))
    assert "image/s" in terminal.getvalue()
