"""Fine-tunes a small language model: `python -m trainer`. `recipe` tells the story; the torch-free modules serve the laptop too."""
