"""The public API: the promised names exist, load lazily, and nothing else is importable by accident."""

from __future__ import annotations

import subprocess
import sys

import pytest

import msd


def test_every_public_name_loads() -> None:
    for name in msd.__all__:
        assert getattr(msd, name) is not None


def test_importing_msd_imports_no_torch() -> None:
    code = "import sys, msd; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Cohorts'"):
        _ = msd.Cohorts


def test_distilling_never_touches_real_images() -> None:
    """All that `msd distill` and its workers import, without the module that holds images or the library they come from."""
    code = (
        "import sys, msd.commands.distill, msd.fleet.worker, msd.fleet.training, msd.fleet.pairing, msd.stages.table\n"
        "sys.exit(str({'msd.data.images', 'sklearn.datasets', 'torchmetrics'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
