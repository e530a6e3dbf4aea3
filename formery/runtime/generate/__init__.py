"""Text generation: prompts in, new tokens out, whole or piece by piece.

for piece in stream(model, "def ", max_new_tokens=100):
    print(piece.text, end="", flush=True)
texts = [done.text for done in generate(model, ["one ", "another "], max_new_tokens=20, temperature=0.8)]
"""

from __future__ import annotations

from .loop import Generated, Options, Piece, Prompts, generate, stream
from .sampling import Sampling, distribution, drawn
from .stops import Stops
from .tokenizers import Bytes, FileTokenizer, Tokenizer, open_tokenizer, tokenizer_of

__all__ = [
    "Bytes",
    "FileTokenizer",
    "Generated",
    "Options",
    "Piece",
    "Prompts",
    "Sampling",
    "Stops",
    "Tokenizer",
    "distribution",
    "drawn",
    "generate",
    "open_tokenizer",
    "stream",
    "tokenizer_of",
]
