"""Text out of a model: sampling and generation over two backends, torch with a KV cache and onnxruntime.

The commands, evaluation samples and the trainer's samples use it; importing it imports neither torch nor onnxruntime,
and sampling needs only numpy. Apart from `open`, which finds a run's checkpoint, it must not know runs or datasets: it
gets a model or an export folder, token ids and a tokenizer.
"""
