"""How long one query of a model family takes: `wamsim bench --policies`.

Reading order: what is asked of whom in `sweep`, one model's rows in `measure`, what is built
in `build` and `families`, what they are asked in `inputs`, CUDA graphs in `graphs`, rows and
JSON in `rows`, published figures in `published`, the printed tables in `report`.
"""

from policies.latency.report import tables, to_json
from policies.latency.rows import Report
from policies.latency.sweep import Settings, bench, chosen, machine, parse_batches

__all__ = [
    "Report", "Settings", "bench", "chosen", "machine", "parse_batches", "tables", "to_json",
]  # fmt: skip
