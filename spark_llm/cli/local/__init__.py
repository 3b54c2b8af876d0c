"""What a command needs on one machine: Java, a Spark session, Delta, and quiet output.

Nothing that a cluster needs.
Begin with `spark`.
"""
