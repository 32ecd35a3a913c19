"""Images and pairs on disk."""
