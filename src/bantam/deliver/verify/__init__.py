"""Whether anybody's code package keeps the rules and gives its submission."""
