# mujoco 3.3.2 ships no types for its compiled module; pyright takes everything in it as Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
