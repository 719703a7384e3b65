"""Damaged files: read, or refused in one line; no traceback, no hang, no large memory, nothing printed."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PROGRAM = Path(__file__).with_name("fuzz.py")
FUZZ = SimpleNamespace(**runpy.run_path(str(PROGRAM)))


@pytest.mark.parametrize(
    "mutations", [pytest.param(25, id="few"), pytest.param(3000, marks=pytest.mark.slow, id="many")]
)
@pytest.mark.parametrize("reader", FUZZ.READERS)
def test_damaged_files_are_read_or_refused_in_one_line(reader, mutations):
    outcome = FUZZ.fuzz(reader, mutations)
    assert outcome.faults == []
    assert f"| {reader} | {mutations} |" in outcome.row


@pytest.mark.parametrize("fault", ["raises", "hangs", "takes memory", "prints", "ends"])
def test_each_kind_of_fault_is_found(tmp_path, fault):
    broken = {
        "raises": "raise KeyError(path)",
        "hangs": "time.sleep(60)",
        "takes memory": "bytearray(3 << 30)",
        "prints": "print('x', file=sys.stderr)",
        "ends": "os.abort()",
    }[fault]
    plain = "from textdiff.tests.fuzz_readers import READERS\n"
    reader = f"""
from textdiff.tests.fuzz_readers import READERS, outlines

def broken(path):
    if path.read_bytes() != next(outlines()):  # the first file must be sound
        {broken}

READERS = {{"outlines": (".xml", outlines, broken)}}
"""
    source = PROGRAM.read_text(encoding="utf-8").replace("SECONDS = 10.0", "SECONDS = 1.0")
    assert plain in source
    program = tmp_path / "fuzz.py"
    program.write_text(source.replace(plain, reader), encoding="utf-8")
    process = subprocess.run(
        [sys.executable, str(program), "outlines", "--mutations", "1"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1, process.stdout + process.stderr
