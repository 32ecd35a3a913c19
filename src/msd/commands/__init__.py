"""What each verb of the command line does: opens a run, calls the rooms in order, shows and returns the result."""
