"""Functions of whole DataFrames: `nearest` and the others that join, group or sample rows.

Contains no functions of one row's columns.
"""
