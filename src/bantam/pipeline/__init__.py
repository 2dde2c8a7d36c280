"""The main path: from a recipe and a folder of photographs to a shipped student."""
