"""A run's folder: its files, their one reader and writer, its lock."""
