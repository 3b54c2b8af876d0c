"""What a column of answers used: rows, errors, tokens, latency and cost, from a table or beside an action.

No requests and no writes: aggregates over the columns that UDFs made.
Begin with `api`, the public functions, and `counts`, the aggregates.
"""
