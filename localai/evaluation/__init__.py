"""How good a model file is: perplexity, and what it has lost against another. The texts are in `texts`."""
