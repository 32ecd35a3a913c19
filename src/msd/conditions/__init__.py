"""Conditions (class labels) and the saved division of their space among students."""
