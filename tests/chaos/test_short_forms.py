"""Every scenario in its short form; `make chaos` runs them in full."""

from pathlib import Path

import pytest
from tests.chaos.scenario import NotHere, Scenario, scenarios
from tests.chaos.stage import run


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", [one for one in scenarios().values() if one.short], ids=lambda one: one.name)
def test_it_is_green(scenario: Scenario, tmp_path: Path) -> None:
    try:
        line = run(scenario, short=True, folder=tmp_path)
    except NotHere as what:
        pytest.skip(f"it needs {what}")
    assert line.faults == [], line
