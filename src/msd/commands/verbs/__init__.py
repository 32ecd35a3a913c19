"""The verbs, a file each: their options and help, and one call. What a verb does is imported when it runs."""
