"""Measurements: one question per file. `python -m bench --list` names them; see README.md."""
