"""Imported by every Python that a command under a fault starts anew: it meets the same fault."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "fault_server.py"))["install_fault"]()
