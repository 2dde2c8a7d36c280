"""The local page, and the server behind it."""
