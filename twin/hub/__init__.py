"""The Hugging Face Hub, emulated: repositories on disk behind the Hub's own HTTP API. `app.Hub` is the whole of it."""
