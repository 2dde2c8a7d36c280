"""Anybody's photographs, one command: a recipe is planned for what there is and for the time, run, and handed over."""
