from pathlib import Path

from servery_local.child import ChildSpec
from servery_local.supervisor import KILL_MARGIN, SWEEP_GRACE, stop_bound, stop_stages


def spec(name: str, stage: int, grace: float) -> ChildSpec:
    return ChildSpec(name, ("true",), {}, Path("/"), stop_stage=stage, stop_grace=grace)


SPECS = [spec("store", 2, 8.0), spec("gateway", 0, 7.0), spec("worker", 1, 10.0), spec("builder", 1, 3.0)]


def test_stages_stop_one_after_the_other() -> None:
    names = [[each.name for each in stage] for stage in stop_stages(SPECS)]
    assert names == [["gateway"], ["worker", "builder"], ["store"]]


def test_who_waits_for_the_end_waits_for_all_stages_and_the_sweep() -> None:
    assert stop_bound(SPECS) == 7.0 + 10.0 + 8.0 + 2 * SWEEP_GRACE + KILL_MARGIN
