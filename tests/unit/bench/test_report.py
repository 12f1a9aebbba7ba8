"""What a reader sees."""

from pathlib import Path

from rempart.bench.charts import _PANELS
from rempart.bench.machine import file_system
from rempart.bench.measure import REQUESTS
from rempart.bench.report import number, report
from rempart.bench.results import Collected, Machine, Results, Scale
from rempart.bench.servers import LITELLM, NGINX, REMPART


def _results(found: Collected, load_average: float = 0.0) -> Results:
    return Results(
        began="2026-01-01T00:00:00+00:00",
        seconds=60.0,
        versions={"Rempart": "1"},
        machine=Machine(
            processor="P", cores=2, kernel="6", python="3.11", file_system="ext4", load_average=load_average
        ),
        scale=Scale(),
        missing={LITELLM: "it could not be installed: no such thing"},
        figures=found.figures(),
    )


def _found() -> Collected:
    found = Collected()
    for value in (300.0, 100.0, 200.0):
        found.add(REQUESTS, REMPART, value, "1/s")
        found.add(REQUESTS, NGINX, 10 * value, "1/s")
        found.note(REQUESTS, NGINX, "at least this")
    return found


def test_medians_spread_ratios_and_notes() -> None:
    text = report(_results(_found()))
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert [cell.strip() for cell in rows[REMPART].split("|")[2:5]] == ["200", "100 – 300", ""]
    assert [cell.strip() for cell in rows[NGINX].split("|")[2:6]] == [
        "2,000",
        "1,000 – 3,000",
        "0.10×",
        "at least this",
    ]


def test_who_is_missing_has_a_reason_in_place_of_a_figure() -> None:
    line = next(line for line in report(_results(_found())).splitlines() if LITELLM in line)
    assert "none" in line
    assert "it could not be installed" in line


def test_a_busy_machine_is_told() -> None:
    assert "busy" not in report(_results(_found(), 0.1))
    assert "busy with other things: load average 3.00" in report(_results(_found(), 3.0))


def test_numbers() -> None:
    assert [number(value) for value in (0.012, 1.234, 12.34, 1234.5, -0.05)] == [
        "0.01",
        "1.23",
        "12.3",
        "1,234",
        "-0.05",
    ]


def test_the_file_system_is_that_of_the_nearest_mount() -> None:
    mounts = "a / ext4 rw 0 0\nb /data xfs rw 0 0\nc /data/a\\040b btrfs rw 0 0\nd /data2 tmpfs rw 0 0\n"
    assert file_system(Path("/data/x"), mounts) == "xfs"
    assert file_system(Path("/data/a b/c"), mounts) == "btrfs"
    assert file_system(Path("/srv"), mounts) == "ext4"


def test_every_panel_is_another_measure() -> None:
    assert len(set(_PANELS)) == len(_PANELS) == 6
