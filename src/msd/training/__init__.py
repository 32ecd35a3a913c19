"""Roles, turns and the loop that runs them; checkpoints; the one place that knows of devices."""
