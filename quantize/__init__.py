"""Checkpoint -> GGUF.

The public face is `quantize.client.run(job, on_progress) -> Report`, with the types of `quantize.protocol`;
the work itself happens in a worker process (`quantize.worker`), which calls `quantize.pipeline.convert`.
"""
