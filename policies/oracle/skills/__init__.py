"""What the oracle can do: one module per skill."""
