"""Measuring a cohort as its users meet it: one routed sample set, one score; then part by part, and the clock."""
