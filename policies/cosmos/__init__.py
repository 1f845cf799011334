"""Cosmos Policy (NVIDIA, arXiv 2601.16163): one video transformer that acts, foresees, judges.

Importing this package is cheap; torch and the rest come with `FAMILY.make`.
"""

from policies.cosmos.config import VARIANTS
from policies.cosmos.options import CosmosOptions, make
from wamsim.registry import PolicyFamily

FAMILY = PolicyFamily(
    name="cosmos",
    config=CosmosOptions,
    make=make,
    variants=VARIANTS,
    summary="Cosmos Policy: actions, future and value as latent frames of one video diffusion",
)
