"""A run's folder: its files, and the one way to open a finished one."""
