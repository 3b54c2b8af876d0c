"""Fingerprints of answers, by which a table job knows what it has asked: of the recipe, and of a row's input.

No tables, and no plans of jobs.
Begin with `fingerprint`.
"""
