"""Java and a Spark session on one machine, for a command.

No settings of a cluster.
Begin with `spark`.
"""
