"""Students as restartable jobs: one process each, as many at a time as fit, one status table."""
