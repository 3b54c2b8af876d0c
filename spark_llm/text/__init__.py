"""Text for people: tables, excerpts, names, and numbers with their units.

No JSON, no requests and no secrets: strings and numbers in, strings out.
Begin with `table`, which prints every report, and `format`, which writes its numbers.
"""
