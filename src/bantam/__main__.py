"""`python -m bantam` is the command `bantam`."""

from bantam.cli.main import main

main()
