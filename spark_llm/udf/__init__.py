"""UDFs: columns in, columns out; the door to pandas and Arrow.

No requests, which the engine sends.
Begin with `factories`, the public functions, and `lazy_udf`, what they return.
"""
