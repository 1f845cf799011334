"""Published latencies, the floors that memory sets, and what we aim at.

Source of every figure unless it says otherwise: the project's FAMILIES notes, F.5, which
take them from a written report of the papers ("report": OpenMOSS/Awesome-WAM, project pages),
not from the papers themselves. None of these figures says whether text encoding counts; the
official cosmos code reads text features from a file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A published latency of one query.

    Attributes:
        name: Ours: "family:variant".
        published_ms: Milliseconds.
        hardware: What it was measured on.
        source: Where the figure is from.
        aim_ms: What we aim at on one H200, batch 1; None for no aim.
        note: How it was asked.
    """

    name: str
    published_ms: float
    hardware: str
    source: str
    aim_ms: float | None = None
    note: str = ""


REPORT = "F.5 [report]"

FIGURES = (
    Figure(
        name="fastwam:fastwam", published_ms=190.0, hardware="RTX 5090D V2", source=REPORT,
        aim_ms=40.0,
    ),
    Figure(
        name="fastwam:fastwam", published_ms=364.0, hardware="H100", source="the project's issue",
        aim_ms=40.0,
    ),
    Figure(
        name="fastwam:joint", published_ms=580.0, hardware="RTX 5090D V2", source=REPORT,
    ),
    Figure(name="fastwam:idm", published_ms=810.0, hardware="RTX 5090D V2", source=REPORT),
    Figure(
        name="cosmos:direct", published_ms=610.0, hardware="H100", source=REPORT, aim_ms=150.0,
        note="5 steps; 10 steps 950 ms, 1 step 160 ms",
    ),
    Figure(
        name="cosmos:planning", published_ms=4900.0, hardware="8 x H100", source=REPORT,
        aim_ms=1500.0, note="published for ALOHA, 8 proposals; ours: LIBERO's slots, one GPU",
    ),
    Figure(
        name="flow_hwm:full_sharing", published_ms=1000.0 / 1.91, hardware="A6000",
        source="F.5", note="published as 1.91 samples a second, 3.25 GB",
    ),
)  # fmt: skip

# Fast-WAM must read the video expert (10 GB) once and the action expert (2 GB) ten times, and
# an H200 reads 4.8 TB/s (NVIDIA's data sheet): 30 GB take 6.3 ms at best, 10 ms in practice.
FASTWAM_FLOOR_MS = 10.0

# Slow, fast, aim: at published size the variant that does not imagine must be this many times
# faster than the one that imagines first, in the same run.
RATIOS = (("fastwam:idm", "fastwam:fastwam", 4.0), ("fastwam:joint", "fastwam:fastwam", None))
