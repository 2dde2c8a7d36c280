"""The code package that is handed in."""
