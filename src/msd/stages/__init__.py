"""Training phases: the roles each needs, the order of their turns, and the loss of each turn."""
