"""The sandbox of the workers: what confines them on this system, and an honest report of what was achieved.

`choice` is what the user and the organization want, `report` the words for what was achieved. On Linux a
worker confines itself (`enter`); on macOS the app starts it confined (`macos`).
"""
