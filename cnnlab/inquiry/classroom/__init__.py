"""A class: its students on one server, what they handed in, and what all of them found together."""
