"""The home pair: two tiny language models trained from scratch on requests to a home-and-kitchen assistant.

Run `python -m home_pair --help` from the services directory.
"""
