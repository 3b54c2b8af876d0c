"""Fingerprints: digests of recipes and inputs, which a table keeps beside its answers.

Begin with `fingerprint`; `input_form` has the forms of inputs of any type.
"""
