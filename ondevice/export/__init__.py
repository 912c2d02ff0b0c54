"""ONNX files of our decoders (wire format, graphs, bits, verification), and folders for transformers and llama.cpp.

Commands and studies may use it; importing it imports neither torch nor onnxruntime. But for ``story.py`` it must not
know runs, datasets or how weights were learned: it gets a shape, tensors by name, and lineage as plain values.
"""
