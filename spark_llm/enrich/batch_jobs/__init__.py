"""Table jobs that a provider answers later, in batches: what is with it, what came back, what goes next.

No requests of its own, which `spark_llm.batches` sends.
Begin with `run`, then `ledger`.
"""
