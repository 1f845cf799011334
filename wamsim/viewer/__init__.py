"""Run folders as a web page: served on loopback, or written as a static folder.

From disk to page, downhill:

- `shelf` finds runs and reads what changed; `measures` scores imagination in the background.
- `run_documents`, `board_documents` and `episode_documents` say as plain data what the page
  shows; `library` looks documents up by name, for both worlds.
- `illustrator` is what is asked of somebody who draws, `artists` what a drawing process does,
  `desk` the process, `studio` who draws what next.
- `film` and `mp4` are videos that can be watched while they are drawn; `sheets` and
  `retrieval` imagined beside real.
- `server`, `film_response` and `serve` show it all on this machine; `report` and `printing`
  write it into a folder. The page itself is in `page/`.

Run folders are only read.
"""
