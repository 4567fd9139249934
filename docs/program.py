"""The whole program, for `generate.py` to describe."""

from localai.cli.commands import program

app = program()
