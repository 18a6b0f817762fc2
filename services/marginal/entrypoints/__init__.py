"""The programs: the only readers of the environment."""
