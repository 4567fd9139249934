"""The commands: each file parses, wires and prints one group of them."""
