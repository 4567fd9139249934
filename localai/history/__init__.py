"""The store of conversations."""
