"""Imagined against real: did a model see coming what happened?

`read_imagination` measures a run's episode files (`episodes`, `latents`, `pictures`),
`summarise` averages and resamples (`summary`, `resampling`, `knowing`), and `report` shows.
Only steps whose actions were executed as imagined are compared; others are counted by reason.

Modules are imported when asked for: `wamsim.reality` needs `pictures` alone.
"""
