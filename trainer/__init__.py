"""Fine-tunes a small language model: `python -m trainer`. Start at `train/recipe.py`; the laptop uses the torch-free modules too."""
