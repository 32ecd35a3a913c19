"""Abuse of every input, command and moment, each case judged automatically: see `python -m benchmarks.abuse --help`."""
