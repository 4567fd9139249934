"""The types of one checkpoint, side by side: what each costs, measured on this machine, and which to take."""
