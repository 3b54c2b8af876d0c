"""The chat task: its conversations, and how they are written and read on the wire.

No structured output, which is in `protocol.structured`.
Begin with `task`.
"""
