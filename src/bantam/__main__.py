"""`python -m bantam` is the command `bantam`."""

from bantam.cli import main

main()
