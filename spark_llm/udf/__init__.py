"""UDFs: columns in, columns out; the door to pandas and Arrow.

Sends no requests: the engine does.
Begin with `factories`, the public functions, and `lazy_udf`, the UDF that they return.
"""
