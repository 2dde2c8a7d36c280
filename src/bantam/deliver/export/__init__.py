"""A shipped student as a file for other runtimes."""
