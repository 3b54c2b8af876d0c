"""The wire of the Batch API: addresses, lines of files, and the objects of batches and files. Pure.

Begin with `urls`, then `lines`. No codec raises for the bytes that a server sends.
"""
