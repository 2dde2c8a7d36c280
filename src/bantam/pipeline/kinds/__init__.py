"""How each kind of stage is run: a file here for each file of `bantam.recipes.kinds`, its function `run`."""
