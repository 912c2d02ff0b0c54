"""From text on this machine to batches of token ids: sources, documents, tokenizers, micro-chunks, order and cursor.

Commands, training and evaluation may use it; it uses `ondevice.run` and `ondevice.errors` and nothing else of the
project. It must not know models, optimizers or torch, and importing it imports nothing heavy.
"""
