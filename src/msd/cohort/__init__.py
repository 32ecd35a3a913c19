"""The delivered thing: K students, their partition, and a manifest that says how they belong together."""
