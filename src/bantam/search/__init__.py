"""Candidates in a shared study, and the workers that train them."""
