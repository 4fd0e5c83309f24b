"""Planned memory against the measured peak of real runs on a CPU."""

from pathlib import Path

import pytest

from scripts import bench_plan

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench_plan.write_small(tmp_path_factory.mktemp("models") / "small")


def test_eight_settings_are_held():
    assert len(bench_plan.QUICK) == 8


@pytest.mark.parametrize("name", bench_plan.QUICK)
def test_planned_memory_is_near_to_the_measured_peak(name: str, small: Path, tmp_path: Path):
    planned, peak = bench_plan.measured(bench_plan.CASES[name], small, tmp_path / "run")
    assert bench_plan.within(planned, peak), f"{planned / 1e6:.0f} MB for {peak / 1e6:.0f} MB"
