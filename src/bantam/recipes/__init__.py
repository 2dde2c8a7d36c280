"""What a run is asked to do: recipes in TOML, typed and strict, and those that come with Bantam."""
