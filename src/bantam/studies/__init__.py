"""What is done to a finished run: one file a command."""
