"""What users install is the library, and what they test with; the project's own tests stay away."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

build = pytest.importorskip("hatchling.build")

ROOT = Path(__file__).parents[1]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What a wheel of this checkout holds."""
    monkeypatch.chdir(ROOT)
    with ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        return [Path(name) for name in wheel.namelist()]


def test_the_wheel_holds_what_users_need_and_no_test_simulation_contract_or_model(files):
    packages = [file for file in files if not file.parts[0].endswith(".dist-info")]
    assert {file.parts[0] for file in packages} == {"orchestra"}
    assert Path("orchestra/py.typed") in packages
    of_users = {file.name for file in packages if file.parts[:2] == ("orchestra", "testing")}
    assert of_users >= {"__init__.py", "checker.py", "clock.py", "postgres.py"}
    words = {"ages", "contract", "crashes", "harness", "model", "simulation", "support", "tests"}
    assert not [file for file in packages if words & {*file.parts, file.stem}]


def test_the_library_imports_nothing_of_the_tests(files):
    sources = [ROOT / file for file in files if file.suffix == ".py"]
    assert len(sources) > 100
    assert not [file for file in sources if "tests.support" in file.read_text(encoding="utf-8")]
